"""Where the iteration starts: a dual point that is feasible, and a first iterate on the central path around it."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lipcompare.quadratic.program import SdpData
from lipcompare.quadratic.solver.dual import Dual, slack_matrix
from lipcompare.quadratic.solver.iterate import Coefficients, Iterate
from lipcompare.quadratic.solver.steps import inverse_factor

# In the units of quadratic/scaling.py: the sizes of all coordinates and of the optimum near 1.
_CONSTANT = 1.0  # theta_0
_GATES = 0.3  # sum of the other theta
_SIGNS = 0.25  # lam_j times the size of its entry
_CUTS = 0.03  # sum of the nu
_MARGIN = 0.3  # smallest d times the number of coordinates
_PRIMAL = 5.0  # M = 5 I: large and infeasible; small or feasible starts take two to five times the iterations


def default_start(data: SdpData) -> Dual:
    """The cold start: multipliers of about the right size, and the trace multiplier that makes them feasible."""
    theta = (_GATES / data.mask.sum(-1, keepdim=True)) * data.equations.to(data.columns)
    theta[:, 0] = _CONSTANT
    # Signs that are coordinates have b_i = 1 and share half of the value.
    extra = data.right.clone()
    extra[:, 0] = 0
    theta = torch.where(extra > 0, _CONSTANT / extra.sum(-1, keepdim=True).clamp(min=1), theta)
    # A start: any multipliers will do, and entries of size one have the usual ones.
    sizes = torch.linalg.vector_norm(data.entries, dim=-2).clamp(min=1e-9)
    lam = torch.where(data.entry_mask, _SIGNS / sizes, 1.0)
    return feasible_trace(data, Dual(theta, lam, torch.zeros_like(data.trace), default_cuts(data)))


def default_cuts(data: SdpData) -> Tensor:
    """Where multipliers of cuts start, (problems, cuts)."""
    nu = _CUTS / data.cuts.mask.sum(-1, keepdim=True).clamp(min=1) * torch.ones_like(data.cuts.left[:, 0])
    return torch.where(data.cuts.mask, nu, 1.0).masked_fill(data.cuts.equal, 0.0)


def feasible_trace(data: SdpData, dual: Dual) -> Dual:
    """The same multipliers with a trace multiplier that leaves a margin to the boundary."""
    least = _MARGIN / data.mask.sum(-1)
    lowest = _lowest_eigenvalue(slack_matrix(data, dataclasses.replace(dual, d=torch.zeros_like(dual.d))))
    d = torch.maximum(torch.maximum(least, dual.d), 0.3 * least - 1.2 * lowest)
    return dataclasses.replace(dual, d=d)


def _lowest_eigenvalue(matrix: Tensor) -> Tensor:
    """Of each matrix; NaN, of which no bound comes, where its numbers are out of range."""
    finite = matrix.isfinite().flatten(-2).all(-1)
    lowest: Tensor = torch.linalg.eigvalsh(matrix.where(finite[..., None, None], 0.0))[..., 0]
    return lowest.where(finite, torch.nan)


def first_iterate(data: SdpData, dual: Dual, dtype: torch.dtype) -> Iterate:
    """The first iterate: the dual point, and ``M`` large and infeasible, everything on the central path."""
    c = Coefficients.of(data, dtype)
    y, slack = dual.row(data).to(dtype), slack_matrix(data, dual).to(dtype)
    lam, scalars = y[:, c.size : c.size + c.sign_count], y[:, c.size + c.sign_count :]
    tau = 0.5 / lam
    mu = _PRIMAL * (slack.diagonal(dim1=-2, dim2=-1) * c.present).sum(-1) / c.present.sum(-1)
    inverse = mu.unsqueeze(-1) / (tau * lam - 0.25)
    moments = 1 + (_PRIMAL - 1) * c.present
    return Iterate(
        coefficients=c,
        y=y,
        tau=tau,
        blocks=torch.stack([inverse * lam, 0.5 * inverse, inverse * tau]),
        slacks=(mu.unsqueeze(-1) / scalars).masked_fill(c.pairs == 0, 0.0),
        matrices=torch.stack([torch.diag_embed(moments), slack]),
        inverses=torch.stack([torch.diag_embed(moments.rsqrt()), inverse_factor(slack)[0]]),
        infeasible=torch.ones_like(mu),
        caution=torch.ones_like(mu).expand(2, -1),
    )
