"""``auto``: the best interval that fits in the time, cheap bounds first."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, final

from lipcompare.branching.roots import has_patterns
from lipcompare.combine import intersect
from lipcompare.methods.attack import Attack
from lipcompare.methods.base import Budget, Clock, Method
from lipcompare.methods.baselines import Ibp
from lipcompare.methods.each import example_by_example
from lipcompare.methods.exact import Exact
from lipcompare.methods.lbp import Lbp
from lipcompare.methods.sdp import Sdp
from lipcompare.problem import Problem
from lipcompare.result import Bound, Status

_ATTACK = 0.15
"""Share of the time for the first search for a lower bound."""


@final
@dataclasses.dataclass(frozen=True)
class Auto(Method):
    """An interval within the time limit, as tight as the time allows.

    1. ``ibp``, which takes no time, so that there is an upper bound whatever comes.
    2. ``attack`` for at most 15 % of the time: a lower bound with a witness.
    3. ``lbp``, if any time is left.
    4. If the gap is still open, the sharpest method that applies: ``exact`` for ReLU-like activations (its interval
       holds when the time runs out), else ``sdp``.
    """

    name: ClassVar[str] = "auto"
    proves: ClassVar[str] = "interval"
    summary: ClassVar[str] = "the tightest interval that fits in the time: cheap bounds first, then the sharpest"
    reference: ClassVar[str] = "shi2022lipschitz"

    def supports(self, problem: Problem) -> str | None:
        return None

    def run(self, problem: Problem, budget: Budget) -> Bound:
        return example_by_example(self, problem, budget, self._run)

    def _run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        done: list[Bound] = []
        sharpest: Method = Exact() if has_patterns(problem.network) else Sdp()
        plan: list[tuple[Method, float]] = [(Ibp(), 1.0), (Attack(), _ATTACK), (Lbp(), 1.0), (sharpest, 1.0)]
        for method, share in plan:
            if done and not clock.running():
                break
            if method.supports(problem) is not None:
                continue
            quiet = dataclasses.replace(budget, time_limit=clock.left * share, on_progress=None)
            try:
                done.append(method.run(problem, quiet))
            except KeyboardInterrupt:
                if not done:
                    raise
                done.append(dataclasses.replace(done[-1], status=Status.INTERRUPTED, detail=""))
            merged = intersect(done, gap=budget.gap)
            clock.record(float(merged.lower.max()), float(merged.upper.max()))
            if merged.status is Status.EXACT or done[-1].status is Status.INTERRUPTED:
                break
        merged = intersect(done, gap=budget.gap)
        status = merged.status
        if status is not Status.EXACT and done[-1].status is not Status.INTERRUPTED:
            status = done[-1].status if clock.running() else Status.TIME_LIMIT
        names = ", ".join(dict.fromkeys(b.method for b in done))
        last = f" {done[-1].method}: {done[-1].detail}" if done[-1].detail else ""
        return self.result(
            problem, clock, lower=merged.lower, upper=merged.upper, status=status, detail=f"Ran {names}.{last}",
            witnesses=merged.witnesses,
        )  # fmt: skip
