"""Deepest points of many polytopes in the unit box at once, by an interior point method.

The program ``max t : A u + b >= t, |u| <= 1, t <= 1`` has points and multipliers that satisfy all of its constraints
strictly, from the start: ``u = 0`` with ``t`` under all rows, and equal multipliers of the rows, which those of the box
complete. Steps of Newton's method toward a tenth of the complementarity, which go 0.95 of the way to the nearest
constraint at most, keep them so. What is found is a proposal: the caller evaluates it.
"""

from __future__ import annotations

import torch
from torch import Tensor

ITERATIONS = 14
"""Steps, mostly with much to spare for a sign: a program whose sign they do not tell is one for a solver."""
_SOLVED = 1e-11
"""Complementarity at which a program stays as it is: from there on rounding takes over."""
_CENTERING = 0.1
_STEP = 0.95


def deepest_points(A: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Points (polytopes, inputs) and multipliers (polytopes, rows) of sum one, about optimal; NaN where it fails.

    The equations of a step are solved for the point or for the multipliers, whichever are fewer.

    Args:
        A: (polytopes, rows, inputs), rows of size about one.
        b: (polytopes, rows); 1 where a row of zeros fills up.
    """
    count, rows, inputs = A.shape
    V = torch.cat([A, A.new_full((count, rows, 1), -1.0)], -1)  # of (u, t)
    VT = V.transpose(1, 2).contiguous()
    z = A.new_zeros(count, inputs + 1, 1)
    z[:, -1, 0] = (b.amin(-1) - 0.5).clamp(max=0.5)
    y = A.new_full((count, rows, 1), 1 / (rows + 1))
    pull = VT[:, :-1] @ y
    # Multipliers of the rows, of u <= 1, of u >= -1 and of t <= 1, as slacks are below.
    dual = torch.cat([y, pull.clamp(min=0) + 0.1, (-pull).clamp(min=0) + 0.1, y[:, :1]], 1)
    parts = [rows, inputs, inputs, 1]
    for _ in range(ITERATIONS):
        u, t = z[:, :-1], z[:, -1:]
        slack = torch.cat([V @ z + b.unsqueeze(-1), 1 - u, 1 + u, 1 - t], 1)
        mean = (slack * dual).sum(1, keepdim=True) / slack.shape[1]
        goal = _CENTERING * mean
        weight, rest = dual / slack, goal / slack - dual
        w, above, below, last = weight.split(parts, 1)
        r, over, under, end = rest.split(parts, 1)
        box, g = torch.cat([above + below, last], 1), torch.cat([over - under, end], 1)
        if inputs <= max(rows, 64):
            matrix = (VT * w.mT) @ V
            matrix.diagonal(dim1=1, dim2=2).add_(box.squeeze(-1))
            dz = _solved(matrix, VT @ r - g)
        else:
            scaled = V / box.mT
            matrix = scaled @ VT
            matrix.diagonal(dim1=1, dim2=2).add_((1 / w).squeeze(-1))
            dz = (VT @ _solved(matrix, r / w + scaled @ g) - g) / box
        du = dz[:, :-1]
        ds = torch.cat([V @ dz, -du, du, -dz[:, -1:]], 1)
        dy = rest - weight * ds
        goes_on = mean > _SOLVED
        z = torch.where(goes_on, z + _length(slack, ds) * dz, z)
        dual = torch.where(goes_on, dual + _length(dual, dy) * dy, dual)
    return z[:, :-1, 0], dual[:, :rows, 0]


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    return torch.cholesky_solve(right, torch.linalg.cholesky_ex(matrix)[0])


def _length(value: Tensor, change: Tensor) -> Tensor:
    """The largest step, at most 1, that leaves every value positive with something to spare."""
    return _STEP / (-change / value).amax(1, keepdim=True).clamp(min=_STEP)
