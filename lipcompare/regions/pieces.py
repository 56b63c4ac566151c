"""Activation regions: where one pattern of a network holds, it is affine; an LP finds a point inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

import solvers
from lipcompare.network.graph import Activate, Affine, Network, Terms, affine_value, fold_forward
from lipcompare.network.interval import Interval


class AffinePiece(NamedTuple):
    """Pre-activations of one activation node as affine functions of the input: ``matrix x + offset``."""

    matrix: Tensor  # (..., neurons, inputs)
    offset: Tensor  # (..., neurons)


def affine_pieces(network: Network, slopes: Mapping[int, Tensor]) -> dict[int, AffinePiece]:
    """Pre-activations of every activation node under fixed slopes (..., neurons).

    Piecewise linear activations here pass through the origin (``LeakyReLU``), so a slope fixes the piece.
    """
    size = network.in_size
    some = next(iter(slopes.values()))
    basis = torch.cat([some.new_zeros(1, size), torch.eye(size, dtype=some.dtype, device=some.device)])
    pieces: dict[int, AffinePiece] = {}

    def activation(k: int, node: Activate, z: Tensor) -> Tensor:  # z: (..., 1 + inputs, neurons)
        pieces[k] = AffinePiece((z[..., 1:, :] - z[..., :1, :]).transpose(-1, -2), z[..., 0, :])
        return z * slopes[k].unsqueeze(-2)

    def affine(k: int, node: Affine, terms: Terms[Tensor]) -> Tensor:
        return affine_value(node, terms)

    fold_forward(network, {0: basis}, activation, affine)
    return pieces


class Halfspaces(NamedTuple):
    """``matrix x >= bound`` with rows scaled so that 1 is the row's range over the box; which neuron each row is."""

    matrix: np.ndarray  # (constraints, inputs)
    bound: np.ndarray  # (constraints,)
    node: np.ndarray  # (constraints,) activation node
    neuron: np.ndarray  # (constraints,)


def halfspaces(
    pieces: Mapping[int, AffinePiece], active: Mapping[int, Tensor], open_: Mapping[int, Tensor], box: Interval
) -> Halfspaces:
    """Inequalities of the region of one pattern, for the neurons whose sign the box does not decide.

    Args:
        pieces: under the pattern, without leading axes.
        active: pattern, (neurons,) boolean per activation node.
        open_: neurons whose sign is undecided over the box, (neurons,) boolean per activation node.
        box: (inputs,).
    """
    matrices, bounds, nodes, neurons = [], [], [], []
    radius = box.radius
    for k, piece in pieces.items():
        chosen = open_[k].nonzero().squeeze(-1)
        sign = torch.where(active[k][chosen], 1.0, -1.0).to(radius.dtype)
        matrix = piece.matrix[chosen] * sign.unsqueeze(-1)
        scale = (matrix.abs() @ radius).clamp(min=torch.finfo(radius.dtype).tiny ** 0.5).unsqueeze(-1)
        matrices.append(matrix / scale)
        bounds.append(-(piece.offset[chosen] * sign) / scale.squeeze(-1))
        nodes.append(torch.full_like(chosen, k))
        neurons.append(chosen)
    return Halfspaces(*(torch.cat(parts).cpu().numpy() for parts in (matrices, bounds, nodes, neurons)))


def interior_point(region: Halfspaces, box: Interval, time_limit: float = 10.0) -> tuple[np.ndarray, float] | None:
    """The point of the box that is deepest inside the region, and its depth; None if the region has no interior there.

    Depth 1 is the range of a constraint over the box.
    """
    lower, upper = box.lower.cpu().double().numpy(), box.upper.cpu().double().numpy()
    constraints = np.hstack([region.matrix, -np.ones((len(region.bound), 1))])
    program = solvers.MixedIntegerProgram(
        cost=np.append(np.zeros(len(lower)), -1.0),
        A=constraints,
        row_lower=region.bound,
        row_upper=np.full(len(region.bound), np.inf),
        lower=np.append(lower, -1e3),
        upper=np.append(upper, 1.0),
    )
    solution = solvers.get("highs").solve(program, solvers.Limits(time_limit=time_limit))
    if solution.status is solvers.Status.INTERRUPTED:
        raise KeyboardInterrupt  # the solver turned it into a status; here it is the caller who decides
    if solution.status is not solvers.Status.OPTIMAL or solution.x is None or solution.x[-1] <= 1e-9:
        return None
    return np.clip(solution.x[:-1], lower, upper), float(solution.x[-1])
