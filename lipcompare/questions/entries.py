"""Bounds on single entries of the Jacobian over a domain, and on its product with vectors."""

from __future__ import annotations

import dataclasses
import enum

import numpy as np
import torch
from torch import Tensor

from lipcompare.domain import Norm, Space
from lipcompare.errors import InvalidInput
from lipcompare.gates import Gates
from lipcompare.jacobian import (
    GateRelaxation,
    Gradients,
    functional_bound,
    gradient_intervals,
    interval_gradient,
)
from lipcompare.network.interval import Interval
from lipcompare.preactivation import ForwardBound, Tightening, preactivation_bounds
from lipcompare.problem import Problem
from lipcompare.rounding import SPARE, allowance, floor


class Bounding(enum.Enum):
    """How a Jacobian is bounded."""

    NAIVE = "naive"
    """Product of the layers' operator norms, on all inputs; operator norms only."""
    IBP = "ibp"
    """Interval arithmetic on the chain rule."""
    RECURJAC = "recurjac"
    """Like ``lbp``, but a gate whose incoming gradient has no sign passes on its interval."""
    LBP = "lbp"
    """The paper's linear relaxation, with planes for smooth activations."""

    @property
    def relaxation(self) -> GateRelaxation:
        """How it relaxes gates."""
        return GateRelaxation.CONSTANTS if self is Bounding.RECURJAC else GateRelaxation.CHORDS


@dataclasses.dataclass(frozen=True, eq=False)
class EntryBounds:
    """Bounds on entries of the Jacobian, or on its products with vectors.

    Attributes:
        lower, upper: (batch, rows, entries), rounded outward; both 0 where the gates prove that nothing passes.
    """

    lower: np.ndarray
    upper: np.ndarray


def jacobian_bounds(
    problem: Problem,
    bounding: Bounding | str = Bounding.LBP,
    *,
    tightening: Tightening = Tightening.ALPHA_CROWN,
    memory: int = 2**30,
) -> EntryBounds:
    """Bounds on every entry of the gradients of the problem's functionals over its domain.

    With the default functionals entry ``[b, i, j]`` bounds ``d f_i / d x_j`` over domain ``b``; the problem's norm
    plays no part. At kinks every Clarke derivative is included.
    """
    with torch.no_grad():
        gates, forward = _gates(problem, Bounding(bounding), tightening, memory)
        if Bounding(bounding) is Bounding.IBP:
            entries = interval_gradient(problem.network, gates, problem.functionals)
        else:
            known = gradient_intervals(
                problem.network,
                gates,
                problem.functionals,
                Bounding(bounding).relaxation,
                norm=Norm.TWO,
                forward=forward,
                memory=memory,
            )
            entries = known.intervals[0]
        return _as_arrays(entries)


def directional_bounds(
    problem: Problem,
    directions: Tensor | np.ndarray,
    bounding: Bounding | str = Bounding.LBP,
    *,
    tightening: Tightening = Tightening.ALPHA_CROWN,
    memory: int = 2**30,
) -> EntryBounds:
    """Bounds on Jacobian-vector products: the derivative of every functional along every direction.

    Args:
        directions: (directions, inputs), of any length.

    Returns:
        Bounds of shape (batch, rows, directions). They are at least as tight as what the bounds on the entries say.
    """
    vectors = torch.as_tensor(directions).to(problem.box.lower)
    if vectors.ndim == 1:
        vectors = vectors.unsqueeze(0)
    if vectors.ndim != 2 or vectors.shape[1] != problem.network.in_size:
        raise InvalidInput(
            f"Directions have shape (directions, {problem.network.in_size}); got {tuple(vectors.shape)}."
        )
    with torch.no_grad():
        gates, forward = _gates(problem, Bounding(bounding), tightening, memory)
        if Bounding(bounding) is Bounding.IBP:
            return _as_arrays(_combined(interval_gradient(problem.network, gates, problem.functionals), vectors))
        known = gradient_intervals(
            problem.network,
            gates,
            problem.functionals,
            Bounding(bounding).relaxation,
            norm=None,
            forward=forward,
            memory=memory,
        )
        return _as_arrays(_along(problem, gates, known, forward, vectors))


def _along(problem: Problem, gates: Gates, known: Gradients, forward: ForwardBound | None, vectors: Tensor) -> Interval:
    """Both ends of the functionals ``vectors`` of the input gradient, also by its entries' intervals."""
    both = torch.cat([vectors, -vectors])
    bound = functional_bound(problem.network, gates, problem.functionals, known, 0, both, forward)
    upper, lower = bound.split(len(vectors), dim=-1)
    apart = _combined(known.intervals[0], vectors)
    return Interval(torch.maximum(-lower, apart.lower), torch.minimum(upper, apart.upper))


def _combined(entries: Interval, vectors: Tensor) -> Interval:
    """Functionals ``vectors`` (directions, inputs) of a gradient in an interval, rounded outward."""
    middle, size = entries.center @ vectors.T, vectors.abs().T
    error = allowance(len(size) + SPARE, middle.dtype) * (entries.magnitude @ size)
    error = error + floor(middle.dtype) * (error > 0)
    spread = entries.radius @ size + error
    # A sum of terms of one sign has that sign, whatever rounding may do to its size.
    above, below = ((side > 0).to(middle.dtype) for side in (entries.upper, -entries.lower))
    along, against = ((side > 0).to(middle.dtype).T for side in (vectors, -vectors))
    rising, falling = above @ along + below @ against, below @ along + above @ against
    lower = torch.where(falling > 0, middle - spread, (middle - spread).clamp(min=0))
    return Interval(lower, torch.where(rising > 0, middle + spread, (middle + spread).clamp(max=0)))


def _gates(
    problem: Problem, bounding: Bounding, tightening: Tightening, memory: int
) -> tuple[Gates, ForwardBound | None]:
    if bounding is Bounding.NAIVE:
        raise InvalidInput("Products of layer norms bound no single entries: use 'ibp' or 'lbp'.")
    region = problem.box.region
    bounds = preactivation_bounds(problem.network, region, tightening, memory=memory)
    joint = bounding is Bounding.LBP and not isinstance(problem.box, Space)
    gates = Gates.from_preactivations(problem.network, bounds, lines=joint)
    return gates, ForwardBound.of(problem.network, region, bounds) if gates.lines else None


def _as_arrays(entries: Interval) -> EntryBounds:
    return EntryBounds(*(t.cpu().double().numpy() for t in entries))
