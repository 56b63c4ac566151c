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
    """Points (polytopes, inputs) and multipliers (polytopes, rows), about optimal; no numbers where it fails.

    Args:
        A: (polytopes, rows, inputs), rows of size about one.
        b: (polytopes, rows); 1 where a row of zeros fills up.
    """
    count, rows, inputs = A.shape
    # All constraints as G (u, t) + h >= 0: the rows, u <= 1, u >= -1 and t <= 1.
    one, last = torch.eye(inputs).to(A), A.new_tensor([[-1.0]])
    box = torch.block_diag(torch.cat([-one, one]), last).expand(count, -1, -1)
    G = torch.cat([torch.cat([A, A.new_full((count, rows, 1), -1.0)], -1), box], 1)
    GT = G.mT.contiguous()
    h = torch.cat([b, b.new_ones(count, 2 * inputs + 1)], 1).unsqueeze(-1)
    z = A.new_zeros(count, inputs + 1, 1)
    z[:, -1, 0] = (b.amin(-1) - 0.5).clamp(max=0.5)
    y = A.new_full((count, rows, 1), 1 / (rows + 1))
    pull = A.mT @ y
    dual = torch.cat([y, pull.clamp(min=0) + 0.1, (-pull).clamp(min=0) + 0.1, y[:, :1]], 1)
    for _ in range(ITERATIONS):
        slack = torch.baddbmm(h, G, z)
        mean = (slack * dual).mean(1, keepdim=True)
        weight = dual / slack
        rest = torch.addcdiv(-dual, mean, slack, value=_CENTERING)
        factor = torch.linalg.cholesky_ex((GT * weight.mT) @ G)[0]
        dz = torch.cholesky_solve(GT @ rest, factor)
        ds = G @ dz
        dy = torch.addcmul(rest, weight, ds, value=-1)
        goes_on = mean > _SOLVED
        z = torch.where(goes_on, z + _length(slack, ds) * dz, z)
        dual = torch.where(goes_on, dual + _length(dual, dy) * dy, dual)
    return z[:, :-1, 0], dual[:, :rows, 0]


def _length(value: Tensor, change: Tensor) -> Tensor:
    """The largest step, at most 1, that leaves every value positive with something to spare."""
    return _STEP / (change / value).amin(1, keepdim=True).neg().clamp(min=_STEP)
