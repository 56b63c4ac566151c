"""Best-first branch and bound over several rows at once; knows neither bounds nor networks.

Only the largest row matters, so all rows share one queue and are pruned by the best lower bound of any of them. Rows
may also share subdomains: those in a group have the same decisions, and stay together as long as they are split alike.
At any moment ``max`` of the open subdomains' bounds and of what was closed is a certified upper bound: a batch in
progress counts with its parents' bounds, so the search may be stopped anywhere, also by an exception.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from lipcompare.branching.tree import Group, Queue, Subdomain, parts_of
from lipcompare.result import Attained, Witness

_TOGETHER = 1.0
"""Seconds that a batch should take: the most promising subdomains come first only between batches."""


@dataclasses.dataclass(frozen=True)
class Assessment:
    """What an evaluation says about a subdomain.

    Attributes:
        upper: certified bound; ``-inf`` for an empty subdomain.
        chain, closed: how to split it (see :class:`Subdomain`); an empty chain closes it at ``upper``.
        witnesses: of values that were attained on the way, anywhere in the domain.
        inherited: what the evaluator wants to be told again with each child (:attr:`Subdomain.inherited`).
    """

    upper: float
    chain: tuple[int, ...] = ()
    closed: bool = False
    witnesses: tuple[Witness, ...] = ()
    inherited: bytes = b""


EMPTY = Assessment(-np.inf)


class Evaluator(Protocol):
    """Bounds a batch of subdomains and says how to split them."""

    def evaluate(self, nodes: Sequence[Subdomain], floor: float, target: float) -> Sequence[Assessment]:
        """One assessment per node, in order; when time runs out, of the first ones alone, but of one at least.

        Args:
            floor: the best value attained so far.
            target: a node bounded by this is as good as closed, so no effort is due beyond it.
        """


class Stop(enum.Enum):
    """Why the search ended."""

    DONE = "done"
    TIME = "time"
    NODES = "nodes"
    MEMORY = "memory"
    INTERRUPTED = "interrupted"


@dataclasses.dataclass(frozen=True)
class SearchLimits:
    """When to stop, and how many subdomains to treat at once.

    Attributes:
        gap, target: what is bounded by ``target``, or leaves a relative gap of at most ``gap`` to the best value, is as
            good as closed.
        nodes: subdomains bounded in all.
        least: groups of subdomains in a batch, however long they take, if there are as many.
        batch: groups in a batch at most.
    """

    gap: float = 1e-4
    target: float = 0.0
    seconds: float = float("inf")
    nodes: float = float("inf")
    memory: int = 2**32
    least: int = 4
    batch: int = 128

    def enough(self, best: float) -> float:
        """Subdomains bounded by this are as good as closed, with ``best`` the largest value attained."""
        return max(self.target, threshold(best, self.gap))


class SearchProgress(NamedTuple):
    """What a display shows while the search runs."""

    lower: float
    upper: float
    nodes: int
    open: int
    rate: float  # nodes per second

    def told(self, unit: str) -> str:
        """In words; ``unit``: what the search calls its subdomains, one of them."""
        return f"{self.nodes:,} {unit}s, {self.rate:,.0f}/s, {self.open:,} open"


@dataclasses.dataclass(eq=False)
class Search:
    """The whole state of a search; :func:`run` advances it.

    Attributes:
        queue: open subdomains, bounded and with a way to split them.
        attained: the best witness of every row.
        closed: (rows,) largest bound of anything that was closed.
        nodes: subdomains bounded so far.
        waiting: groups of subdomains that are not bounded yet (the roots at the start).
    """

    queue: Queue
    attained: Attained
    closed: np.ndarray
    nodes: int = 0
    waiting: list[Group] = dataclasses.field(default_factory=list)

    @classmethod
    def start(
        cls, uppers: Sequence[float] | np.ndarray, witnesses: Sequence[Witness] = (), *, together: bool = False
    ) -> Search:
        """One root per row with a bound that is known already (inf, or NaN, for none); ``together``: in one group."""
        rows = len(uppers)
        search = cls(Queue(rows), Attained(rows, witnesses), np.zeros(rows))
        known = np.where(np.isnan(uppers), np.inf, uppers).tolist()
        # The largest first: what it attains may close others before they cost anything.
        order = sorted(range(rows), key=lambda row: -known[row])
        roots = tuple(Subdomain(known[row], row) for row in order)
        search.waiting = [roots] if together else [(root,) for root in roots]
        return search

    @property
    def best(self) -> float:
        """The largest value attained."""
        return self.attained.best

    @property
    def upper(self) -> float:
        """Certified upper bound on the largest row."""
        waiting = max((node.upper for group in self.waiting for node in group), default=0.0)
        return max(self.queue.upper, float(self.closed.max()), waiting, self.best)

    def row_upper(self) -> np.ndarray:
        """Certified upper bound of every row, (rows,)."""
        upper: np.ndarray = np.maximum(np.maximum(self.queue.row_upper(), self.closed), self.attained.lower)
        for group in self.waiting:
            for node in group:
                upper[node.row] = max(upper[node.row], node.upper)
        return upper


def run(
    search: Search,
    evaluator: Evaluator,
    limits: SearchLimits,
    *,
    report: Callable[[SearchProgress], None] | None = None,
    between: Callable[[Search], None] | None = None,
) -> Stop:
    """Advance ``search`` until the gap is closed or a limit is met. Ctrl-C ends it like a limit.

    Args:
        report: called whenever the interval may have changed.
        between: called between batches, with the whole state of the search.
    """
    started, before = time.perf_counter(), search.nodes
    pace = 0.0  # seconds per group of the last batch
    try:
        while True:
            _prune(search, limits.enough(search.best))
            if report is not None:
                # A rate of the first moment, when the clock has not moved.
                elapsed = max(time.perf_counter() - started, 1e-9)
                report(
                    SearchProgress(
                        lower=search.best,
                        upper=search.upper,
                        nodes=search.nodes,
                        open=len(search.queue),
                        rate=(search.nodes - before) / elapsed,
                    )
                )
            if not search.waiting and not len(search.queue):
                return Stop.DONE
            left = limits.seconds - (time.perf_counter() - started)
            if left <= 0:
                return Stop.TIME
            if search.nodes - before >= limits.nodes:
                return Stop.NODES
            if search.queue.bytes > limits.memory:
                return Stop.MEMORY
            # The last batch shrinks so that the time limit is kept.
            # The first batch shows how long a subdomain takes.
            affordable = left / pace if pace else limits.least if np.isfinite(left) else float("inf")
            quick = _TOGETHER / pace if pace else float("inf")
            width = max(1, int(min(limits.batch, affordable, max(quick, limits.least))))
            begun = time.perf_counter()
            done = _step(search, evaluator, width, limits, limits.nodes - (search.nodes - before))
            pace = (time.perf_counter() - begun) / max(1, done)
            if between is not None:
                between(search)
    except KeyboardInterrupt:
        return Stop.INTERRUPTED


def threshold(best: float, gap: float) -> float:
    """Subdomains bounded by this leave a relative gap of at most ``gap`` to ``best``."""
    return best / (1 - gap) if gap < 1 else float("inf")


def _prune(search: Search, limit: float) -> None:
    """Close what cannot matter; with best-first order that is everything or nothing."""
    if search.queue.upper <= limit and not search.waiting:
        search.closed = np.maximum(search.closed, search.queue.row_upper())
        search.queue = Queue(search.queue.rows)
    search.waiting = [open_ for group in search.waiting if (open_ := _open(search, group, limit))]


def _open(search: Search, group: Group, limit: float) -> Group:
    """The subdomains of a group that can matter; the others are closed."""
    for node in group:
        if node.upper <= limit:
            search.closed[node.row] = max(search.closed[node.row], node.upper)
    return tuple(node for node in group if node.upper > limit)


def _step(search: Search, evaluator: Evaluator, width: int, limits: SearchLimits, most: float) -> int:
    """Bound the waiting subdomains, or split the most promising open ones and bound their children.

    Args:
        width: groups at most.
        most: subdomains at most.

    Returns:
        How many groups were bounded.
    """
    limit = limits.enough(search.best)
    if not search.waiting:
        # Ctrl-C may come between any two lines: a subdomain may then be held twice, but never be lost.
        while len(search.queue) and len(search.waiting) < width and search.queue.upper > limit:
            search.waiting.extend(parts_of(_open(search, search.queue.peek(), limit)))
            search.queue.pop()
    batch = search.waiting[:width]
    nodes = [node for group in batch for node in group][: int(min(most, sys.maxsize))]
    results = evaluator.evaluate(nodes, search.best, limit)
    rest, place, done = list[Group](), 0, 0
    for group in batch:
        said = results[place : place + len(group)]
        _settle(search, group[: len(said)], said, limit)
        place += len(said)
        done += bool(said)
        if len(said) < len(group):
            rest.append(group[len(said) :])
    search.waiting = rest + search.waiting[len(batch) :]
    search.nodes += len(results)
    return done


def _settle(search: Search, group: Group, results: Sequence[Assessment], limit: float) -> None:
    """Close what is done of a group; what is split alike stays together."""
    alike: dict[tuple[tuple[int, ...], bool], list[Subdomain]] = {}
    for node, result in zip(group, results, strict=True):
        for witness in result.witnesses:
            search.attained.note(witness)
        if result.upper == -np.inf:
            continue
        # A bound that is not a number says nothing.
        upper = result.upper if result.upper < node.upper else node.upper
        if result.chain and upper > limit:
            open_ = Subdomain(
                upper=upper,
                row=node.row,
                decisions=node.decisions,
                chain=result.chain,
                closed=result.closed,
                inherited=result.inherited or node.inherited,
            )
            alike.setdefault((result.chain, result.closed), []).append(open_)
        else:
            search.closed[node.row] = max(search.closed[node.row], upper)
    for nodes in alike.values():
        search.queue.push(tuple(nodes))
