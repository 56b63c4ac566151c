"""The cheap baselines: product of layer norms, and interval arithmetic on the Jacobian."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, final

from lipcompare.budget import Budget, Clock
from lipcompare.jacobian import norm_product
from lipcompare.methods.base import Method
from lipcompare.methods.lbp import propagated
from lipcompare.preactivation import Tightening
from lipcompare.problem import Problem
from lipcompare.result import Bound


@final
@dataclasses.dataclass(frozen=True)
class Naive(Method):
    """Product of the layers' operator norms: a global bound that ignores the box (NaiveUB)."""

    name: ClassVar[str] = "naive"
    proves: ClassVar[str] = "upper"
    summary: ClassVar[str] = "product of layer norms (global)"
    reference: ClassVar[str] = "szegedy2014intriguing"
    everywhere: ClassVar[bool] = True

    def supports(self, problem: Problem) -> str | None:
        return None

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        upper = norm_product(problem.network, problem.functionals, problem.norm)
        return self.result(problem, clock, upper=upper)


@final
@dataclasses.dataclass(frozen=True)
class Ibp(Method):
    """Interval arithmetic on the chain rule, entry by entry (IBP; with CROWN gates, FastLip).

    Attributes:
        tightening: pre-activation bounds that the gates come from.
    """

    name: ClassVar[str] = "ibp"
    proves: ClassVar[str] = "upper"
    summary: ClassVar[str] = "interval arithmetic on the Jacobian"
    reference: ClassVar[str] = "weng2018fastlip"
    everywhere: ClassVar[bool] = True

    tightening: Tightening = Tightening.CROWN

    def supports(self, problem: Problem) -> str | None:
        return None

    def run(self, problem: Problem, budget: Budget) -> Bound:
        return propagated(self, problem, budget, self.tightening, "ibp")
