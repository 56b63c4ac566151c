"""Bounds on single entries of the Jacobian over a domain, and on its product with vectors."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from lipcompare.domain import Norm, Space
from lipcompare.errors import InvalidInput
from lipcompare.gates import Gates
from lipcompare.jacobian import Relaxation, relaxation_named
from lipcompare.network.environment import computing
from lipcompare.network.interval import Interval
from lipcompare.preactivation import ForwardBound, Tightening, preactivation_bounds
from lipcompare.problem import Problem


@dataclasses.dataclass(frozen=True, eq=False)
class EntryBounds:
    """Bounds on entries of the Jacobian, or on its products with vectors.

    Attributes:
        lower, upper: (batch, rows, entries), rounded outward; both 0 where the gates prove that nothing passes.
    """

    lower: np.ndarray
    upper: np.ndarray


@computing()
def jacobian_bounds(
    problem: Problem,
    relaxation: str = "lbp",
    *,
    tightening: Tightening = Tightening.ALPHA_CROWN,
    memory: int = 2**30,
) -> EntryBounds:
    """Bounds on every entry of the gradients of the problem's functionals over its domain.

    With the default functionals entry ``[b, i, j]`` bounds ``d f_i / d x_j`` over domain ``b``; the problem's norm
    plays no part. At kinks every Clarke derivative is included.

    Args:
        relaxation: a name of the table (:mod:`lipcompare.jacobian.relaxations`).
    """
    chosen = relaxation_named(relaxation)
    with torch.no_grad():
        gates, forward = gates_and_lines(problem, chosen, tightening, memory)
        known = chosen.gradients(
            problem.network, gates, problem.functionals, norm=Norm.TWO, forward=forward, memory=memory
        )
        return _as_arrays(known.intervals[0])


@computing()
def directional_bounds(
    problem: Problem,
    directions: Tensor | np.ndarray,
    relaxation: str = "lbp",
    *,
    tightening: Tightening = Tightening.ALPHA_CROWN,
    memory: int = 2**30,
) -> EntryBounds:
    """Bounds on Jacobian-vector products: the derivative of every functional along every direction.

    Args:
        directions: (directions, inputs), of any length.
        relaxation: a name of the table (:mod:`lipcompare.jacobian.relaxations`).

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
    chosen, network, rows = relaxation_named(relaxation), problem.network, problem.functionals
    with torch.no_grad():
        gates, forward = gates_and_lines(problem, chosen, tightening, memory)
        known = chosen.gradients(network, gates, rows, norm=None, forward=forward, memory=memory)
        return _as_arrays(chosen.along(network, gates, rows, known, vectors, forward))


def gates_and_lines(
    problem: Problem, relaxation: Relaxation, tightening: Tightening, memory: int
) -> tuple[Gates, ForwardBound | None]:
    """The gates over the problem's domain, and what bounds functionals of pre-activations if the relaxation uses it."""
    region = problem.box.region
    bounds = preactivation_bounds(problem.network, region, tightening, memory=memory)
    joint = relaxation.planes and not isinstance(problem.box, Space)
    gates = Gates.from_preactivations(problem.network, bounds, lines=joint)
    return gates, ForwardBound.of(problem.network, region, bounds) if gates.lines else None


def _as_arrays(entries: Interval) -> EntryBounds:
    return EntryBounds(*(t.cpu().double().numpy() for t in entries))
