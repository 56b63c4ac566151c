"""Linear bound propagation on the Clarke Jacobian: the paper's bound, and RecurJac as its looser sibling."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, final

from lipcompare.budget import Budget, Clock
from lipcompare.jacobian import GateRelaxation
from lipcompare.methods.base import HURRIED, Method, joined, per_chunk
from lipcompare.preactivation import Tightening
from lipcompare.problem import Problem
from lipcompare.propagation import propagate
from lipcompare.result import Bound, Status


@final
@dataclasses.dataclass(frozen=True)
class Lbp(Method):
    """The paper's bound: convex hulls of the gates and of the norm, propagated linearly.

    Works for p = inf (the paper) and extends to p = 2, with the chord of the square of each entry and a root at the
    end, and to p = 1, where the largest entry of the gradient is bounded entry by entry. Slopes of smooth activations
    are relaxed jointly with the gradient that they multiply (the paper's appendix) unless ``joint`` is off; each bound
    is the better of that and of the slope's range alone.
    """

    name: ClassVar[str] = "lbp"
    proves: ClassVar[str] = "upper"
    summary: ClassVar[str] = "linear bound propagation on the Clarke Jacobian (the paper, without branching)"
    reference: ClassVar[str] = "shi2022lipschitz"
    everywhere: ClassVar[bool] = True

    tightening: Tightening = Tightening.ALPHA_CROWN
    joint: bool = True

    def supports(self, problem: Problem) -> str | None:
        return None

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        return _result(self, problem, clock, GateRelaxation.CHORDS, joint=self.joint)


@final
@dataclasses.dataclass(frozen=True)
class RecurJac(Method):
    """RecurJac: like ``lbp``, but a gate whose incoming gradient has no sign passes on its interval."""

    name: ClassVar[str] = "recurjac"
    proves: ClassVar[str] = "upper"
    summary: ClassVar[str] = "recursive bounds on the Jacobian's entries"
    reference: ClassVar[str] = "zhang2019recurjac"
    everywhere: ClassVar[bool] = True

    tightening: Tightening = Tightening.ALPHA_CROWN

    def supports(self, problem: Problem) -> str | None:
        return None

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        return _result(self, problem, clock, GateRelaxation.CONSTANTS, joint=False)


_SHARE = 0.9
"""Of the time limit for refining intervals; the rest is for what cannot be left out."""


def _result(
    method: Lbp | RecurJac, problem: Problem, clock: Clock, relaxation: GateRelaxation, *, joint: bool
) -> Bound:
    """Problem -> pre-activations -> gates -> Jacobian bound, in chunks that fit in memory and share the time."""
    memory = clock.budget.memory
    widest = max(node.size for node in problem.network.nodes)
    size = max(1, memory // (64 * problem.rows * widest * problem.box.lower.element_size()))
    parts = list(per_chunk(problem, size))
    uppers, hurried = [], False
    for i, part in enumerate(parts):
        seconds = _SHARE * clock.left / (len(parts) - i)
        found = propagate(part, method.tightening, relaxation, joint=joint, memory=memory, seconds=seconds)
        uppers.append(found.upper)
        hurried |= found.hurried
    status = Status.TIME_LIMIT if hurried else Status.COMPLETE
    return method.result(problem, clock, upper=joined(uppers), status=status, detail=HURRIED if hurried else "")
