"""The interval of every row of every example while searches run, and the witnesses at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lipcompare.branching.driver import Search, SearchProgress
from lipcompare.budget import Kept
from lipcompare.problem import Problem
from lipcompare.result import Attained
from lipcompare.witness import as_noted


class Ledger:
    """Collects what searches prove, from the moment on from which they are watched.

    Attributes:
        upper: (batch, rows), bounds over the whole boxes at first.
        attained: the best witnesses of every example.
        unit: what the searches call a subdomain.
    """

    def __init__(
        self,
        problem: Problem,
        upper: np.ndarray,
        record: Callable[[float, float], None],
        note: Callable[[str], None],
        unit: str = "subdomain",
    ) -> None:
        self.problem, self.record, self.note, self.unit = problem, record, note, unit
        self.upper = upper.copy()
        self.attained = [Attained(problem.rows) for _ in range(problem.batch)]
        self._last = (0.0, np.inf)
        self._under_way: dict[int, Sequence[Search]] = {}

    def keep(self, example: int, searches: Sequence[Search]) -> None:
        """Note the intervals of one example, searched in parts.

        Ctrl-C may come between any two lines: until all of it is noted the searches count as under way.
        """
        self._under_way[example] = searches
        upper = np.max([search.row_upper() for search in searches], axis=0)
        self.upper[example] = np.fmin(self.upper[example], upper)
        for search in searches:
            self.attained[example].learn(search.attained)
        del self._under_way[example]

    def take(self, example: int, searches: Sequence[Search]) -> None:
        """A point of the trace, if the overall interval has changed."""
        low = max(*(example.best for example in self.attained), *(search.best for search in searches))
        others = [float(self.upper[b].max()) for b in range(len(self.upper)) if b != example]
        current = min(max(search.upper for search in searches), float(self.upper[example].max()))
        now = (low, max([current, *others]))
        if now != self._last:
            self._last = now
            self.record(*now)

    def watch(self, example: int, searches: Sequence[Search]) -> Callable[[SearchProgress], None]:
        """What a search on this example, one of ``searches``, shall report to."""
        self._under_way[example] = searches

        def report(now: SearchProgress) -> None:
            self.take(example, searches)
            self.note(now.told(self.unit))

        return report

    def kept(self) -> Kept:
        """All that is proved, by searches under way too. Where a row has no witness the middle of the box stands in.

        Nothing is computed: it is asked for when memory ran out too.
        """
        for example, searches in list(self._under_way.items()):
            self.keep(example, searches)
        return Kept(0, self.upper, as_noted(self.problem, self.attained))
