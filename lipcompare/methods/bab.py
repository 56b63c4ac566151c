"""Branch and bound on activation patterns, over the paper's bound or the quadratic-gate one."""

from __future__ import annotations

import dataclasses
import enum
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from lipcompare.branching.bounds import RACE, Sdp, Settings, tree_bound
from lipcompare.branching.boxes import BoxEvaluator
from lipcompare.branching.cuts import MOST_CUTS
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.driver import Search, SearchLimits, Stop
from lipcompare.branching.evaluator import NetworkEvaluator, effort, shares_subdomains, takes_much, whole_of
from lipcompare.branching.everywhere import EverywhereEvaluator
from lipcompare.branching.heuristics import heuristic_named
from lipcompare.branching.ledger import Ledger
from lipcompare.branching.race import Tree, by_class, race
from lipcompare.branching.roots import first_points, settled
from lipcompare.branching.state import Checkpoint, fingerprint, load, save
from lipcompare.branching.workers.pool import SideBySide, Workers
from lipcompare.budget import Budget, Clock, Deadline
from lipcompare.domain import Space
from lipcompare.gates import has_patterns
from lipcompare.jacobian import RELAXATIONS
from lipcompare.methods import sdp
from lipcompare.methods.base import REFINING, Method
from lipcompare.methods.linear import LBP, Linear, linear_bounds
from lipcompare.methods.searches import PART, Ended, searched
from lipcompare.network.environment import computing
from lipcompare.network.interval import Interval
from lipcompare.preactivation import Tightening
from lipcompare.problem import Problem
from lipcompare.propagation import Propagated
from lipcompare.result import Attained, Bound, Witness, Witnesses

OnExample = NetworkEvaluator | BoxEvaluator | EverywhereEvaluator


class Schedule(enum.Enum):
    """How the time is spread over the rows."""

    QUEUE = "queue"  # all rows in one queue, the most promising subdomain first
    CLASSES = "classes"  # one row after another, worst first, in equal shares of the time (the paper)


_DEFAULT = "default"
_ATTACK = 0.2
"""At most of the time for the search for a first lower bound."""
_AGAIN = 0.05
"""Of the time for other searches for one while the trees grow."""
_FIRST_LOOK = 0.2
"""Seconds that such a search is thought to take before there was one."""
_LATE = 0.5
"""Of the time that is left for the search for points where it is the last thing: the check of them takes the rest."""
_FEW, _MANY = 4, 32
"""Subdomains of a batch at least: on a processor, and on an accelerator, most of which a few leave idle."""


@final
@dataclasses.dataclass(frozen=True)
class Bab(Method):
    """Branch and bound: split on gates and gradient signs, re-propagate, bound, and settle patterns by linear programs.

    With ``bound = lbp`` and ``schedule = classes`` it is the paper's method (arXiv 2210.07394, section 3.4), with exact
    leaves; with ``bound = sdp`` every subdomain gets the quadratic-gate bound (docs/quadratic-gates.md). The first
    bounds many subdomains, which rows share in one queue, the second few and tightly; with ``bound = race`` both
    search, each a tree of its own, until the gap of one is clearly ahead, which goes on alone. Where the time is little
    for a search, the bound of the method ``sdp`` over the whole box comes first, so that it is not looser than that.

    With several ``threads`` subdomains are evaluated side by side, each part of a batch by a process of its own, once
    the search has lasted (:mod:`lipcompare.branching.workers`); networks so large that one evaluation is work for
    several threads are left to those of torch.

    On all inputs gates are decided alone: regions may be unbounded, and are empty by an exact certificate only.

    Networks with smooth activations have no patterns: there the box is halved, one input at a time, and every part gets
    the linear bound with the joint relaxation; but for ``bound = lbp`` the whole box has the quadratic-gate bound too.
    That settles few inputs only; ``tolerance``, ``pivots`` and ``passes`` then mean nothing.

    Attributes:
        bound: the bound of a subdomain: ``sdp``, ``lbp``, a registered one (:mod:`lipcompare.branching.bounds`), or
            ``race`` for the first two, which is ``sdp`` alone on all inputs, where activations are smooth, with
            ``moment``, ``mixed`` or a ``node_limit``, and for a search that is saved.
        heuristic: which gate to split: ``area`` or ``babsr`` (the paper's), ``moment`` or ``mixed`` (sdp only), or a
            registered one (:mod:`lipcompare.branching.heuristics`); ``default``: ``mixed`` for sdp, ``area`` for lbp.
        schedule: how rows share the time.
        tightening: pre-activation bounds over the whole box.
        batch: subdomains bounded at once.
        node_limit: subdomains bounded in all, per example (0: no limit).
        tolerance: relative accuracy of each quadratic-gate bound.
        cuts: most cutting planes per program (sdp and p = inf, at most 64 undecided signs), 0 for none. They are found
            near the root of large programs and inherited, where they pay.
        pivots, passes: effort spent on a decision's consequences for the other pre-activations (None: six pivots in
            two passes for sdp, four in two for lbp where rows share it; one in one for lbp alone, whose subdomains cost
            less than that; 0 pivots: none, as the paper).
        attack_seconds: time for the search for a first lower bound, at most a fifth of what there is. It is made again
            from other random numbers every now and then, in a twentieth of the time.
        state: file to save the search in and resume it from (with the example's number added in a batch).
        seed: of the search for lower bounds.
    """

    name: ClassVar[str] = "bab"
    proves: ClassVar[str] = "exact"
    summary: ClassVar[str] = "branch and bound on patterns (bounds: sdp, or lbp as in the paper), on boxes where smooth"
    reference: ClassVar[str] = "shi2022lipschitz"
    everywhere: ClassVar[bool] = True

    bound: str = RACE
    heuristic: str = "default"
    schedule: Schedule = Schedule.QUEUE
    tightening: Tightening = Tightening.ALPHA_CROWN
    batch: int = 64
    node_limit: int = 0
    tolerance: float = 3e-3
    cuts: int = MOST_CUTS
    pivots: int | None = None
    passes: int | None = None
    attack_seconds: float = 2.0
    state: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        self.at_least(1, "batch", "passes")
        self.at_least(0, "node_limit", "cuts", "pivots", "attack_seconds")
        if self.bound != RACE:
            tree_bound(self.bound)
        if self.heuristic != _DEFAULT:
            heuristic_named(self.heuristic)

    def supports(self, problem: Problem) -> str | None:
        network = problem.network
        if not 0 < self.tolerance < 1:
            return sdp.TOLERANCE
        if isinstance(problem.box, Space) and not has_patterns(network):
            return "On all inputs it needs ReLU-like activations, whose regions are finitely many: give a box."
        chosen = self.heuristic != _DEFAULT
        if not has_patterns(network) and chosen:
            return "Heuristics choose gates, and smooth activations have none to decide: leave the heuristic out."
        reads_moments = chosen and heuristic_named(self.heuristic).reads_moments
        bound = Sdp.name if self.bound == RACE else self.bound
        if reads_moments and not tree_bound(bound).has_moments(problem.norm):
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

        network = problem.network
        # In the operators of a small network torch's threads only wait for each other.
        alone = None if takes_much(network, network.neurons) else 1
        with Workers(clock.budget.threads - 1 if problem.device.type == "cpu" else 0) as workers, computing(alone):

            def search(ledger: Ledger, b: int, part: Linear, deadline: Deadline) -> Ended:
                points = None if known is None else known.example(b)
                return self._example(ledger, b, part, points, clock.budget, deadline, workers)

            return searched(self, problem, linear, clock, search, nodes="subdomain", saved=bool(self.state))

    def _entrants(self, problem: Problem) -> tuple[str, ...]:
        """Names of the bounds that race, or of the only one."""
        if self.bound != RACE:
            return (self.bound,)
        reads_moments = self.heuristic != _DEFAULT and heuristic_named(self.heuristic).reads_moments
        patterns = has_patterns(problem.network) and not isinstance(problem.box, Space)
        alone = not patterns or reads_moments or self.state or self.node_limit
        return (Sdp.name,) if alone else (Sdp.name, LBP)

    def _shares(self, name: str, problem: Problem) -> bool:
        """Whether rows share the subdomains of a tree by the bound of that name."""
        patterns = has_patterns(problem.network) and not isinstance(problem.box, Space)
        return patterns and self.schedule is Schedule.QUEUE and shares_subdomains(tree_bound(name), problem)

    def _bounds(self, problem: Problem, root: Propagated, memory: int, deadline: Deadline) -> Mapping[int, Interval]:
        """Pre-activation bounds to start from: those of the root, or tighter ones."""
        if not has_patterns(problem.network) or isinstance(problem.box, Space) or root.hurried:
            return root.bounds
        return settled(problem, root.bounds, memory, deadline.left)

    def _evaluator(
        self,
        name: str,
        problem: Problem,
        root: Propagated,
        bounds: Mapping[int, Interval],
        memory: int,
        deadline: Deadline,
    ) -> OnExample:
        """The evaluator of one example by the bound of that name, whose search ends at ``deadline``.

        ``root``: what is known over its whole box; ``bounds``: the same pre-activation bounds, or tighter ones.
        """
        if not has_patterns(problem.network):
            return BoxEvaluator(problem, lifted=name == Sdp.name, memory=memory, deadline=deadline)
        bound, norm = tree_bound(name), problem.norm
        splits = heuristic_named(bound.default_heuristic(norm) if self.heuristic == _DEFAULT else self.heuristic)
        everywhere = isinstance(problem.box, Space)
        settings = Settings(
            tolerance=self.tolerance, memory=memory, cuts=0 if everywhere else self.cuts, deadline=deadline
        )
        bounding = bound.on(Numbering(problem.network), norm, splits, settings)
        relaxation = RELAXATIONS[bound.propagation]
        if everywhere:
            return EverywhereEvaluator(
                problem=problem, bound=bounding, propagation=relaxation, memory=memory, deadline=deadline
            )
        same = bounds is root.bounds and bound.propagation == LBP
        shares = self._shares(name, problem)
        pivots, passes = effort(bound, shares)
        return NetworkEvaluator(
            problem=problem,
            bounds=bounds,
            bound=bounding,
            propagation=relaxation,
            pivots=pivots if self.pivots is None else self.pivots,
            passes=passes if self.passes is None else self.passes,
            memory=memory,
            deadline=deadline,
            whole=whole_of(problem, root) if same else None,
            shares=shares,
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
        workers: Workers,
    ) -> Ended:
        problem = linear.problem
        batch = ledger.problem.batch
        path = state_path(self.state, b, batch)
        key = fingerprint(problem) if path is not None else ""
        names, memory = self._entrants(problem), budget.memory
        # Bounds of the whole box know when to end. Parts of it take about a part of what it took; without time for them
        # points are looked for.
        little = path is None and linear.leave_little(deadline.left) and has_patterns(problem.network)
        programs = path is None and known is None and has_patterns(problem.network) and names[0] == Sdp.name
        programs &= linear.stages is not None and sdp.come_first(linear, deadline.left)
        hasty = little and not programs
        least = linear.ahead + (0.0 if little else PART * linear.seconds)
        late = path is None and deadline.passed(least)
        if programs and not late:
            # The tree solves every row to the end; here those that cannot be the largest stop early.
            clock = Clock(Budget(time_limit=deadline.left, gap=budget.gap, memory=memory))
            found = sdp.Sdp(tightening=self.tightening).after(linear, problem, clock)
            ledger.upper[b] = np.fmin(ledger.upper[b], found.upper[0])
            ledger.take(b, [Search.start(ledger.upper[b])])
            late = deadline.passed(PART * linear.seconds)
        if path is not None and path.exists():
            search = load(path, key)
        else:
            if known is None and hasty and not late:
                known = []  # after the whole box
            if known is None:
                seconds = _LATE * deadline.left if late else self._searching(deadline)
                known = first_points(problem, self.seed, Deadline.after(seconds), budget.memory)
            search = Search.start(ledger.upper[b].copy(), known, together=self._shares(names[0], problem))
        if late:
            ledger.keep(b, [search])
            return Ended(Stop.TIME, 0, 0)
        root = linear.propagated(memory, REFINING * deadline.left)
        limits = SearchLimits(
            gap=budget.gap,
            nodes=self.node_limit / (problem.rows if self.schedule is Schedule.CLASSES else 1) or float("inf"),
            memory=memory // len(names),
            least=(_FEW if problem.device.type == "cpu" else _MANY) * (1 + workers.count),
            batch=self.batch * (1 + workers.count),
        )
        before, evaluators = search.nodes, list[OnExample | SideBySide]()
        between = _Between(
            problem, self.seed, partial(self._searching, deadline), memory, Checkpoint(path, key) if path else None
        )
        linear_upper = ledger.upper[b].copy()

        def tree(name: str, start: Search, bounds: Mapping[int, Interval]) -> Tree:
            evaluator = self._evaluator(name, problem, root, bounds, memory, deadline)
            if workers.count and not (isinstance(evaluator, NetworkEvaluator) and evaluator.inherits):
                share = memory // (1 + workers.count)
                parted = self._evaluator(name, problem, root, bounds, share, deadline)
                evaluators.append(workers.beside(parted, b))
            else:  # torch's threads have much to share there, and what is known of the whole box takes much memory
                evaluators.append(evaluator)
            searches = [start] if self.schedule is Schedule.QUEUE else by_class(start)
            return Tree(searches, evaluators[-1], limits, ledger, b, between)

        def again(name: str, upper: np.ndarray) -> Search:
            witnesses = list(ledger.attained[b].witnesses.values())
            return Search.start(upper, witnesses, together=self._shares(name, problem))

        bounds = root.bounds if hasty else self._bounds(problem, root, memory, deadline)
        trees = [tree(names[0], search, bounds)]
        try:
            stop = Stop.NODES
            if hasty:
                stop = self._whole_box_first(problem, trees[0], deadline)
                if stop is Stop.NODES and deadline.passed(PART * linear.seconds):
                    stop = Stop.TIME
                elif stop is Stop.NODES:
                    bounds = self._bounds(problem, root, memory, deadline)
                    if bounds is not root.bounds:
                        # Tighter than what the whole box was bounded with: from there once more.
                        trees.append(tree(names[0], again(names[0], ledger.upper[b]), bounds))
            if stop is Stop.NODES:
                first, done = trees[-1], sum(each.nodes for each in trees) - before
                first.limits = dataclasses.replace(limits, nodes=limits.nodes - done / len(first.searches))

                def join(name: str) -> Tree:
                    # Not from what the first has proved by now: how far each gets shows which is better.
                    trees.append(tree(name, again(name, linear_upper), bounds))
                    return trees[-1]

                stop = race(first, [partial(join, name) for name in names[1:]], deadline)
        finally:
            if path is not None:
                save(search, path, key)
        solved = sum(evaluator.programs for evaluator in evaluators)
        return Ended(stop, sum(each.nodes for each in trees) - before, solved)

    def _whole_box_first(self, problem: Problem, tree: Tree, deadline: Deadline) -> Stop:
        """Bound the whole box for all rows, and look for points to beat only then; why that ended."""
        limits = tree.limits
        tree.limits = dataclasses.replace(limits, nodes=min(limits.nodes, problem.rows / len(tree.searches)))
        stop = tree.advance(deadline)
        if stop is Stop.NODES and not deadline.passed():
            searching = Deadline.after(self._searching(deadline))
            found = Attained(problem.rows, first_points(problem, self.seed, searching, limits.memory))
            for each in tree.searches:
                each.attained.learn(found)
            tree.ledger.keep(tree.example, tree.searches)
        return stop


@dataclasses.dataclass(eq=False)
class _Between:
    """What is done between batches: points to beat are looked for now and then, each time from other random numbers.

    Attributes:
        seconds: how long that may take.
        took, last: seconds of the last time, and when it ended.
    """

    problem: Problem
    seed: int
    seconds: Callable[[], float]
    memory: int
    checkpoint: Checkpoint | None
    took: float = _FIRST_LOOK
    last: float = dataclasses.field(default_factory=lambda: time.perf_counter())

    def __call__(self, search: Search) -> None:
        self._look(search)
        if self.checkpoint is not None:
            self.checkpoint(search)

    def _look(self, search: Search) -> None:
        begun, seconds = time.perf_counter(), self.seconds()
        if self.took > _AGAIN * (begun - self.last) or seconds < self.took:
            return
        self.seed += 1
        for witness in first_points(self.problem, self.seed, Deadline.after(seconds), self.memory):
            search.attained.note(witness)
        self.last = time.perf_counter()
        self.took = self.last - begun


def state_path(state: str, example: int, batch: int) -> Path | None:
    """Where the search of one example is kept."""
    if not state:
        return None
    path = Path(state)
    return path if batch == 1 else path.with_name(f"{path.stem}.{example}{path.suffix}")
