"""From a problem to its linear bound, keeping what lies between: pre-activation bounds, gates, gradient intervals."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from lipcompare.budget import Deadline
from lipcompare.domain import Space
from lipcompare.gates import Coupling, Gates, PreactivationBounds
from lipcompare.jacobian import Gradients, Relaxation, gradient_intervals, norm_bound
from lipcompare.preactivation import ForwardBound, Tightening, preactivation_bounds
from lipcompare.preactivation.probing import probe
from lipcompare.problem import Problem

_FIRST = 0.8
"""Share of the time after which pre-activations are no longer refined."""


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
    relaxation: Relaxation,
    *,
    joint: bool,
    memory: int,
    seconds: float = math.inf,
) -> Propagated:
    """Problem -> pre-activation bounds -> gates -> gradient intervals -> norm bound (arXiv 2210.07394, section 3).

    ``joint`` also relaxes the slopes of smooth activations jointly with the gradient that they multiply, and takes the
    better of the two; networks with kinks only have no such slopes.

    ``seconds``: time for refining intervals, most of it for those of pre-activations: where both do not fit, they
    matter more. What interval arithmetic gives takes as long as it takes.
    """
    first, second = Deadline.after(_FIRST * seconds), Deadline.after(seconds)
    network, region, functionals = problem.network, problem.box.region, problem.functionals
    bounds = preactivation_bounds(network, region, tightening, memory=memory, deadline=first)
    bounded = not isinstance(problem.box, Space)  # elsewhere pre-activations say nothing about slopes
    gates = Gates.from_preactivations(network, bounds, lines=joint and bounded and relaxation.planes)
    forward = ForwardBound.of(network, region, bounds) if gates.lines else None
    gradients = relaxation.gradients(
        network, gates, functionals, norm=problem.norm, forward=forward, memory=memory, deadline=second
    )
    upper = relaxation.norms(network, gates, functionals, gradients, problem.norm, forward)
    return Propagated(bounds, gates, gradients, upper, first.missed or second.missed)


def coupled(
    problem: Problem, found: Propagated, *, memory: int, seconds: float = math.inf
) -> tuple[Propagated, Coupling]:
    """Go on from ``found`` with probing, and keep what that says of states that exclude each other.

    For networks with one kink, at the origin (:func:`~lipcompare.gates.has_patterns`). The norm bound is
    never above the one before. ``seconds``: time for probing and for refining gradient intervals.
    """
    network, box = problem.network, problem.box.interval
    first, second = Deadline.after(seconds / 2), Deadline.after(seconds)
    bounds, conflicts = probe(network, box, found.bounds, memory=memory, deadline=first)
    gates = Gates.from_preactivations(network, bounds)
    gradients = gradient_intervals(
        network, gates, problem.functionals, norm=problem.norm, memory=memory, deadline=second
    )
    upper = norm_bound(network, gates, problem.functionals, gradients, problem.norm)
    hurried = found.hurried or first.missed or second.missed
    upper = torch.minimum(upper, found.upper)
    return Propagated(bounds, gates, gradients, upper, hurried), Coupling(box, bounds, conflicts)
