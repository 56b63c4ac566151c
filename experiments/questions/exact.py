"""The method ``exact`` beside those that it picks from."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from rich.console import Console

import lipcompare
from experiments.measured import Measured, Outcome
from experiments.questions.cells import NAME, NORMS, reference, settings, shape, timed_in_turns
from experiments.study import Choices
from lipcompare import Bound, Problem, Status
from lipcompare.study.run import Setting, Study, Task
from lipcompare.testing.networks import dense

METHODS = ("exact", "milp", "lipbab", "bab", "enumerate")
RANDOM = (((6, 8, 8, 3), 0.1), ((6, 8, 8, 3), 0.3), ((6, 16, 16, 3), 0.1), ((6, 10, 10, 10, 3), 0.1))
REFERENCE = ("mlp3_w16", "mlp_d2_w32", "mlp3_w32", "mlp_d3_w32", "mlp_d4_w32", "mlp_d5_w32", "mlp_d6_w32", "mlp_d7_w32",
             "mlp_d8_w32", "mlp3_w64", "mlp3_w128")  # fmt: skip
RADII = (0.02, 0.1, 0.3)
SOME = ("mlp3_w16", "mlp_d2_w32", "mlp3_w32", "mlp_d4_w32")
"""Reference networks of a reduced run."""
LONG = 10.0
"""Seconds of a run from which one is enough: which tree of a race goes on depends on the clock, so times of ``bab``
differ by a sixth from run to run."""


def build(chosen: Choices, console: Console) -> Measured:
    """``exact`` beside the methods that it picks from."""
    root = chosen.reference
    if root is None:
        cases = [
            (f"random {shape(sizes)}@{eps:g}", Problem.around(dense(1, sizes), 0.0, eps, norm=norm))
            for sizes, eps in RANDOM
            for norm in NORMS
        ]
    else:
        names = REFERENCE if chosen.full else SOME
        radii = RADII if chosen.full else RADII[:2]
        cases = [(f"{n}@{eps:g}", reference(root, n, eps, norm)) for eps in radii for n in names for norm in NORMS]
    tasks = [Task(problem, {"question": "exact", "case": c, "norm": problem.norm.value}) for c, problem in cases]
    limits, asked = chosen.limits(5.0), settings("exact", METHODS, chosen)
    problems = {task.name: task.problem for task in tasks}

    @functools.lru_cache(maxsize=1)
    def compared(name: str) -> dict[str, tuple[Bound, float]]:
        # All methods on one case together: a method that the store lacks is compared with what runs beside it.
        runs = {s.label: partial(lipcompare.bound, problems[name], s.label, time_limit=limits.time) for s in asked}
        return timed_in_turns(runs, LONG)

    def work(some: Sequence[Task], setting: Setting) -> list[Outcome]:
        return [_outcome(*compared(task.name)[setting.label]) for task in some]

    return Measured(Study(NAME, tasks, asked, limits), work)


def _outcome(found: Bound, seconds: float) -> Outcome:
    taken = {"taken": found.detail.split(".")[0]} if found.method == "exact" else {}
    ends = float(found.overall_lower[0]), float(found.overall_upper[0])
    return Outcome(seconds, taken, *ends, "exact", found.status, found.status.value)


def ratios(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per case that any method closes: ``case``, ``norm``, ``seconds`` of exact, the ``best`` other method, its
    ``best_seconds``, and the ``ratio``; infinite where exact leaves the case open."""
    rows = frame[(frame["label.question"] == "exact") & (frame["status"] == Status.EXACT.name.lower())]
    found = []
    for (case, norm), closed in rows.groupby(["label.case", "label.norm"], sort=False):
        seconds = closed.set_index("series")["seconds"]
        others = seconds.drop("exact", errors="ignore")
        if len(others):
            own, best = float(seconds.get("exact", np.inf)), float(others.min())
            found.append((case, norm, own, others.idxmin(), best, own / best))
    return pd.DataFrame(found, columns=["case", "norm", "seconds", "best", "best_seconds", "ratio"])
