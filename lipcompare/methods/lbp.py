"""Linear bound propagation on the Clarke Jacobian: the paper's bound, and RecurJac as its looser sibling."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, final

import torch
from torch import Tensor

from lipcompare.budget import Budget, Clock, Deadline, Kept
from lipcompare.jacobian import relaxation_named
from lipcompare.methods.base import Method, Piece, as_array, in_pieces, propagation_bytes
from lipcompare.preactivation import Tightening
from lipcompare.problem import Problem
from lipcompare.propagation import Propagated, propagate
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


COARSE = "Rounding is over 1 % of some bounds in this precision: float64 gives tighter ones."
AGAIN = "Rounding is over 1 % of some bounds in this precision: these are from float64."
_CHEAP = 1e9
"""Multiply-adds (examples, neurons, weights) up to which such bounds are computed again at once."""


def propagated(
    method: Method, problem: Problem, budget: Budget, tightening: Tightening, name: str, *, joint: bool = False
) -> Bound:
    """Problem -> pre-activations -> gates -> Jacobian bound by a relaxation of the table.

    Where single precision costs much of the bounds and double precision costs little, the better of both.
    """
    clock, relaxation = Clock(budget), relaxation_named(name)
    details: list[str] = []

    def bound(piece: Piece) -> tuple[Tensor, bool]:

        def report(upper: Tensor) -> None:
            clock.keep(Kept(piece.first, as_array(upper)))
            if problem.batch == piece.problem.batch:
                clock.record(0.0, float(upper.max()))

        def passed(part: Problem, seconds: float) -> Propagated:
            return propagate(
                part, tightening, relaxation, joint=joint, memory=budget.memory, seconds=seconds, report=report
            )

        ends = Deadline.after(piece.refining)
        linear = passed(piece.problem, piece.refining)
        if problem.dtype is torch.float64 or not linear.coarse(piece.problem):
            return linear.upper, linear.hurried
        if _cost(piece.problem) > _CHEAP or linear.hurried or ends.passed():
            details.append(COARSE)
            return linear.upper, linear.hurried
        details.append(AGAIN)
        again = passed(piece.problem.double(), ends.left)
        return torch.minimum(linear.upper.double(), again.upper), again.hurried

    result = method.upper_result(problem, clock, *in_pieces(problem, clock, propagation_bytes(problem), bound))
    return dataclasses.replace(result, detail=" ".join(filter(None, [result.detail, *sorted(set(details))])))


def _cost(problem: Problem) -> float:
    """Of a backward pass for all pre-activations."""
    return float(problem.batch) * problem.network.neurons * problem.network.products
