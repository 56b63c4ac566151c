"""What the questions share: their study, the reference networks, and how cells are timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

import lipcompare
from experiments.study import Choices
from lipcompare import Problem
from lipcompare.errors import InvalidInput
from lipcompare.study.run import Setting
from lipcompare.testing.clock import processor

NAME = "questions"
NORMS = ("inf", "2", "1")

T = TypeVar("T")


REPEATS, LONG = 3, 2.0
"""How often work is timed, and seconds from which once is enough."""


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What it returns, and the processor's seconds: the median of a few runs, of long work those of one.

    The work's own limits and shares of time are in such seconds too, so it does the same on a busy machine.
    """
    return timed_in_turns({"": work})[""]


def timed_in_turns(works: Mapping[str, Callable[[], T]], long: float = LONG) -> dict[str, tuple[T, float]]:
    """The same of several, one run of each after another, so that what else the machine does is the same for all.

    ``long``: seconds of a run from which one is enough.
    """
    results: dict[str, T] = {}
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(REPEATS):
        for name, work in works.items():
            if max(taken[name], default=0.0) < long:
                started = time.process_time()
                with processor():
                    results[name] = work()
                taken[name].append(time.process_time() - started)
    return {name: (results[name], statistics.median(taken[name])) for name in works}


def verdict(kept: bool) -> str:
    """What is said of a target."""
    return "kept" if kept else "MISSED"


def settings(question: str, methods: Sequence[str], chosen: Choices) -> list[Setting]:
    """One for every method that was asked for."""
    made = [Setting(NAME, {"question": question, "method": m}, series=m) for m in methods]
    return [s for s in made if not chosen.methods or s.label in chosen.methods]


def present(path: Path) -> Path:
    """The path of a file that has to be there."""
    if not path.is_file():
        raise InvalidInput(f"There is no {path}: --reference names the folder of the reference networks.")
    return path


def reference(root: Path, name: str, eps: float, norm: str) -> Problem:
    """A reference network around its input."""
    path = present(root / f"{name}.npz")
    with np.load(path) as file:
        center = file["x0"]
    return Problem.around(lipcompare.load(path), center, eps, norm=norm)


def shape(sizes: Sequence[int]) -> str:
    """Sizes of layers as a name says them."""
    return "-".join(map(str, sizes))
