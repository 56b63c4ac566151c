"""``exact``: the exact method that suits the problem."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, final

from lipcompare.budget import Budget
from lipcompare.gates import Gates, has_patterns
from lipcompare.methods.bab import Bab
from lipcompare.methods.base import Method
from lipcompare.methods.each import example_by_example
from lipcompare.methods.enumerate import Enumerate
from lipcompare.methods.milp import Milp
from lipcompare.preactivation import interval_bounds
from lipcompare.problem import Norm, Problem
from lipcompare.result import Bound

_TINY = 8
"""Up to this many undecided neurons every pattern is tried sooner than a search has begun."""


@final
@dataclasses.dataclass(frozen=True)
class Exact(Method):
    """Picks an exact method by what the problem looks like.

    1. At most eight neurons undecided over the box by interval arithmetic: ``enumerate`` tries every pattern.
    2. p = 1: ``milp`` where it applies. One entry of the gradient decides, a linear objective that integer programming
       bounds well and where the quadratic relaxation would need a program per entry.
    3. Everything else with ReLU-like activations: ``bab`` on the quadratic-gate bound, which closed every reference
       case faster than integer programming did.
    4. Smooth activations: ``bab``, which halves boxes there. It reaches the gap for few inputs; for many the time limit
       leaves an interval.
    """

    name: ClassVar[str] = "exact"
    proves: ClassVar[str] = "exact"
    summary: ClassVar[str] = "the exact method that suits the problem: enumerate, milp or bab"
    reference: ClassVar[str] = "jordan2020lipmip"

    def supports(self, problem: Problem) -> str | None:
        return None

    def choose(self, problem: Problem) -> Method:
        """The method that the decision list picks."""
        if not has_patterns(problem.network):
            return Bab()
        bounds = interval_bounds(problem.network, problem.box.interval)
        count = int(Gates.from_preactivations(problem.network, bounds).unstable_count.max()) if bounds else 0
        if count <= _TINY:
            return Enumerate()
        if problem.norm is Norm.ONE and Milp().supports(problem) is None:
            return Milp()
        return Bab()

    def run(self, problem: Problem, budget: Budget) -> Bound:
        return example_by_example(self, problem, budget, self._run)

    def _run(self, problem: Problem, budget: Budget) -> Bound:
        chosen = self.choose(problem)
        result = chosen.run(problem, budget)
        detail = f"Took {chosen.name}. {result.detail}".strip()
        return dataclasses.replace(result, method=self.name, detail=detail, options={})
