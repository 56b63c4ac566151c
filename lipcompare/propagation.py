"""From a problem to its linear bound, keeping what lies between: pre-activation bounds, gates, gradient intervals."""

from __future__ import annotations

import dataclasses
import math

from torch import Tensor

from lipcompare.deadline import Deadline
from lipcompare.domain import Space
from lipcompare.gates import Gates, PreactivationBounds
from lipcompare.jacobian import GateRelaxation, Gradients, gradient_intervals, norm_bound
from lipcompare.preactivation import ForwardBound, Tightening, preactivation_bounds
from lipcompare.problem import Problem


@dataclasses.dataclass(frozen=True, eq=False)
class Propagated:
    """The stages of linear bound propagation on one batch.

    Attributes:
        upper: (batch, rows).
        hurried: whether the time ran out, so that some intervals are not as tight as they could be.
    """

    bounds: PreactivationBounds
    gates: Gates
    gradients: Gradients
    upper: Tensor
    hurried: bool = False


def propagate(
    problem: Problem,
    tightening: Tightening,
    relaxation: GateRelaxation,
    *,
    joint: bool,
    memory: int,
    seconds: float = math.inf,
) -> Propagated:
    """Problem -> pre-activation bounds -> gates -> gradient intervals -> norm bound (arXiv 2210.07394, section 3).

    ``joint`` also relaxes the slopes of smooth activations jointly with the gradient that they multiply, and takes the
    better of the two; networks with kinks only have no such slopes.

    ``seconds``: time for refining intervals, half of it for those of pre-activations; what interval arithmetic gives
    takes as long as it takes.
    """
    first, second = Deadline.after(seconds / 2), Deadline.after(seconds)
    network, region, functionals = problem.network, problem.box.region, problem.functionals
    bounds = preactivation_bounds(network, region, tightening, memory=memory, deadline=first)
    bounded = not isinstance(problem.box, Space)  # elsewhere pre-activations say nothing about slopes
    gates = Gates.from_preactivations(network, bounds, lines=joint and bounded)
    forward = ForwardBound.of(network, region, bounds) if gates.lines else None
    gradients = gradient_intervals(
        network, gates, functionals, relaxation, norm=problem.norm, forward=forward, memory=memory, deadline=second
    )
    upper = norm_bound(network, gates, functionals, gradients, problem.norm, forward)
    return Propagated(bounds, gates, gradients, upper, first.missed or second.missed)
