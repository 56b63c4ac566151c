"""Image classifiers: the table of mean constants and times per method, and the same as a picture.

python -m figures.images

Reads what python -m experiments.images computed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from figures.style import Results, Settings, main, save, save_table, style
from lipcompare.report.figures.store import pareto
from lipcompare.report.tables import by_group


def caption(frame: pd.DataFrame) -> str:
    """Models with their accuracy, and how many examples each mean is over."""
    parts = []
    for model, rows in frame.groupby("label.model", sort=False):
        count, accuracy = rows["label.example"].nunique(), float(rows["label.accuracy"].iloc[0])
        parts.append(f"{model} ({count} test image{'s' * (count > 1)}; test accuracy {accuracy:.1%})")
    limits = ", ".join(f"{limit:g}" for limit in sorted(frame["time_limit"].unique()))
    return f"Image classifiers, at most {limits} s per image and method: {', '.join(parts)}"


def draw(settings: Settings) -> Iterator[Path]:
    """The table over all models, and one table and one figure of tightness against time."""
    frame = Results.read(settings, "images").frame
    group = ["label.model", "label.radius"]
    table = by_group(frame, group, caption(frame), heading="{}, radius {}")
    yield from save_table(table, settings, "images")
    with style():
        yield from save(pareto(frame, title="Image classifiers"), settings, "images")


if __name__ == "__main__":
    sys.exit(main(draw, __doc__))
