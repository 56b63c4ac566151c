"""Branch and bound on activation patterns, over the paper's bound or the quadratic-gate one."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from lipcompare.branching.bounds import Sdp, Settings, tree_bound
from lipcompare.branching.boxes import BoxEvaluator
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.driver import Evaluator, Search, SearchLimits, SearchProgress, Stop, run
from lipcompare.branching.evaluator import NetworkEvaluator, whole_of
from lipcompare.branching.everywhere import EverywhereEvaluator
from lipcompare.branching.heuristics import heuristic_named
from lipcompare.branching.ledger import Ledger
from lipcompare.branching.roots import first_points, settled
from lipcompare.branching.state import Checkpoint, fingerprint, load, save
from lipcompare.budget import Budget, Clock, Deadline
from lipcompare.domain import Space
from lipcompare.gates import has_patterns
from lipcompare.jacobian import RELAXATIONS
from lipcompare.methods.base import REFINING, Method
from lipcompare.methods.linear import LBP, Linear, linear_bounds
from lipcompare.methods.searches import PART, Ended, searched
from lipcompare.preactivation import Tightening
from lipcompare.problem import Problem
from lipcompare.propagation import Propagated
from lipcompare.result import Attained, Bound, Witness, Witnesses


class Schedule(enum.Enum):
    """How the time is spread over the rows."""

    QUEUE = "queue"  # all rows in one queue, the most promising subdomain first
    CLASSES = "classes"  # one row after another, worst first, in equal shares of the time (the paper)


_DEFAULT = "default"
_ATTACK = 0.2
"""At most of the time for the search for a first lower bound."""
_LATE = 0.5
"""Of the time that is left for the search for points where it is the last thing: the check of them takes the rest."""
_ROUND = 0.02
"""Share of the time that is worth another round over searches that the time had stopped."""


@final
@dataclasses.dataclass(frozen=True)
class Bab(Method):
    """Branch and bound: split on gates and gradient signs, re-propagate, bound, and settle patterns by linear programs.

    With ``bound = lbp`` and ``schedule = classes`` it is the paper's method (arXiv 2210.07394, section 3.4), with exact
    leaves; with ``bound = sdp`` every subdomain gets the quadratic-gate bound (docs/quadratic-gates.md).

    On all inputs gates are decided alone: regions may be unbounded, and are empty by an exact certificate only.

    Networks with smooth activations have no patterns: there the box is halved, one input at a time, and every part gets
    the linear bound with the joint relaxation; with ``bound = sdp`` the whole box has the quadratic-gate bound too.
    That settles few inputs only; ``tolerance``, ``sweeps`` and ``passes`` then mean nothing.

    Attributes:
        bound: the bound of a subdomain: ``sdp``, ``lbp``, or a registered one (:mod:`lipcompare.branching.bounds`).
        heuristic: which gate to split: ``area`` or ``babsr`` (the paper's), ``moment`` (sdp only), or a registered one
            (:mod:`lipcompare.branching.heuristics`); ``default`` takes ``moment`` for sdp and ``area`` for lbp.
        schedule: how rows share the time.
        tightening: pre-activation bounds over the whole box.
        batch: subdomains bounded at once.
        node_limit: subdomains bounded in all, per example (0: no limit).
        tolerance: relative accuracy of each quadratic-gate bound.
        cuts: most cutting planes per program (sdp and p = inf, at most 64 undecided signs), 0 for none. They are found
            near the root of large programs and inherited, where they pay.
        sweeps, passes: effort spent on a decision's consequences for the other pre-activations (None: three sweeps in
            two passes for sdp, one in one for lbp, whose subdomains cost less than that; 0 sweeps: none, as the paper).
        attack_seconds: time for the search for a first lower bound, at most a fifth of what there is.
        state: file to save the search in and resume it from (with the example's number added in a batch).
        seed: of the search for lower bounds.
    """

    name: ClassVar[str] = "bab"
    proves: ClassVar[str] = "exact"
    summary: ClassVar[str] = "branch and bound on patterns (bound = sdp, or lbp as in the paper), on boxes where smooth"
    reference: ClassVar[str] = "shi2022lipschitz"
    everywhere: ClassVar[bool] = True

    bound: str = "sdp"
    heuristic: str = "default"
    schedule: Schedule = Schedule.QUEUE
    tightening: Tightening = Tightening.ALPHA_CROWN
    batch: int = 64
    node_limit: int = 0
    tolerance: float = 3e-3
    cuts: int = 100
    sweeps: int | None = None
    passes: int | None = None
    attack_seconds: float = 2.0
    state: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        tree_bound(self.bound)
        if self.heuristic != _DEFAULT:
            heuristic_named(self.heuristic)

    def supports(self, problem: Problem) -> str | None:
        network = problem.network
        if isinstance(problem.box, Space) and not has_patterns(network):
            return "On all inputs it needs ReLU-like activations, whose regions are finitely many: give a box."
        chosen = self.heuristic != _DEFAULT
        if not has_patterns(network) and chosen:
            return "Heuristics choose gates, and smooth activations have none to decide: leave the heuristic out."
        reads_moments = chosen and heuristic_named(self.heuristic).reads_moments
        if reads_moments and not tree_bound(self.bound).has_moments(problem.norm):
            return (
                f"The heuristic {self.heuristic!r} reads the quadratic-gate bound for p = inf and p = 2: take area or "
                "babsr here."
            )
        if self.state and self.schedule is Schedule.CLASSES:
            return "Only a search with all rows in one queue can be saved: take the schedule 'queue'."
        return None

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        return self.after(linear_bounds(problem.double(), clock, self.tightening), problem, clock)

    def after(self, linear: Linear, problem: Problem, clock: Clock, known: Witnesses | None = None) -> Bound:
        """Go on from the linear bounds of the problem, in float64, to the end of the clock's time.

        ``known``: points to beat; without any, the search looks for some itself.
        """

        def search(ledger: Ledger, b: int, part: Linear, deadline: Deadline) -> Ended:
            points = None if known is None else known.example(b)
            return self._example(ledger, b, part, points, clock.budget, deadline)

        return searched(self, problem, linear, clock, search, nodes="subdomain", saved=bool(self.state))

    def evaluator(
        self, problem: Problem, root: Propagated, memory: int, deadline: Deadline, *, hasty: bool = False
    ) -> NetworkEvaluator | BoxEvaluator | EverywhereEvaluator:
        """The evaluator of one example, whose search ends at ``deadline``.

        ``root``: what is known over its whole box, which is not improved where it is ``hasty``.
        """
        if not has_patterns(problem.network):
            return BoxEvaluator(problem, lifted=self.bound == Sdp.name, memory=memory, deadline=deadline)
        if isinstance(problem.box, Space):
            return self._everywhere(problem, memory, deadline)
        before = dict(root.bounds)
        bounds = before if root.hurried or hasty else settled(problem, before, memory, deadline.left)
        bound, norm = tree_bound(self.bound), problem.norm
        same = bounds is before and bound.propagation == LBP
        name = bound.default_heuristic(norm) if self.heuristic == _DEFAULT else self.heuristic
        settings = Settings(tolerance=self.tolerance, memory=memory, cuts=self.cuts, deadline=deadline)
        return NetworkEvaluator(
            problem=problem,
            bounds=bounds,
            bound=bound.on(Numbering(problem.network), norm, heuristic_named(name), settings),
            propagation=RELAXATIONS[bound.propagation],
            sweeps=bound.sweeps if self.sweeps is None else self.sweeps,
            passes=self.passes or bound.passes,
            memory=memory,
            deadline=deadline,
            whole=whole_of(problem, root) if same else None,
        )

    def _everywhere(self, problem: Problem, memory: int, deadline: Deadline) -> EverywhereEvaluator:
        bound, norm = tree_bound(self.bound), problem.norm
        name = bound.default_heuristic(norm) if self.heuristic == _DEFAULT else self.heuristic
        settings = Settings(tolerance=self.tolerance, memory=memory, deadline=deadline)
        return EverywhereEvaluator(
            problem=problem,
            bound=bound.on(Numbering(problem.network), norm, heuristic_named(name), settings),
            propagation=RELAXATIONS[bound.propagation],
            memory=memory,
            deadline=deadline,
        )

    def _searching(self, deadline: Deadline) -> float:
        """Seconds for the search for points."""
        return min(self.attack_seconds, _ATTACK * deadline.left)

    def _example(
        self,
        ledger: Ledger,
        b: int,
        linear: Linear,
        known: list[Witness] | None,
        budget: Budget,
        deadline: Deadline,
    ) -> Ended:
        problem = linear.problem
        batch = ledger.problem.batch
        path = state_path(self.state, b, batch)
        key = fingerprint(problem) if path is not None else ""
        # Bounds of the whole box know when to end. Parts of it take about a part of what it took; without time for them
        # points are looked for.
        hasty = path is None and linear.leave_little(deadline.left) and has_patterns(problem.network)
        least = linear.ahead + (0.0 if hasty else PART * linear.seconds)
        late = path is None and deadline.passed(least)
        if path is not None and path.exists():
            search = load(path, key)
        else:
            if known is None and hasty and not late:
                known = []  # after the whole box
            if known is None:
                seconds = _LATE * deadline.left if late else self._searching(deadline)
                known = first_points(problem, self.seed, Deadline.after(seconds), budget.memory)
            search = Search.start(ledger.upper[b].copy(), known)
        if late:
            ledger.keep(b, [search])
            return Ended(Stop.TIME, 0, 0)
        root = linear.propagated(budget.memory, REFINING * deadline.left)
        evaluator = self.evaluator(problem, root, budget.memory, deadline, hasty=hasty)
        searches, before, programs = self._searches(search), search.nodes, 0
        checkpoint = Checkpoint(path, key) if path is not None else None
        limits = SearchLimits(
            gap=budget.gap,
            nodes=self.node_limit / len(searches) if self.node_limit else float("inf"),
            memory=budget.memory,
            batch=self.batch,
        )
        try:
            stop = Stop.NODES
            if hasty:
                stop = self._whole_box_first(searches, evaluator, limits, deadline, ledger.watch(b, searches))
                programs = evaluator.programs
                if stop is Stop.NODES and deadline.passed(PART * linear.seconds):
                    stop = Stop.TIME
                elif stop is Stop.NODES:
                    evaluator = self.evaluator(problem, root, budget.memory, deadline)
                    if isinstance(evaluator, NetworkEvaluator) and evaluator.whole is None:
                        # Tighter than what the whole box was bounded with: from there once more.
                        ledger.keep(b, searches)
                        before -= sum(each.nodes for each in searches)
                        points = list(searches[0].attained.witnesses.values())
                        searches = self._searches(Search.start(ledger.upper[b].copy(), points))
            if stop is Stop.NODES:
                done = sum(each.nodes for each in searches) - before
                rest = dataclasses.replace(limits, nodes=limits.nodes - done / len(searches))
                stop = in_turn(searches, evaluator, rest, deadline, ledger.watch(b, searches), checkpoint)
                programs += evaluator.programs
        finally:
            ledger.keep(b, searches)
            if path is not None:
                save(search, path, key)
        return Ended(stop, sum(each.nodes for each in searches) - before, programs)

    def _searches(self, search: Search) -> list[Search]:
        """The searches that a search over all rows is made of."""
        return [search] if self.schedule is Schedule.QUEUE else by_class(search)

    def _whole_box_first(
        self,
        searches: list[Search],
        evaluator: NetworkEvaluator | BoxEvaluator | EverywhereEvaluator,
        limits: SearchLimits,
        deadline: Deadline,
        watch: Callable[[SearchProgress], None],
    ) -> Stop:
        """Bound the whole box for all rows, and look for points to beat only then; why that ended."""
        problem = evaluator.problem
        roots = dataclasses.replace(limits, nodes=min(limits.nodes, problem.rows / len(searches)))
        stop = in_turn(searches, evaluator, roots, deadline, watch)
        if stop is Stop.NODES and not deadline.passed():
            searching = Deadline.after(self._searching(deadline))
            found = Attained(problem.rows, first_points(problem, self.seed, searching, limits.memory))
            for search in searches:
                search.attained.learn(found)
        return stop


def in_turn(
    searches: Sequence[Search],
    evaluator: Evaluator,
    limits: SearchLimits,
    deadline: Deadline,
    report: Callable[[SearchProgress], None],
    checkpoint: Callable[[Search], None] | None = None,
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
            ended = run(search, evaluator, share, report=report, checkpoint=checkpoint)
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


def state_path(state: str, example: int, batch: int) -> Path | None:
    """Where the search of one example is kept."""
    if not state:
        return None
    path = Path(state)
    return path if batch == 1 else path.with_name(f"{path.stem}.{example}{path.suffix}")


def by_class(search: Search) -> list[Search]:
    """One search per row, the one with the largest bound first."""
    order = sorted(search.waiting, key=lambda node: -node.upper)
    searches = []
    for node in order:
        alone = Search.start(np.zeros_like(search.closed), list(search.attained.witnesses.values()))
        alone.waiting = [node]
        searches.append(alone)
    return searches
