"""Step lengths to the boundary of the cone: Lanczos for the matrices, closed forms for 2x2 blocks and scalars."""

from __future__ import annotations

import torch
from torch import Tensor


def matrix_limit(factor: Tensor, change: Tensor, probe: Tensor, steps: int) -> Tensor:
    """Estimate of the largest ``t`` with ``A + t change`` positive semidefinite, ``A = factor factor'``.

    ``t = -1 / lambda_min(factor^-1 change factor^-T)``. Lanczos approaches that eigenvalue from above, so the estimate
    is slightly too long; the caller keeps away from the boundary and checks (Toh, SIAM J. Optim. 12, 2002).

    Args:
        factor, change: (problems, n, n).
        probe: (problems, n) start vector; it has to be the same however a problem is batched.

    Returns:
        Tensor (problems,), inf where no step leaves the cone.
    """
    count, n = probe.shape
    steps = min(steps, n)
    upper = factor.mT
    q = (probe / torch.linalg.vector_norm(probe, dim=-1, keepdim=True)).unsqueeze(-1)
    basis = q.new_empty(count, n, steps)
    diagonal, beside = [], []
    for j in range(steps):
        basis[..., j : j + 1] = q
        w = torch.linalg.solve_triangular(upper, q, upper=True)
        w = torch.linalg.solve_triangular(factor, change @ w, upper=False)
        known = basis[..., : j + 1]
        along = known.mT @ w
        diagonal.append(along[:, j, 0])
        if j + 1 < steps:
            w = torch.baddbmm(w, known, along, alpha=-1)
            # An exhausted space leaves rounding noise behind, at an off-diagonal entry of its size: harmless.
            size = torch.linalg.vector_norm(w, dim=1, keepdim=True).clamp_(min=1e-200)
            beside.append(size[:, 0, 0])
            q = w / size
    tridiagonal = torch.diag_embed(torch.stack(diagonal, -1))
    if beside:
        tridiagonal.diagonal(offset=-1, dim1=-2, dim2=-1).copy_(torch.stack(beside, -1))
    sound = torch.isfinite(tridiagonal).flatten(1).all(-1)
    lowest = torch.linalg.eigvalsh(torch.where(sound.view(-1, 1, 1), tridiagonal, 0.0))[:, 0]
    return torch.where(sound, torch.where(lowest < 0, -1 / lowest.clamp(max=-1e-300), torch.inf), 0.0)


def scalar_limit(value: Tensor, change: Tensor) -> Tensor:
    """Largest step that keeps positive numbers positive, entry by entry."""
    return torch.where(change < 0, -value / change.clamp(max=-1e-300), torch.inf)


def block_limit(a: Tensor, b: Tensor, c: Tensor, da: Tensor, db: Tensor, dc: Tensor) -> Tensor:
    """Largest step (problems,) that keeps all 2x2 blocks [[a, b], [b, c]] of shape (problems, J) positive definite."""
    if not a.shape[-1]:
        return a.new_full(a.shape[:-1], torch.inf)
    # det(t) = qa t^2 + qb t + qc is positive at 0; its first positive root in the form without cancellation.
    qa, qb, qc = da * dc - db * db, a * dc + c * da - 2 * b * db, a * c - b * b
    discriminant = qb * qb - 4 * qa * qc
    denominator = discriminant.clamp(min=0).sqrt() - qb
    exists = (discriminant >= 0) & (denominator > 0)
    root = torch.where(exists, 2 * qc / denominator.clamp(min=1e-300), torch.inf)
    return torch.minimum(root, scalar_limit(a, da)).amin(-1)
