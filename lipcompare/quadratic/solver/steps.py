"""Step lengths to the boundary of the cone: Lanczos for the matrices, closed forms for 2x2 blocks and scalars."""

from __future__ import annotations

import torch
from torch import Tensor

_EXHAUSTED = 1e-5  # relative size below which a Lanczos vector is rounding noise


def matrix_limit(inverse: Tensor, change: Tensor, probe: Tensor, steps: int) -> Tensor:
    """Estimate of the largest ``t`` with ``A + t change`` positive semidefinite, ``A^-1 = inverse' inverse``.

    ``t = -1 / lambda_min(inverse change inverse')``. Lanczos approaches that eigenvalue from above, so the estimate
    is slightly too long; the caller keeps away from the boundary and checks (Toh, SIAM J. Optim. 12, 2002).

    Args:
        inverse: (problems, n, n) the inverse of A's Cholesky factor.
        change: (problems, n, n).
        probe: (problems, n) start vector; it has to be the same however a problem is batched.

    Returns:
        Tensor (problems,), inf where no step leaves the cone.
    """
    count, n = probe.shape
    steps = min(steps, n)
    adjoint = inverse.mT
    # Vectors are rows: a product of a batch of matrices with columns takes several times as long on a CPU.
    q = (probe / torch.linalg.vector_norm(probe, dim=-1, keepdim=True)).unsqueeze(-2)
    basis = q.new_empty(count, steps, n)
    middle, beside = [], []  # the tridiagonal matrix, each (problems, 1, 1)
    for j in range(steps):
        basis[:, j : j + 1] = q
        w = torch.bmm(torch.bmm(torch.bmm(q, inverse), change), adjoint)
        known = basis[:, : j + 1]
        along = torch.bmm(w, known.mT)
        middle.append(along[..., -1:])
        if j + 1 < steps:
            w = torch.baddbmm(w, along, known, alpha=-1)
            size = torch.linalg.vector_norm(w, dim=-1, keepdim=True)
            if j == 0:
                least = _EXHAUSTED * torch.maximum(size, along.abs())
            # An exhausted space leaves rounding noise behind, which as a direction would have Ritz values of its own,
            # other ones in every batch. A zero adds the eigenvalue 0.
            live = size > least
            q = (w / size).masked_fill_(~live, 0.0)
            beside.append(size * live)
    tridiagonal = torch.cat(middle, -1).squeeze(-2).diag_embed()
    if beside:
        tridiagonal.diagonal(-1, -2, -1).copy_(torch.cat(beside, -1).squeeze(-2))
    sound = torch.isfinite(tridiagonal).flatten(1).all(-1)
    lowest: Tensor = torch.linalg.eigvalsh(tridiagonal.masked_fill_(~sound.view(-1, 1, 1), 0.0))[:, 0]
    limit = (-1 / lowest.clamp(max=-1e-300)).masked_fill_(lowest >= 0, torch.inf)
    return limit.masked_fill_(~sound, 0.0)


def scalar_limit(value: Tensor, change: Tensor) -> Tensor:
    """Largest step that keeps positive numbers positive, entry by entry."""
    return (-value / change.clamp(max=-1e-300)).masked_fill_(change >= 0, torch.inf)


def block_limit(a: Tensor, b: Tensor, c: Tensor, da: Tensor, db: Tensor, dc: Tensor) -> Tensor:
    """Largest step (...,) that keeps all 2x2 blocks [[a, b], [b, c]] of shape (..., J) positive definite."""
    if not a.shape[-1]:
        return a.new_full(a.shape[:-1], torch.inf)
    # det(t) = qa t^2 + qb t + qc is positive at 0; its first positive root in the form without cancellation.
    qa, qb, qc = da * dc - db * db, a * dc + c * da - 2 * b * db, a * c - b * b
    discriminant = qb * qb - 4 * qa * qc
    denominator = discriminant.clamp(min=0).sqrt() - qb
    missing = (discriminant < 0) | (denominator <= 0)
    root = (2 * qc / denominator.clamp(min=1e-300)).masked_fill_(missing, torch.inf)
    return torch.minimum(root, scalar_limit(a, da)).amin(-1)
