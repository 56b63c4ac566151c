"""What else people ask: certified radii, norms of all outputs together, the whole space, and which exact method."""

from __future__ import annotations

from rich.console import Console

from experiments.measured import Build
from experiments.questions import everywhere, exact, norms, radius
from experiments.questions.cells import NAME
from experiments.study import Choices
from lipcompare.store.database import Store

PARTS: dict[str, Build] = {
    "radius": radius.build,
    "norms": norms.build,
    "exact": exact.build,
    "everywhere": everywhere.build,
}

MISSED = 1e-9
"""Relative difference from brute force that rounding accounts for."""


def check(chosen: Choices, console: Console) -> int:
    """1 if a value is not that of brute force, or a lower end is above another's upper one, else 0."""
    with Store(chosen.store, read_only=True) as store:
        frame = store.frame(NAME)
    wrong = []
    if "label.missed" in frame:
        wrong += frame[frame["label.missed"] > MISSED]["task"].tolist()
    for task, rows in frame[frame["lower"].notna() & frame["upper"].notna()].groupby("task"):
        if rows["lower"].max() > rows["upper"].min() * (1 + MISSED):
            wrong.append(task)
    for task in wrong:
        console.print(f"CONTRADICTION {task}")
    return int(bool(wrong))
