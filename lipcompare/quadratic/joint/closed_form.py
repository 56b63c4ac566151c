"""Multipliers in closed form, layer by layer, as in ECLipsE (Xu and Sivaranjani 2024) with local slopes (2025).

The program's matrix is eliminated block by block from the gates nearest the input: with ``theta`` of a layer chosen so
that its block is positive definite, what is left is a program over the gates nearer the output, of the same form, and
at the end the largest eigenvalue of what is left of the outputs. A choice in closed form per layer costs no program.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lipcompare.quadratic.joint.program import JointData

_FLOOR = 1e-9
"""Relative to the largest entry: multipliers of gates that nothing depends on."""

_LEAST = 1e-150
"""A multiplier that is positive whatever the cost is; the certificate judges what comes of it."""


def closed_form(data: JointData) -> tuple[Tensor, Tensor]:
    """``rho`` (problems,) and ``theta`` (problems, n) that are feasible but for rounding: the better of two choices.

    With ``B`` the cost's block of a layer, the block is ``diag(theta) - B``. Twice the largest eigenvalue of ``B`` for
    all gates of the layer minimises what is left where the cost does not couple layers; twice the row sums of ``|B|``
    (Gershgorin) does justice to gates of different sizes.
    """
    both = torch.cat([data.cost, data.cost])
    gates, mask = data.gates.repeat(2, 1, 1), data.mask.repeat(2, 1)
    rho, theta = _eliminated(both, gates, mask, data.ranges)
    (first, second), (one, other) = rho.chunk(2), theta.chunk(2)
    better = first <= second
    return torch.where(better, first, second), torch.where(better.unsqueeze(-1), one, other)


def _eliminated(
    cost: Tensor, gates: Tensor, mask: Tensor, ranges: tuple[tuple[int, int], ...]
) -> tuple[Tensor, Tensor]:
    """``rho`` and ``theta`` by the largest eigenvalue in the first half of the problems, by row sums in the second."""
    theta = torch.zeros_like(mask, dtype=cost.dtype)
    half = len(cost) // 2
    for start, stop in reversed(ranges):
        block, present = cost[:, start:stop, start:stop], mask[:, start:stop]
        largest = torch.linalg.eigvalsh(block[:half])[:, -1:].expand(-1, stop - start)
        size = torch.cat([largest, block[half:].abs().sum(-1)])
        size = torch.maximum(size, _FLOOR * cost.diagonal(dim1=-2, dim2=-1).amax(-1, keepdim=True))
        part = torch.where(present, 2 * size.clamp(min=_LEAST), 1.0)
        theta[:, start:stop] = part * present
        inner = torch.diag_embed(part) - block
        side = 0.5 * gates[:, :start, start:stop] * theta[:, start:stop].unsqueeze(-2)
        side = side + cost[:, :start, start:stop]
        # Where rounding makes the block singular nothing is eliminated: the certificate judges what comes of it.
        rest = torch.linalg.solve_ex(inner, side.mT)[0].nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        cost = cost[:, :start, :start] + side @ rest
        cost = 0.5 * (cost + cost.mT)
    return torch.linalg.eigvalsh(cost)[:, -1], theta
