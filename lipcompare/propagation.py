"""From a problem to its linear bound, keeping what lies between: pre-activation bounds, gates, gradient intervals."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from lipcompare.domain import Space
from lipcompare.gates import Gates, PreactivationBounds
from lipcompare.jacobian import GateRelaxation, Gradients, gradient_intervals, norm_bound
from lipcompare.preactivation import ForwardBound, Tightening, preactivation_bounds
from lipcompare.problem import Problem


@dataclasses.dataclass(frozen=True, eq=False)
class Propagated:
    """The stages of linear bound propagation on one batch; ``upper`` is (batch, rows)."""

    bounds: PreactivationBounds
    gates: Gates
    gradients: Gradients
    upper: Tensor


def propagate(
    problem: Problem, tightening: Tightening, relaxation: GateRelaxation, *, joint: bool, memory: int
) -> Propagated:
    """Problem -> pre-activation bounds -> gates -> gradient intervals -> norm bound (arXiv 2210.07394, section 3).

    ``joint`` also relaxes the slopes of smooth activations jointly with the gradient that they multiply, and takes the
    better of the two; networks with kinks only have no such slopes.
    """
    network, region, functionals = problem.network, problem.box.region, problem.functionals
    bounds = preactivation_bounds(network, region, tightening, memory=memory)
    bounded = not isinstance(problem.box, Space)  # elsewhere pre-activations say nothing about slopes
    gates = Gates.from_preactivations(network, bounds, lines=joint and bounded)
    forward = ForwardBound.of(network, region, bounds) if gates.lines else None
    gradients = gradient_intervals(
        network, gates, functionals, relaxation, norm=problem.norm, forward=forward, memory=memory
    )
    upper = norm_bound(network, gates, functionals, gradients, problem.norm, forward)
    return Propagated(bounds, gates, gradients, upper)
