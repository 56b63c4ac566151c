"""What the figures of the sweeps share: value and time against a size, one figure and one table per radius."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from figures.style import Results, Settings, save, save_table, style
from lipcompare.report import figures as report_plots
from lipcompare.report import tables as report_tables


def draw(settings: Settings, study: str, axis: str, label: str, family: str) -> Iterator[Path]:
    """A figure and a table per radius of the study."""
    frame = Results.read(settings, study).frame
    for eps, rows in frame.groupby("label.eps"):
        name = study if frame["label.eps"].nunique() == 1 else f"{study}_{eps:g}"
        title = f"{family}, radius {eps:g}"
        with style():
            figure = report_plots.sweep(rows, f"label.{axis}", label, logarithmic=axis != "depth", title=title)
            yield from save(figure, settings.out, name)
        table = report_tables.by_group(rows, [f"label.{axis}"], title, heading=f"{axis} {{}}")
        yield from save_table(table, settings.out, name)
