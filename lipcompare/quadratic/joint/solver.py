"""A barrier method for the dual of the joint program, feasible at every iterate, batched.

``min t rho - log det S(rho, theta)`` with ``t`` growing: Newton's method on a self-concordant function, of which every
point is a bound. With ``P = S^-1`` the gradient in ``theta_i`` is ``-2 e_i' P k_i``, the Hessian ``2 [P o (K'PK) + (PK)
o (PK)']`` with ``K`` the matrix of the columns ``k_i``, and at the centre for ``t`` the gap is ``n / t``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lipcompare.budget import Deadline
from lipcompare.quadratic.joint.program import JointData, slack_matrix
from lipcompare.rounding import DIVISOR

_GROWTH = 12.0
"""Of ``t`` once the point is near the centre."""
_CENTRED = 0.6
"""Newton decrement under which it is."""
_INSIDE = 1.2
"""Times the closed form's ``rho``: a start well inside."""
_HALVINGS = 12
_MOST = 80


def minimised(
    data: JointData,
    start: tuple[Tensor, Tensor],
    *,
    tolerance: float,
    target: Tensor | None = None,
    deadline: Deadline | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """``rho`` (problems,), ``theta`` (problems, n) and moments (problems, n, n), near the optimum.

    Args:
        start: ``rho`` and ``theta`` of the closed form.
        tolerance: relative gap at which a problem stops.
        target: (problems,) in scaled units: a problem stops once its ``rho`` is at most this.
        deadline: no iteration is begun after it.
    """
    deadline = deadline or Deadline()
    rows, n = data.rows, data.mask.sum(-1).to(data.scale)
    gates = data.mask.clone()
    gates[:, :rows] = False
    rho = _INSIDE * start[0].clamp(min=1e-12)  # of a trace of 1: positive where the Jacobian is almost 0
    theta = _INSIDE * start[1]
    columns, free = data.columns, gates.to(theta)
    slack = slack_matrix(data, rho, theta)
    factor, info = torch.linalg.cholesky_ex(slack)
    for _ in range(_HALVINGS):
        if bool((info == 0).all()):
            break
        rho = torch.where(info == 0, rho, 2 * rho)
        factor, info = torch.linalg.cholesky_ex(slack_matrix(data, rho, theta))
    alive = info == 0
    t = n / rho
    unit = torch.eye(data.size, dtype=slack.dtype, device=slack.device)
    moments = torch.zeros_like(slack)
    for _ in range(_MOST):
        if deadline.passed() or not bool(alive.any()):
            break
        inverse = torch.cholesky_inverse(torch.where(alive.view(-1, 1, 1), factor, unit))
        moments = torch.where(alive.view(-1, 1, 1), inverse, moments)
        direction, decrement = _newton(rows, inverse, columns, free, t)
        # Damped far from the centre, then as far as the point stays inside and the barrier falls.
        step = torch.where(decrement > 0.25, 1 / (1 + decrement), 1.0)
        step = torch.where(alive, step, 0.0)
        moved_rho, moved_theta = rho, theta
        for trial in range(4):
            moved_rho = rho + step * direction[:, 0]
            moved_theta = theta + step.unsqueeze(-1) * direction[:, 1:]
            new, info = torch.linalg.cholesky_ex(slack_matrix(data, moved_rho, moved_theta))
            out = (info != 0) | (moved_theta < 0).any(-1)
            if trial == 3:
                step = torch.where(out, 0.0, step)
            if not bool(out.any()):
                break
            step = torch.where(out, 0.5 * step, step)
        good = (alive & ~out).unsqueeze(-1)
        rho, theta = torch.where(good[:, 0], moved_rho, rho), torch.where(good, moved_theta, theta)
        factor = torch.where(good.unsqueeze(-1), new, factor)
        centred = alive & (decrement < _CENTRED)
        done = centred & (n / t <= tolerance * rho)
        if target is not None:
            done |= rho <= target
        # Outside and no longer moving, as Newton's decrement is a distance: nothing more comes of it.
        alive = alive & ~done & ~(out & (decrement < 1e-6))
        t = torch.where(centred & ~done, _GROWTH * t, t)
    # At the centre for t, M = P / t: then M_cc has trace 1.
    return rho, theta, moments / t.view(-1, 1, 1)


def _newton(rows: int, inverse: Tensor, columns: Tensor, free: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The direction in ``(rho, theta)`` (problems, 1 + n) and the decrement (problems,)."""
    pk = inverse @ columns
    kpk = columns.mT @ pk
    hessian = 2 * (inverse * kpk + pk * pk.mT) * free.unsqueeze(-1) * free.unsqueeze(-2)
    ends = inverse[:, :rows]  # P_c.
    cross = 2 * (ends * pk[:, :rows]).sum(1) * free
    corner = ends[:, :, :rows].square().sum((-2, -1))
    count, n = free.shape
    matrix = hessian.new_zeros(count, 1 + n, 1 + n)
    matrix[:, 0, 0], matrix[:, 0, 1:], matrix[:, 1:, 0] = corner, cross, cross
    matrix[:, 1:, 1:] = hessian
    matrix.diagonal(dim1=-2, dim2=-1)[:, 1:].add_(1 - free)
    pull = torch.cat(
        [ends.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True), 2 * pk.diagonal(dim1=-2, dim2=-1) * free], -1
    )
    pull[:, 0] -= t
    scaling = matrix.diagonal(dim1=-2, dim2=-1).clamp(min=DIVISOR).rsqrt()
    scaled = matrix * scaling.unsqueeze(-1) * scaling.unsqueeze(-2)
    # Some hundred roundoffs of the unit diagonal, for directions that only rounding tells from none.
    scaled.diagonal(dim1=-2, dim2=-1).add_(1e-13)
    factor, info = torch.linalg.cholesky_ex(scaled)
    usable = (info == 0).view(-1, 1)
    right = (pull * scaling).unsqueeze(-1)
    solved = torch.cholesky_solve(right, factor).squeeze(-1) * scaling
    direction = torch.where(usable, solved, 0.0)
    decrement = (direction * pull).sum(-1).clamp(min=0).sqrt()
    return direction, decrement
