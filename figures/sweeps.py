"""What the sweeps' figures share: value and time against a size or the radius, per method, as picture and table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from figures.style import Results, Settings, save, save_table, style
from lipcompare.report.figures.store import sweep
from lipcompare.report.tables import by_group


@dataclasses.dataclass(frozen=True)
class Axis:
    """What a study is drawn against.

    Attributes:
        x: the label along the axis.
        words: the axis in words.
        title: of a figure, with a place for the value of ``per``.
        heading: of a table's group, with a place for ``x``.
        per: the label of which every value has a figure and a table of its own.
    """

    x: str
    words: str
    title: str
    heading: str
    per: str = "eps"


def draw_sweep(name: str, axis: Axis, settings: Settings) -> Iterator[Path]:
    """The figures and tables of one study."""
    frame = Results.read(settings, name).frame
    groups = frame.groupby(f"label.{axis.per}", sort=axis.per == "eps")
    for value, rows in groups:
        text = f"{value:g}" if isinstance(value, float) else str(value)
        stem = name if groups.ngroups == 1 else f"{name}_{text}"
        title = axis.title.format(text)
        with style():
            figure = sweep(rows, f"label.{axis.x}", axis.words, logarithmic=axis.x != "depth", title=title)
            yield from save(figure, settings, stem)
        yield from save_table(by_group(rows, [f"label.{axis.x}"], title, heading=axis.heading), settings, stem)
