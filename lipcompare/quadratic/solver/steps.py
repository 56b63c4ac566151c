"""Step lengths to the boundary of the cone: Lanczos for the matrices, closed forms for 2x2 blocks and scalars."""

from __future__ import annotations

import torch
from torch import Tensor

_EXHAUSTED = 1e-5  # relative size below which a Lanczos vector is rounding noise
_TINY = 1e-30  # what is smaller counts as zero; a normal number in both precisions
_FORMED = 64  # coordinates up to which the matrix of Lanczos is formed
_BLOCK = 48  # coordinates up to which a factor is inverted at once


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
    # Small matrices are multiplied once, so that a step is one product; large ones are multiplied with a vector only.
    formed = torch.bmm(torch.bmm(inverse, change), adjoint) if n <= _FORMED else None
    # Vectors are rows: a product of a batch of matrices with columns takes several times as long on a CPU.
    q = (probe / torch.linalg.vector_norm(probe, dim=-1, keepdim=True)).unsqueeze(-2)
    basis = q.new_empty(count, steps, n)
    tridiagonal = q.new_zeros(count, steps, steps)
    for j in range(steps):
        basis[:, j : j + 1] = q
        w = torch.bmm(q, formed) if formed is not None else torch.bmm(torch.bmm(torch.bmm(q, inverse), change), adjoint)
        before = basis[:, : j + 1]
        along = torch.bmm(w, before.mT)
        tridiagonal[:, j, j] = along[:, 0, -1]
        if j + 1 < steps:
            w = torch.baddbmm(w, along, before, alpha=-1)
            # Twice is enough: where eigenvalues crowd, as they do near the optimum, what one pass leaves grows a
            # hundredfold a step, and after ten of them there are Ritz values that no matrix has.
            w = torch.baddbmm(w, torch.bmm(w, before.mT), before, alpha=-1)
            size = torch.linalg.vector_norm(w, dim=-1, keepdim=True)
            if j == 0:
                least = _EXHAUSTED * torch.maximum(size, along.abs())
            # An exhausted space leaves rounding noise behind, which as a direction would have Ritz values of its own,
            # other ones in every batch. A zero adds the eigenvalue 0.
            live = size > least
            q = (w / size).masked_fill_(~live, 0.0)
            tridiagonal[:, j + 1, j] = (size * live)[:, 0, 0]
    sound = torch.isfinite(tridiagonal).flatten(1).all(-1)
    lowest: Tensor = torch.linalg.eigvalsh(tridiagonal.masked_fill_(~sound.view(-1, 1, 1), 0.0))[:, 0]
    limit = (-1 / lowest.clamp(max=-_TINY)).masked_fill_(lowest >= 0, torch.inf)
    return limit.masked_fill_(~sound, 0.0)


def inverse_factor(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The inverses of the Cholesky factors of ``matrix`` (..., n, n), and (...,) where it is positive definite.

    In blocks, so that most of the work are products: several times faster than one triangular solution.
    """
    n = matrix.shape[-1]
    if n <= _BLOCK:
        factor, info = torch.linalg.cholesky_ex(matrix)
        unit = torch.eye(n, dtype=matrix.dtype, device=matrix.device)
        inverse: Tensor = torch.linalg.solve_triangular(factor, unit, upper=False)
        return inverse, info == 0
    half = n // 2
    first, definite = inverse_factor(matrix[..., :half, :half])
    side = matrix[..., half:, :half] @ first.mT
    second, also = inverse_factor(matrix[..., half:, half:] - side @ side.mT)
    result = torch.zeros_like(matrix)
    result[..., :half, :half] = first
    result[..., half:, half:] = second
    torch.matmul(second, side @ first, out=result[..., half:, :half]).neg_()
    return result, definite & also


def scalar_limit(value: Tensor, change: Tensor) -> Tensor:
    """Largest step that keeps positive numbers positive, entry by entry."""
    return (-value / change.clamp(max=-_TINY)).masked_fill_(change >= 0, torch.inf)


def block_limit(a: Tensor, b: Tensor, c: Tensor, da: Tensor, db: Tensor, dc: Tensor) -> Tensor:
    """Largest step (...,) that keeps all 2x2 blocks [[a, b], [b, c]] of shape (..., J) positive definite."""
    if not a.shape[-1]:
        return a.new_full(a.shape[:-1], torch.inf)
    # det(t) = qa t^2 + qb t + qc is positive at 0; its first positive root in the form without cancellation.
    qa, qb, qc = da * dc - db * db, a * dc + c * da - 2 * b * db, a * c - b * b
    discriminant = qb * qb - 4 * qa * qc
    denominator = discriminant.clamp(min=0).sqrt() - qb
    missing = (discriminant < 0) | (denominator <= 0)
    root = (2 * qc / denominator.clamp(min=_TINY)).masked_fill_(missing, torch.inf)
    return torch.minimum(root, scalar_limit(a, da)).amin(-1)
