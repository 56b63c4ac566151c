"""The cheap baselines: product of layer norms, and interval arithmetic on the Jacobian."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, final

from lipcompare.budget import Budget, Clock, Deadline
from lipcompare.gates import Gates
from lipcompare.jacobian import interval_gradient, interval_norm, norm_product, rounding_allowance
from lipcompare.methods.base import HURRIED, Method, joined, per_chunk
from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.problem import Problem
from lipcompare.result import Bound, Status


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
        return self.result(problem, clock, upper=upper * rounding_allowance(problem.network, problem.dtype))


@final
@dataclasses.dataclass(frozen=True)
class Ibp(Method):
    """Interval arithmetic on the chain rule, entry by entry (IBP; with CROWN gates, FastLip)."""

    name: ClassVar[str] = "ibp"
    proves: ClassVar[str] = "upper"
    summary: ClassVar[str] = "interval arithmetic on the Jacobian"
    reference: ClassVar[str] = "weng2018fastlip"
    everywhere: ClassVar[bool] = True

    tightening: Tightening = Tightening.CROWN

    def supports(self, problem: Problem) -> str | None:
        return None

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        done, hurried = [], False
        widest = max(node.size for node in problem.network.nodes)
        size = max(1, budget.memory // (64 * problem.rows * widest * problem.box.lower.element_size()))
        parts = list(per_chunk(problem, size))
        for i, part in enumerate(parts):
            deadline = Deadline.after(0.9 * clock.left / (len(parts) - i))
            bounds = preactivation_bounds(
                part.network, part.box.region, self.tightening, memory=budget.memory, deadline=deadline
            )
            hurried |= deadline.missed
            gates = Gates.from_preactivations(part.network, bounds)
            gradient = interval_gradient(part.network, gates, part.functionals)
            done.append(interval_norm(gradient, part.norm))
        upper = joined(done) * rounding_allowance(problem.network, problem.dtype)
        status = Status.TIME_LIMIT if hurried else Status.COMPLETE
        return self.result(problem, clock, upper=upper, status=status, detail=HURRIED if hurried else "")
