"""Child problems of branch and bound: decided gates and signs as operations on data and dual points.

Each operation keeps a dual feasible point feasible and its value, so a parent's multipliers start the child. With a
trace multiplier ``d > 0`` the value may have to grow; the documentation of each function says by how much.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lipcompare.quadratic.program import SdpData
from lipcompare.quadratic.solver.interior_point import Dual


def fix_low(data: SdpData, dual: Dual, gates: Tensor) -> tuple[SdpData, Dual]:
    """Gates ``gates`` (problems, n), a mask, at their low slope: ``v_i = 0``, so rows and columns of ``S`` go.

    The value stays, less ``d limit_i^2`` per gate.
    """
    keep = (~gates).to(data.columns)
    rows, both = keep.unsqueeze(-1), keep.unsqueeze(-1) * keep.unsqueeze(-2)
    mask = data.mask & ~gates
    child = dataclasses.replace(
        data,
        columns=data.columns * both,
        mask=mask,
        cost=data.cost * both,
        entries=data.entries * rows,
        limit=data.limit * keep,
        trace=data.trace - (data.mask & gates).sum(-1),
        gate_slack=data.gate_slack * keep,
        radius=data.radius * keep,
    )
    return child, Dual(dual.theta * keep, dual.lam, dual.d)


def fix_high(data: SdpData, dual: Dual, gate: Tensor) -> tuple[SdpData, Dual]:
    """One gate per problem, ``gate`` (problems,), at its high slope: ``w_i = K_i``, a congruence that drops
    ``theta_i``.

    With ``d = 0`` the value stays. Else ``d`` grows to ``d (1 + |K_i|^2)``, since ``K_i`` may be longer than ``w_i``.
    """
    here = torch.arange(data.problems, device=gate.device)
    form = -2 * data.columns[here, :, gate]  # K_i on the other coordinates
    form[here, gate] = 0

    def pull(vectors: Tensor) -> Tensor:
        """``T' vectors`` for ``w = T w'``: row i is spread over the coordinates of ``K_i``. (problems, n, m)."""
        row = vectors[here, gate].unsqueeze(1)
        out = torch.baddbmm(vectors, form.unsqueeze(-1), row)
        out[here, gate] = 0
        return out

    columns = pull(data.columns)
    columns[here, :, gate] = 0
    cost = pull(pull(data.cost).mT.contiguous())
    mask, theta, radius, limit = data.mask.clone(), dual.theta.clone(), data.radius.clone(), data.limit.clone()
    mask[here, gate] = False
    theta[here, gate] = 0
    radius[here, gate] = 0
    limit[here, gate] = 0
    # K_m now carries the rounding of K_i as well, weighted with its coefficient on w_i; so do the entries.
    error = data.gate_slack[here, gate].unsqueeze(-1)
    gate_slack = data.gate_slack + 2 * data.columns[here, gate].abs() * error
    gate_slack[here, gate] = 0
    slack = data.slack + data.entries[here, gate].abs().sum(-1) * error[:, 0] * 2
    cost_size = (data.cost[here, gate].abs() * (data.limit + form.abs() * limit)).sum(-1)
    slack = slack + 2 * cost_size * error[:, 0]
    child = dataclasses.replace(
        data, columns=columns, mask=mask, cost=cost, entries=pull(data.entries), limit=limit,
        trace=data.trace - 1,
        gate_slack=gate_slack, slack=slack, radius=radius,
    )  # fmt: skip
    return child, Dual(theta, dual.lam, dual.d * (1 + form.square().sum(-1)))


def fix_sign(data: SdpData, dual: Dual, column: Tensor, sign: Tensor) -> tuple[SdpData, Dual]:
    """One undecided sign per problem: ``column`` (problems,) of the entries gets ``sign`` (problems,), +1 or -1.

    ``|J_j|`` becomes ``sign J_j`` in the cost, and ``1/(4 lam_j)`` moves to ``theta_0``: the value stays, and ``S``
    grows by the square of ``sqrt(lam_j) g_j - sign e_0 / (2 sqrt(lam_j))``.
    """
    here = torch.arange(data.problems, device=column.device)
    g = data.entries[here, :, column]
    cost = data.cost.clone()
    half = 0.5 * sign.to(g).unsqueeze(-1) * g
    cost[:, 0] += half
    cost[:, :, 0] += half
    entries, entry_mask = data.entries.clone(), data.entry_mask.clone()
    entries[here, :, column] = 0
    entry_mask[here, column] = False
    theta, lam = dual.theta.clone(), dual.lam.clone()
    theta[:, 0] += torch.where(data.entry_mask[here, column], 0.25 / lam[here, column], 0.0)
    lam[here, column] = 1
    child = dataclasses.replace(data, cost=cost, entries=entries, entry_mask=entry_mask)
    return child, Dual(theta, lam, dual.d)
