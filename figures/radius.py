"""Value and time against the radius of the box, per method: figure and table.

python -m figures.radius

Reads what python -m experiments.radius computed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from figures.style import Results, Settings, main, save, save_table, style
from lipcompare.report import figures as report_plots
from lipcompare.report import tables as report_tables


def draw(settings: Settings) -> Iterator[Path]:
    """One figure and one table per network."""
    frame = Results.read(settings, "radius").frame
    for model, rows in frame.groupby("label.model", sort=False):
        name = "radius" if frame["label.model"].nunique() == 1 else f"radius_{model}"
        with style():
            figure = report_plots.sweep(rows, "label.eps", "radius of the box", title=f"{model}, by radius")
            yield from save(figure, settings.out, name)
        table = report_tables.by_group(rows, ["label.eps"], f"{model}, by radius", heading="radius {}")
        yield from save_table(table, settings.out, name)


if __name__ == "__main__":
    sys.exit(main(draw, __doc__))
