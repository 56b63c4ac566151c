"""Best-first branch and bound over several rows at once; knows neither bounds nor networks.

Only the largest row matters, so all rows share one queue and are pruned by the best lower bound of any of them. At any
moment ``max`` of the open subdomains' bounds and of what was closed is a certified upper bound: a batch in progress
counts with its parents' bounds, so the search may be stopped anywhere, also by an exception.
"""

from __future__ import annotations

import dataclasses
import enum
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from lipcompare.branching.tree import Queue, Subdomain
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
        least: subdomains of a batch, however long they take, if there are as many.
        batch: subdomains of a batch at most.
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
        waiting: subdomains that are not bounded yet (the roots at the start).
    """

    queue: Queue
    attained: Attained
    closed: np.ndarray
    nodes: int = 0
    waiting: list[Subdomain] = dataclasses.field(default_factory=list)

    @classmethod
    def start(cls, uppers: Sequence[float] | np.ndarray, witnesses: Sequence[Witness] = ()) -> Search:
        """One root per row with a bound that is known already (inf, or NaN, for none)."""
        rows = len(uppers)
        search = cls(Queue(rows), Attained(rows, witnesses), np.zeros(rows))
        known = np.where(np.isnan(uppers), np.inf, uppers).tolist()
        # The largest first: what it attains may close others before they cost anything.
        order = sorted(range(rows), key=lambda row: -known[row])
        search.waiting = [Subdomain(known[row], row) for row in order]
        return search

    @property
    def best(self) -> float:
        """The largest value attained."""
        return self.attained.best

    @property
    def upper(self) -> float:
        """Certified upper bound on the largest row."""
        waiting = max((node.upper for node in self.waiting), default=0.0)
        return max(self.queue.upper, float(self.closed.max()), waiting, self.best)

    def row_upper(self) -> np.ndarray:
        """Certified upper bound of every row, (rows,)."""
        upper: np.ndarray = np.maximum(np.maximum(self.queue.row_upper(), self.closed), self.attained.lower)
        for node in self.waiting:
            upper[node.row] = max(upper[node.row], node.upper)
        return upper


def run(
    search: Search,
    evaluator: Evaluator,
    limits: SearchLimits,
    *,
    report: Callable[[SearchProgress], None] | None = None,
    checkpoint: Callable[[Search], None] | None = None,
) -> Stop:
    """Advance ``search`` until the gap is closed or a limit is met. Ctrl-C ends it like a limit.

    Args:
        report: called whenever the interval may have changed.
        checkpoint: called between batches; what it writes can be resumed from.
    """
    started, before = time.perf_counter(), search.nodes
    pace = 0.0  # seconds per node of the last batch
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
            allowed = min(limits.batch, limits.nodes - (search.nodes - before), affordable, max(quick, limits.least))
            width = max(1, int(allowed))
            begun = time.perf_counter()
            done = _step(search, evaluator, width, limits)
            pace = (time.perf_counter() - begun) / max(1, done)
            if checkpoint is not None:
                checkpoint(search)
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
    still = []
    for node in search.waiting:
        if node.upper <= limit:
            search.closed[node.row] = max(search.closed[node.row], node.upper)
        else:
            still.append(node)
    search.waiting = still


def _step(search: Search, evaluator: Evaluator, width: int, limits: SearchLimits) -> int:
    """Bound the waiting subdomains, or split the most promising open ones and bound their children."""
    limit = limits.enough(search.best)
    if not search.waiting:
        # Ctrl-C may come between any two lines: a subdomain may then be held twice, but never be lost.
        while len(search.queue) and len(search.waiting) < width and search.queue.upper > limit:
            search.waiting.extend(search.queue.peek().children())
            search.queue.pop()
    batch = search.waiting[:width]
    results = evaluator.evaluate(batch, search.best, limit)
    batch = batch[: len(results)]
    for node, result in zip(batch, results, strict=True):
        for witness in result.witnesses:
            search.attained.note(witness)
        # A bound that is not a number says nothing.
        upper = result.upper if result.upper < node.upper else node.upper
        if result.upper == -np.inf:
            continue
        if result.chain and upper > limit:
            search.queue.push(
                Subdomain(
                    upper=upper,
                    row=node.row,
                    decisions=node.decisions,
                    chain=result.chain,
                    closed=result.closed,
                    inherited=result.inherited or node.inherited,
                )
            )
        else:
            search.closed[node.row] = max(search.closed[node.row], upper)
    search.waiting = search.waiting[len(batch) :]
    search.nodes += len(batch)
    return len(batch)
