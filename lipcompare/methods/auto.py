"""``auto``: the best interval that fits in the time, cheap bounds first."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, final

from lipcompare.budget import Budget, Clock, TracePoint
from lipcompare.combine import intersect
from lipcompare.domain import Space
from lipcompare.gates import has_patterns
from lipcompare.methods.attack import Attack
from lipcompare.methods.base import Method
from lipcompare.methods.baselines import Ibp, Naive
from lipcompare.methods.each import example_by_example
from lipcompare.methods.exact import Exact
from lipcompare.methods.lbp import Lbp
from lipcompare.methods.sdp import Sdp
from lipcompare.preactivation import Tightening
from lipcompare.problem import Problem
from lipcompare.result import Bound, Status

_ATTACK = 0.15
"""Share of the time for the first search for a lower bound."""
_FEW = 64
"""Up to this many inputs, halving boxes gains over the best bound on the whole one."""


@final
@dataclasses.dataclass(frozen=True)
class Auto(Method):
    """An interval within the time limit, as tight as the time allows.

    1. ``ibp`` on intervals, which takes no time, so that there is an upper bound whatever comes.
    2. ``attack`` for at most 15 % of the time: a lower bound with a witness.
    3. ``lbp``. Where it needs all the time that is left, nothing follows: the sharper methods begin with the same
       intervals, and would have less time for them.
    4. If the gap is still open, the sharpest method that applies: ``exact`` for ReLU-like activations (its interval
       holds when the time runs out), else ``sdp``, and then ``exact`` too where the inputs are few enough to halve.

    Methods that do not work on a ball or on all inputs are passed over; on all inputs ``naive`` runs too.
    """

    name: ClassVar[str] = "auto"
    proves: ClassVar[str] = "interval"
    summary: ClassVar[str] = "the tightest interval that fits in the time: cheap bounds first, then the sharpest"
    reference: ClassVar[str] = "shi2022lipschitz"
    balls: ClassVar[bool] = True
    everywhere: ClassVar[bool] = True

    def supports(self, problem: Problem) -> str | None:
        return None

    def run(self, problem: Problem, budget: Budget) -> Bound:
        return example_by_example(self, problem, budget, self._run)

    def _run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        done: list[Bound] = []
        plan: list[tuple[Method, float]] = [(Ibp(Tightening.INTERVAL), 1.0), (Attack(), _ATTACK), (Lbp(), 1.0)]
        patterns, boxes = has_patterns(problem.network), Exact().domain_reason(problem) is None
        if not (patterns and boxes):
            plan.append((Sdp(), 1.0))
        if boxes and (patterns or problem.network.in_size <= _FEW):
            plan.append((Exact(), 1.0))
        if isinstance(problem.box, Space):
            plan.insert(0, (Naive(), 1.0))
        for method, share in plan:
            if done and not clock.running():
                break
            if method.domain_reason(problem) is not None or method.supports(problem) is not None:
                continue
            watched = dataclasses.replace(
                budget, time_limit=clock.left * share, on_progress=lambda point: _take(clock, point)
            )
            clock.note(method.name)
            done.append(method.run(problem, watched))
            if done[-1].status is Status.INTERRUPTED:
                raise KeyboardInterrupt  # what it had found is kept, as that of the others
            merged = intersect(done, gap=budget.gap)
            clock.record(float(merged.lower.max()), float(merged.upper.max()))
            hurried = isinstance(method, Lbp) and done[-1].status is Status.TIME_LIMIT
            if merged.status is Status.EXACT or hurried:
                break
        merged = intersect(done, gap=budget.gap)
        status = merged.status
        if status is not Status.EXACT:
            status = done[-1].status if clock.running() else Status.TIME_LIMIT
        names = ", ".join(dict.fromkeys(b.method for b in done))
        last = f" {done[-1].method}: {done[-1].detail}" if done[-1].detail else ""
        return self.result(
            problem, clock, lower=merged.lower, upper=merged.upper, status=status, detail=f"Ran {names}.{last}",
            witnesses=merged.witnesses,
        )  # fmt: skip


def _take(clock: Clock, point: TracePoint) -> None:
    """A point of the trace from what one of the methods has found, where it adds to what is known."""
    low, high = (clock.trace[-1].lower, clock.trace[-1].upper) if clock.trace else (0.0, float("inf"))
    if point.lower > low or point.upper < high:
        clock.record(max(low, point.lower), min(high, point.upper))
