"""The Newton system of one iterate: HKM direction, signs and trace eliminated in blocks.

``P`` is ``S^-1``; ``K`` and ``G`` are the matrices with columns ``k_i`` and ``g_j``. The Newton matrix consists of
entrywise products of ``M``, ``P``, ``K' M K``, ``K' P K`` and the like (docs/quadratic-gates.md), so it costs a handful
of dense products and a Cholesky factorisation; only its lower triangle is filled in.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lipcompare.quadratic.solver.iterate import Iterate, inner
from lipcompare.quadratic.solver.products import Products

_RIDGE = 1e-14  # on the scaled diagonal: equations that a start satisfies to rounding may be dependent


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """A direction in all variables, shaped like :class:`~lipcompare.quadratic.solver.iterate.Iterate`."""

    y: Tensor
    tau: Tensor
    blocks: Tensor
    slacks: Tensor
    matrices: Tensor
    product: Tensor  # (problems, n, n) dS P


class NewtonSystem:
    """The factored Newton system at one iterate; directions are taken from it twice."""

    def __init__(self, iterate: Iterate) -> None:
        self.iterate = iterate
        self.coefficients = c = iterate.coefficients
        self.products = Products(c)
        self.p: Tensor = iterate.inverses[1].mT @ iterate.inverses[1]
        self.pk = self.products.right(self.p)
        self.gp = c.g @ self.p  # G' P
        self.inverse_scalars = (1 / iterate.scalars).masked_fill(c.pairs == 0, 0.0)
        self._eliminate_blocks()
        self._factor(self._matrix())

    def _eliminate_blocks(self) -> None:
        """The 2x2 blocks ``Q = [[tau, -1/2], [-1/2, lam]]^-1`` and what eliminating ``tau`` leaves of them."""
        tau, lam, (x11, x12, x22) = self.iterate.tau, self.iterate.lam, self.iterate.blocks
        determinant = tau * lam - 0.25
        self.q11, self.q12, self.q22 = lam / determinant, 0.5 / determinant, tau / determinant
        self.a11, self.a12 = x11 * self.q11, x12 * self.q12
        self.ratio = self.a12 / self.a11
        self.block_diagonal = torch.addcmul(x22 * self.q22, self.a12, self.ratio, value=-1) + (
            1 - self.coefficients.signs
        )

    def _matrix(self) -> Tensor:
        """The lower triangle of the Newton matrix (problems, n + J + 1 + cuts, ...); what is above it is undefined."""
        c, (m, _), p = self.coefficients, self.iterate.matrices, self.p
        n, trace = c.size, c.size + c.sign_count
        total = trace + 1 + c.cut_count
        matrix: Tensor = m.new_empty(len(m), total, total)
        mk = self.products.right(m)
        self._gates_by_gates(matrix[:, :n, :n], mk)
        # Gates and the trace: row sums of M o (PK)' and column sums of (MK) o P.
        torch.add((m * self.pk.mT).sum(-1), (mk * p).sum(-2), out=matrix[:, trace, :n])
        matrix[:, trace, trace] = inner(m, p) - c.absent
        pull_signs = c.signs
        if c.sign_count:
            gm = c.g @ m
            self._signs(matrix, gm)
            pull_signs = matrix_diagonal(self.gp @ c.g.mT)
        pull_cuts = c.cuts
        if c.cut_count:
            pull_cuts = self._cuts(matrix)
        diagonal = matrix.diagonal(dim1=-2, dim2=-1)
        diagonal[:, :n] += c.free
        diagonal[:, n:trace] += self.block_diagonal
        diagonal[:, trace:] += torch.addcmul(
            torch.nn.functional.pad(1 - c.cuts, (1, 0)), self.iterate.slacks, self.inverse_scalars
        )
        # <A, P> of every constraint: what mu pulls at.
        pull_trace = matrix_diagonal(p).sum(-1, keepdim=True) - c.absent.unsqueeze(-1)
        self.pull = torch.cat([2 * matrix_diagonal(self.pk), -pull_signs, pull_trace, -2 * pull_cuts], -1)
        return matrix

    def _gates_by_gates(self, out: Tensor, mk: Tensor) -> None:
        """``(MK) o (PK)' + (PK) o (MK)' + M o (K'PK) + (K'MK) o P``."""
        half = mk * self.pk.mT
        torch.add(half, half.mT, out=out)
        out.addcmul_(self.iterate.matrices[0], self.products.left(self.pk))
        out.addcmul_(self.products.left(mk), self.p)

    def _signs(self, matrix: Tensor, gm: Tensor) -> None:
        """Rows of signs: ``-[(G'M) o (G'PK) + (G'MK) o (G'P)]`` with gates, ``(G'MG) o (G'PG)`` with signs."""
        c, gp = self.coefficients, self.gp
        n, trace = c.size, c.size + c.sign_count
        cross = torch.mul(gm, self.products.right(gp), out=matrix[:, n:trace, :n])
        cross.addcmul_(self.products.right(gm), gp).neg_()
        torch.mul(gm @ c.g.mT, gp @ c.g.mT, out=matrix[:, n:trace, n:trace])
        matrix[:, trace, n:trace] = -(gm * gp).sum(-1)

    def _cuts(self, matrix: Tensor) -> Tensor:
        """Rows of cuts, ``A_c = -(f g' + g f')``; returns ``f' P g`` (problems, cuts)."""
        c, (m, _), p = self.coefficients, self.iterate.matrices, self.p
        f, g = c.left, c.right
        n, trace = c.size, c.size + c.sign_count
        fm, gm, fp, gp = f @ m, g @ m, f @ p, g @ p
        fpg = fp @ g.mT
        half = (fm @ g.mT) * fpg.mT
        block = matrix[:, trace + 1 :, trace + 1 :]
        torch.add(half, half.mT, out=block)
        block.addcmul_(fm @ f.mT, gp @ g.mT).addcmul_(gm @ g.mT, fp @ f.mT)
        right = self.products.right
        gates = torch.mul(right(fm), gp, out=matrix[:, trace + 1 :, :n])
        gates.addcmul_(right(gm), fp).addcmul_(fm, right(gp)).addcmul_(gm, right(fp)).neg_()
        if c.sign_count:
            e = c.g.mT
            signs = torch.mul(fm @ e, gp @ e, out=matrix[:, trace + 1 :, n:trace])
            signs.addcmul_(gm @ e, fp @ e)
        matrix[:, trace + 1 :, trace] = -torch.addcmul(gp * fm, fp, gm).sum(-1)
        return matrix_diagonal(fpg)

    def _factor(self, matrix: Tensor) -> None:
        """Scale to a unit diagonal and factor."""
        diagonal = matrix.diagonal(dim1=-2, dim2=-1)
        # Coordinates that a problem lacks have no diagonal; below that others have lost theirs in single precision.
        self.scaling = diagonal.clamp(min=1e-30).rsqrt()
        matrix.mul_(self.scaling.unsqueeze(-1)).mul_(self.scaling.unsqueeze(-2))
        diagonal += _RIDGE
        self.factor, info = torch.linalg.cholesky_ex(matrix)
        self.healthy = info == 0

    def predictor(self) -> Step:
        """The direction to the boundary, ``mu = 0``."""
        c = self.coefficients
        zero = torch.zeros_like
        right = torch.cat([-c.b, zero(c.signs), -c.trace.unsqueeze(-1), zero(c.cuts)], -1)
        first = -torch.ones_like(self.iterate.tau)
        return self._direction(right, first, None)

    def corrector(self, mu: Tensor, aff: Step) -> Step:
        """The direction to the central path at ``mu`` (problems,) with the second-order terms of the predictor."""
        c = self.coefficients
        n, trace, towards = c.size, c.size + c.sign_count, mu.unsqueeze(-1)
        mean = _symmetric(aff.matrices[0] @ aff.product)
        dtau, dlam, (d11, d12, d22) = aff.tau, aff.y[:, n:trace], aff.blocks
        r11 = torch.addcmul(d11 * dtau * self.q11, d12 * dlam, self.q12)
        r22 = torch.addcmul(d12 * dtau * self.q12, d22 * dlam, self.q22)
        r12 = 0.5 * (dtau * (d11 * self.q12 + d12 * self.q11) + dlam * (d12 * self.q22 + d22 * self.q12))
        bent = aff.slacks * aff.y[:, trace:] * self.inverse_scalars
        first = towards * self.q11 - 1 - r11
        # The images of the second-order matrix term under all constraints.
        images = [2 * (mean * c.k).sum(-2), -((c.g @ mean) * c.g).sum(-1), matrix_diagonal(mean).sum(-1, keepdim=True)]
        if c.cut_count:
            images.append(-2 * ((c.left @ mean) * c.right).sum(-1))
        right = towards * self.pull - torch.cat(images, -1)
        right[:, :n] -= c.b
        right[:, n:trace] += towards * self.q22 - r22
        right[:, trace] -= c.trace
        right[:, trace:] += towards * self.inverse_scalars - bent
        second = _Second(
            mean,
            torch.stack([towards * self.q11 - r11, towards * self.q12 - r12, towards * self.q22 - r22]),
            towards * self.inverse_scalars - bent,
            mu,
        )
        return self._direction(right, first, second)

    def _direction(self, right: Tensor, first: Tensor, second: _Second | None) -> Step:
        """Solve for the multipliers, and follow them to all other variables."""
        c, it = self.coefficients, self.iterate
        n, trace = c.size, c.size + c.sign_count
        right[:, n:trace] = (right[:, n:trace] - self.ratio * first) * c.signs
        right[:, trace + 1 :] *= c.cuts
        dy = torch.cholesky_solve((right * self.scaling).unsqueeze(-1), self.factor).squeeze(-1) * self.scaling
        dlam, scalars = dy[:, n:trace], dy[:, trace:]
        dtau = torch.addcmul(first, self.a12, dlam, value=-1) / self.a11 * c.signs
        change = torch.empty_like(it.matrices)
        product = self._change_of_slack(dy, change[1])
        moved = it.matrices[0] @ product
        dm = torch.add(moved, moved.mT, out=change[0]).mul_(-0.5).sub_(it.matrices[0])
        # sym(X dZ Q), dZ = diag(dtau, dlam)
        x11, x12, x22 = it.blocks
        d11 = dtau * self.a11 + dlam * self.a12
        d22 = dtau * (x12 * self.q12) + dlam * (x22 * self.q22)
        d12 = 0.5 * (dtau * (x11 * self.q12 + x12 * self.q11) + dlam * (x12 * self.q22 + x22 * self.q12))
        blocks = torch.stack([d11, d12, d22]).add_(it.blocks).neg_()
        slacks = -torch.addcmul(it.slacks, it.slacks * self.inverse_scalars, scalars)
        if second is not None:
            dm.sub_(second.mean).addcmul_(second.mu.view(-1, 1, 1), self.p)
            blocks += second.blocks
            slacks += second.slacks
        matrix_diagonal(dm).mul_(c.present)
        return Step(y=dy, tau=dtau, blocks=blocks, slacks=slacks, matrices=change, product=product)

    def _change_of_slack(self, dy: Tensor, out: Tensor) -> Tensor:
        """``dS`` into ``out``, and returns ``dS P``; with many zero blocks in ``K`` cheaper from its parts."""
        c, p = self.coefficients, self.p
        n, trace = c.size, c.size + c.sign_count
        dtheta, dlam, dd, dnu = dy[:, :n], dy[:, n:trace], dy[:, trace], dy[:, trace + 1 :]
        half = c.k * dtheta.unsqueeze(-2)
        torch.add(half, half.mT, out=out)
        weighted = (c.g * -dlam.unsqueeze(-1)).mT
        if c.sign_count:
            out.baddbmm_(weighted, c.g)
        if c.cut_count:
            cuts = (c.left * dnu.unsqueeze(-1)).mT @ c.right
            out.sub_(cuts).sub_(cuts.mT)
        trace_part = dd.unsqueeze(-1) * c.present
        matrix_diagonal(out).add_(trace_part)
        if not self.products.sparse or c.cut_count or c.sign_count > n:
            return out @ p
        result = self.products.from_left(p * dtheta.unsqueeze(-1))
        result.addcmul_(self.pk.mT, dtheta.unsqueeze(-1))
        if c.sign_count:
            result.baddbmm_(weighted, self.gp)
        # Absent coordinates: dS has zero rows there, and P is the identity.
        return result.addcmul_(p, trace_part.unsqueeze(-1))


@dataclasses.dataclass(frozen=True, eq=False)
class _Second:
    """What the corrector adds to the direction of the primal variables."""

    mean: Tensor  # sym(dM dS P) of the predictor
    blocks: Tensor
    slacks: Tensor
    mu: Tensor


def matrix_diagonal(matrix: Tensor) -> Tensor:
    """The diagonals (..., n) of matrices (..., n, n), as a view."""
    result: Tensor = matrix.diagonal(dim1=-2, dim2=-1)
    return result


def _symmetric(a: Tensor) -> Tensor:
    return (a + a.mT).mul_(0.5)
