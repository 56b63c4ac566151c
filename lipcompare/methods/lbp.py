"""Linear bound propagation on the Clarke Jacobian: the paper's bound, and RecurJac as its looser sibling."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, final

from lipcompare.budget import Budget, Clock
from lipcompare.jacobian import relaxation_named
from lipcompare.methods.base import Method
from lipcompare.methods.linear import linear_bounds
from lipcompare.preactivation import Tightening
from lipcompare.problem import Problem
from lipcompare.result import Bound


@final
@dataclasses.dataclass(frozen=True)
class Lbp(Method):
    """The paper's bound: convex hulls of the gates and of the norm, propagated linearly.

    Works for p = inf (the paper) and extends to p = 2, with the chord of the square of each entry and a root at the
    end, and to p = 1, where the largest entry of the gradient is bounded entry by entry. Slopes of smooth activations
    are relaxed jointly with the gradient that they multiply (the paper's appendix) unless ``joint`` is off; each bound
    is the better of that and of the slope's range alone.

    Attributes:
        tightening: pre-activation bounds that the gates come from.
        joint: planes for smooth activations.
        relaxation: another entry of the table of relaxations (:mod:`lipcompare.jacobian.relaxations`).
    """

    name: ClassVar[str] = "lbp"
    proves: ClassVar[str] = "upper"
    summary: ClassVar[str] = "linear bound propagation on the Clarke Jacobian (the paper, without branching)"
    reference: ClassVar[str] = "shi2022lipschitz"
    everywhere: ClassVar[bool] = True

    tightening: Tightening = Tightening.ALPHA_CROWN
    joint: bool = True
    relaxation: str = "lbp"

    def __post_init__(self) -> None:
        relaxation_named(self.relaxation)

    def supports(self, problem: Problem) -> str | None:
        return None

    def run(self, problem: Problem, budget: Budget) -> Bound:
        return propagated(self, problem, budget, self.tightening, self.relaxation, joint=self.joint)


@final
@dataclasses.dataclass(frozen=True)
class RecurJac(Method):
    """RecurJac: like ``lbp``, but a gate whose incoming gradient has no sign passes on its interval.

    Attributes:
        tightening: pre-activation bounds that the gates come from.
    """

    name: ClassVar[str] = "recurjac"
    proves: ClassVar[str] = "upper"
    summary: ClassVar[str] = "recursive bounds on the Jacobian's entries"
    reference: ClassVar[str] = "zhang2019recurjac"
    everywhere: ClassVar[bool] = True

    tightening: Tightening = Tightening.ALPHA_CROWN

    def supports(self, problem: Problem) -> str | None:
        return None

    def run(self, problem: Problem, budget: Budget) -> Bound:
        return propagated(self, problem, budget, self.tightening, "recurjac")


def propagated(
    method: Method, problem: Problem, budget: Budget, tightening: Tightening, name: str, *, joint: bool = False
) -> Bound:
    """Problem -> pre-activations -> gates -> Jacobian bound by a relaxation of the table."""
    clock = Clock(budget)
    linear = linear_bounds(problem, clock, tightening, relaxation_named(name), joint=joint)
    result = method.upper_result(problem, clock, linear.upper, linear.hurried)
    return dataclasses.replace(result, detail=" ".join(filter(None, [result.detail, *linear.remarks])))
