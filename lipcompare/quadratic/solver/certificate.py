"""From any dual point to a bound that rounding cannot break.

With ``|w_i| <= limit_i``, ``S + delta I`` positive semidefinite gives ``L <= b' theta + sum_j 1/(4 lam_j) + delta
sum_i limit_i^2``. Cholesky in floating point of ``S + (delta - c) I`` that runs through proves it for ``c = (n + 2) u
tr(S)`` (Rump, Verification of positive definiteness, BIT 2006). What rounding did to ``S`` itself and to the
coefficients it is made of changes ``w' S w`` by at most the sum of the absolute changes times these limits; it is
added at the end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lipcompare.quadratic.program import SdpData
from lipcompare.quadratic.solver.dual import Dual, dual_value, slack_matrix
from lipcompare.rounding import SPARE, allowance, cholesky_shift


def certify(data: SdpData, dual: Dual, *, refinements: int = 6) -> Tensor:
    """Certified upper bounds (problems,) on the objective, in scaled units, offset included; inf where none was found.

    Args:
        dual: any multipliers; the trace multiplier is only a hint, the smallest one that can be proved is used.
        refinements: tests spent on making it small.
    """
    usable = torch.isfinite(dual.theta).all(-1) & torch.isfinite(dual.lam).all(-1) & (dual.lam > 0).all(-1)
    nu = dual.nu
    if nu is not None:
        usable &= (torch.isfinite(nu) & ((nu >= 0) | data.cuts.equal)).all(-1)
        nu = torch.where(usable.unsqueeze(-1) & data.cuts.mask, nu, 0.0)
    theta = torch.where(usable.unsqueeze(-1), dual.theta, 0.0)
    lam = torch.where(usable.unsqueeze(-1), dual.lam, 1.0)
    plain = Dual(theta, lam, torch.zeros_like(dual.d), nu)
    slack = slack_matrix(data, plain)
    # Absent coordinates are a unit block of their own, which Cholesky passes without touching the rest.
    n = data.mask.sum(-1)
    weight = (slack.diagonal(dim1=-2, dim2=-1).abs() * data.mask).sum(-1)
    least = cholesky_shift(n, weight + n * dual.d.abs())
    value, bound = dual_value(data, plain), data.bound
    # A multiplier is small enough once it costs a ten millionth of the value: far less than programs are solved to.
    enough = 1e-7 * value.abs() / bound

    def proved(delta: Tensor) -> Tensor:
        shifted = slack.clone()
        shifted.diagonal(dim1=-2, dim2=-1).add_((delta - least).unsqueeze(-1))
        passed: Tensor = torch.linalg.cholesky_ex(shifted).info == 0
        return passed

    high = torch.maximum(2 * least, torch.where(torch.isfinite(dual.d), dual.d, 1.0))
    feasible = proved(high)
    for _ in range(12):
        if bool(feasible.all()):
            break
        high = torch.where(feasible, high, 4 * high + enough)
        feasible |= proved(high)
    low = least
    for _ in range(refinements):
        settled = high <= enough
        if bool(settled.all()):
            break
        trial = torch.maximum((low * high).sqrt(), torch.minimum(0.5 * enough, high))
        passed = feasible & ~settled & proved(trial)
        high = torch.where(passed, trial, high)
        low = torch.where(passed | settled, low, trial)
    total = value + high * bound + _formation(data, plain) + data.slack
    total = total + (theta.abs() * data.limit * data.gate_slack).sum(-1) + data.offset
    if nu is not None:
        total = total + 2 * (nu.abs() * data.cuts.slack).sum(-1)
    # The sums above, of as many terms as there are coordinates and signs, several times over.
    operations = 4 * (data.size + data.entry_mask.shape[-1] + SPARE)
    total = total + allowance(operations, total.dtype) * (total.abs() + theta.abs().sum(-1))
    return torch.where(usable & feasible, total, torch.inf)


def _formation(data: SdpData, dual: Dual) -> Tensor:
    """Bound on what rounding in the entries of ``S`` adds to ``w' S w``.

    An entry is a sum over signs, or cuts, of products of three or four numbers, a gate's term and one of the cost.
    """
    limit = data.limit.unsqueeze(1)
    gates = 2 * ((limit @ data.columns.abs()).squeeze(1) * data.limit * dual.theta.abs()).sum(-1)
    signs = ((limit @ data.entries.abs()).squeeze(1).square() * dual.lam).sum(-1)
    cost = (limit @ data.cost.abs() @ limit.mT).flatten()
    cuts: Tensor | float = 0.0
    if dual.nu is not None:
        left, right = (limit @ data.cuts.left.abs()).squeeze(1), (limit @ data.cuts.right.abs()).squeeze(1)
        cuts = (2 * left * right * dual.nu.abs()).sum(-1) * (1 + data.cuts.mask.sum(-1))
    products = data.entry_mask.shape[-1] + SPARE
    return allowance(products, cost.dtype) * (gates + signs + cost + cuts + data.bound * dual.d.abs())
