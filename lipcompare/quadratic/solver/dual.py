"""The dual of the quadratic-gate relaxation: its points, the matrix that they must make definite, their value.

Multipliers and ``S`` are those of docs/quadratic-gates.md, "The dual, and why any theta is valid".
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lipcompare.quadratic.program import SdpData


@dataclasses.dataclass(frozen=True, eq=False)
class Dual:
    """A dual point: ``S = sum_i theta_i A_i - sum_j lam_j g_j g_j' - C0 + d I`` is positive semidefinite.

    Attributes:
        theta: (problems, n) one per coordinate.
        lam: (problems, J) positive, one per undecided sign.
        d: (problems,) multiplier of the trace.
        nu: (problems, cuts) one per cut, not negative unless the cut is an equation; None without cuts.
    """

    theta: Tensor
    lam: Tensor
    d: Tensor
    nu: Tensor | None = None

    def select(self, index: Tensor) -> Dual:
        nu = None if self.nu is None else self.nu[index]
        return Dual(theta=self.theta[index], lam=self.lam[index], d=self.d[index], nu=nu)

    @classmethod
    def of_row(cls, y: Tensor, size: int, signs: int) -> Dual:
        """The inverse of :meth:`row`, for problems of so many coordinates and signs."""
        trace = size + signs
        return cls(theta=y[:, :size], lam=y[:, size:trace], d=y[:, trace], nu=y[:, trace + 1 :])

    def row(self, data: SdpData) -> Tensor:
        """``theta``, ``lam``, ``d`` and ``nu`` side by side, (problems, n + J + 1 + cuts)."""
        nu = torch.ones_like(data.cuts.slack) if self.nu is None else self.nu
        return torch.cat([self.theta, self.lam, self.d.unsqueeze(-1), nu], -1)


def slack_matrix(data: SdpData, dual: Dual) -> Tensor:
    """``S`` (problems, n, n) of a dual point; 1 on the diagonal of coordinates that a problem does not have."""
    half = data.columns * dual.theta.unsqueeze(-2)
    slack = half + half.mT - data.cost
    if data.entries.shape[-1]:
        slack = slack - (data.entries * dual.lam.unsqueeze(-2)) @ data.entries.mT
    if dual.nu is not None and data.cuts.left.shape[-1]:
        cuts = (data.cuts.left * dual.nu.unsqueeze(-2)) @ data.cuts.right.mT
        slack = slack - cuts - cuts.mT
    slack.diagonal(dim1=-2, dim2=-1).add_(torch.where(data.mask, dual.d.unsqueeze(-1), 1.0))
    return slack


def dual_value(data: SdpData, dual: Dual) -> Tensor:
    """Dual objective (problems,), in scaled units and without the offset."""
    signs = torch.where(data.entry_mask, 0.25 / dual.lam, torch.zeros_like(dual.lam)).sum(-1)
    return (data.right * dual.theta).sum(-1) + signs + dual.d * data.bound


def best_multiple(signs: Tensor, rest: Tensor, scalable: Tensor) -> Tensor:
    """The best ``t`` (problems,) to multiply a dual point with.

    Without a cost ``C0`` the multipliers times any ``t > 0`` are feasible as well, with the value ``t a + b / t`` for
    ``b = sum_j 1/(4 lam_j)`` and ``a`` all else: ``2 sqrt(a b)`` at best. In the first iterations, with ``a`` far
    above ``b``, this is a third or half of ``a + b``.

    Args:
        signs, rest: (problems,) ``b`` and ``a``.
        scalable: (problems,) those without a cost; the others keep their point, ``t = 1``.
    """
    uneven = scalable & (signs > 0) & (rest > 0)
    return torch.where(uneven, signs / rest, 1.0).sqrt()
