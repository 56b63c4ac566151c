"""The interval of every row of every example while searches run, and the witnesses at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from lipcompare.branching.decisions import Numbering
from lipcompare.branching.driver import Found, Progress, Search
from lipcompare.branching.roots import attained
from lipcompare.problem import Problem
from lipcompare.result import Witnesses
from lipcompare.witness import make_witnesses


class Ledger:
    """Collects what searches prove.

    Attributes:
        lower, upper: (batch, rows).
        found: per example and row what attains the lower bound.
    """

    def __init__(self, problem: Problem, record: Callable[[float, float], None], note: Callable[[str], None]) -> None:
        self.problem, self.record, self.note = problem, record, note
        shape = (problem.batch, problem.rows)
        self.lower, self.upper = np.zeros(shape), np.full(shape, np.inf)
        self.found: list[dict[int, Found]] = [{} for _ in range(problem.batch)]
        self._last = (0.0, np.inf)

    def keep(self, example: int, searches: Sequence[Search]) -> None:
        """Note the intervals of one example, searched in parts."""
        upper = np.max([search.row_upper() for search in searches], axis=0)
        self.upper[example] = np.minimum(self.upper[example], upper)
        for search in searches:
            for row, item in search.witnesses.items():
                if item.value > self.lower[example, row]:
                    self.lower[example, row] = item.value
                    self.found[example][row] = item

    def take(self, example: int, searches: Sequence[Search]) -> None:
        """A point of the trace, if the overall interval has changed."""
        low = max(float(self.lower.max()), *(search.best for search in searches))
        others = [float(self.upper[b].max()) for b in range(len(self.upper)) if b != example]
        here = min(max(search.upper for search in searches), float(self.upper[example].max()))
        now = (low, max([here, *others]))
        if now != self._last:
            self._last = now
            self.record(*now)

    def watch(self, example: int, searches: Sequence[Search]) -> Callable[[Progress], None]:
        """What a search on this example, one of ``searches``, shall report to."""

        def report(now: Progress) -> None:
            self.take(example, searches)
            self.note(str(now))

        return report

    def witnesses(self) -> Witnesses:
        """Witnesses of all rows; where a search gave none, the middle of the box stands in."""
        problem = self.problem
        center = problem.box.interval.center
        points = center.unsqueeze(1).repeat(1, problem.rows, 1)
        patterns = []
        numbering = Numbering(problem.network)
        for b in range(problem.batch):
            middle = attained(problem.example(b), points[b : b + 1])
            found = [self.found[b].get(row, middle[row]) for row in range(problem.rows)]
            points[b] = torch.as_tensor(np.array([item.point for item in found])).to(points)
            patterns.append(torch.as_tensor(np.array([item.slopes for item in found])).to(points))
        return make_witnesses(problem, points, numbering.split(torch.stack(patterns)))
