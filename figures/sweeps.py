"""The sweeps' figures and tables: value and time against a size or the radius, per method.

python -m figures.sweeps                       # all of them
python -m figures.sweeps tiny_width radius

Reads what python -m experiments.sweeps computed.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from figures.style import Results, Settings, main, save, save_table, style
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


AXES = {
    "tiny_width": Axis("width", "hidden width", "MLPs 16-w-w-10, radius {}", "width {}"),
    "tiny_depth": Axis("depth", "linear layers", "MLPs 16-32-...-32-10, radius {}", "depth {}"),
    "tiny_cnn": Axis("width", "channels", "CNNs with two convolutions, radius {}", "width {}"),
    "radius": Axis("eps", "radius of the box in l_inf", "{}, by radius", "radius {}", per="model"),
}
"""By study."""


def draw(name: str, settings: Settings) -> Iterator[Path]:
    """The figures and tables of one study."""
    axis = AXES[name]
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


DRAWS: dict[str, Callable[[Settings], Iterator[Path]]] = {name: partial(draw, name) for name in AXES}
"""By study, as :mod:`figures.everything` takes them."""


if __name__ == "__main__":
    sys.exit(main(DRAWS, __doc__))
