"""Trees that are searched in turns: the rows of one example, or bounds of which nobody knows which pays.

A tighter bound of subdomains closes more of them, a cheaper one bounds more: which of the two is ahead after a minute
depends on the network, and shows in the first seconds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from lipcompare.branching.driver import Evaluator, Search, SearchLimits, SearchProgress, Stop, run
from lipcompare.branching.ledger import Ledger
from lipcompare.budget import Deadline

_ROUND = 0.02
"""Share of the time that is worth another round over searches that the time had stopped."""
_FIRST = 0.5
"""Seconds of the first turn."""
_AHEAD = 2.0
"""A tree is ahead when its gap is so many times below that of the others after equal time."""
_LEAST, _MOST = 0.25, 0.5
"""From this share of the time on it is enough to have the least gap now and as it goes on. Where these are two, one is
tight from the start and the other gains faster: that is worth a race for longer, until up to the second share, and then
the faster one goes on."""


@dataclasses.dataclass(eq=False)
class Tree:
    """One example's rows, bounded by one evaluator.

    Attributes:
        searches: one over all rows, or one per row.
        example: its number, under which the ledger keeps what they prove.
        between: what is done with a search between two batches.
        used: seconds that it has had.
        before: the upper end before its last turn.
    """

    searches: Sequence[Search]
    evaluator: Evaluator
    limits: SearchLimits
    ledger: Ledger
    example: int
    between: Callable[[Search], None] | None = None
    used: float = 0.0
    before: float = float("inf")

    def advance(self, deadline: Deadline) -> Stop:
        """Search until then, and why that ended; the ledger has all of it."""
        left, self.before = deadline.left, self.upper
        watch = self.ledger.watch(self.example, self.searches)
        try:
            return in_turn(self.searches, self.evaluator, self.limits, deadline, watch, self.between)
        finally:
            self.ledger.keep(self.example, self.searches)
            self.used += left - deadline.left

    @property
    def upper(self) -> float:
        return max(search.upper for search in self.searches)

    @property
    def best(self) -> float:
        return max(search.best for search in self.searches)

    @property
    def bounded(self) -> bool:
        """Whether it has bounded all of its roots: its upper end says nothing of it before."""
        return not any(not node.decisions for each in self.searches for group in each.waiting for node in group)

    @property
    def nodes(self) -> int:
        return sum(search.nodes for search in self.searches)

    def learn(self, other: Tree) -> None:
        """Know the points that another one has found."""
        for known in other.searches:
            for search in self.searches:
                search.attained.learn(known.attained)


def race(first: Tree, others: Sequence[Callable[[], Tree]], deadline: Deadline, ahead: float = _AHEAD) -> Stop:
    """Search trees of the same rows in turns of equal time, the longer the closer they are, then the best one alone.

    Args:
        others: make the trees that join where ``first`` does not end in a moment, and a moment is little of the time.
        ahead: a tree goes on alone when its gap is so many times below that of the others.

    Returns:
        Why it ended; one tree that is searched to its end ends the race. Without an end of the time the race goes on
        until one is clearly ahead.
    """
    if not others:
        return first.advance(deadline)
    time = first.used + deadline.left
    stop = first.advance(_within(deadline, _FIRST))
    while stop is Stop.TIME and not first.bounded and first.used < _MOST * time and not deadline.passed():
        stop = first.advance(_within(deadline, _FIRST))
    if stop is not Stop.TIME or deadline.passed():
        return stop
    turn = begun = first.used
    if (1 + len(others)) * turn > _MOST * time:  # one subdomain takes so long
        return first.advance(deadline)
    trees = [first, *(make() for make in others)]
    while True:
        for tree in trees:
            if tree.used < turn:
                stop = tree.advance(_within(deadline, turn - tree.used))
                if stop is not Stop.TIME or deadline.passed():
                    return stop
            for other in trees:
                other.learn(tree)
        (now, clearly), (later, _) = _leader(trees, ahead), _leader(trees, ahead, later=True)
        spent = len(trees) * turn
        # The first turn has the roots in it, where the tighter bound is always ahead.
        if turn > begun and (clearly or (spent >= _LEAST * time and now is later)):
            return now.advance(deadline)
        if 2 * spent > _MOST * time:
            return later.advance(deadline)
        turn *= 2


def _leader(trees: Sequence[Tree], ahead: float, *, later: bool = False) -> tuple[Tree, bool]:
    """The tree with the least gap, and whether clearly so; ``later``: should each turn gain as much as the last one.

    A turn is as long as all before it: by a power law the gap falls by the same factor in each.
    """
    least = trees[0].limits.enough(max(tree.best for tree in trees))

    def gap(tree: Tree) -> float:
        now, before = max(tree.upper - least, 0.0), tree.before - least
        return now * now / before if later and 0 < now < before < math.inf else now

    best, second = sorted(trees, key=gap)[:2]
    return best, ahead * gap(best) < gap(second)


def _within(deadline: Deadline, seconds: float) -> Deadline:
    return Deadline.after(min(seconds, deadline.left))


def in_turn(
    searches: Sequence[Search],
    evaluator: Evaluator,
    limits: SearchLimits,
    deadline: Deadline,
    report: Callable[[SearchProgress], None],
    between: Callable[[Search], None] | None = None,
) -> Stop:
    """Run searches one after another in equal shares of the time, and why they ended.

    What one attains prunes the others, and what it leaves of its time goes to those that come after it; what the last
    ones leave goes to all that the time had stopped, in another round.
    """
    stop, first = Stop.DONE, {id(search): search.nodes for search in searches}
    rest, shortest = list(searches), _ROUND * max(deadline.left, 0.0)
    while rest:
        unfinished = []
        for number, search in enumerate(rest):
            share = dataclasses.replace(
                limits,
                seconds=deadline.left / (len(rest) - number),
                nodes=limits.nodes - (search.nodes - first[id(search)]),
            )
            ended = run(search, evaluator, share, report=report, between=between)
            for other in searches:
                other.attained.learn(search.attained)
            if ended is Stop.INTERRUPTED:
                return ended
            if ended is Stop.TIME:
                unfinished.append(search)
            elif ended is not Stop.DONE:
                stop = ended
        if unfinished and deadline.left <= shortest:
            return Stop.TIME
        rest = unfinished
    return stop


def by_class(search: Search) -> list[Search]:
    """One search per row, the one with the largest bound first."""
    order = sorted((node for group in search.waiting for node in group), key=lambda node: -node.upper)
    searches = []
    for node in order:
        alone = Search.start(np.zeros_like(search.closed), list(search.attained.witnesses.values()))
        alone.waiting = [(node,)]
        searches.append(alone)
    return searches
