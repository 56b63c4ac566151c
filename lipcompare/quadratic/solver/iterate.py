"""Iterates of the interior point method, and the coefficients of the problems still running, in one precision.

The multipliers of a problem stand side by side in one row ``y = (theta, lam, d, nu)``, as the Newton system has them;
``M`` and ``S`` stand in one tensor, as most of what is done to one is done to the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from lipcompare.quadratic.program import SdpData


@dataclasses.dataclass(frozen=True, eq=False)
class Coefficients:
    """What an iteration needs of :class:`~lipcompare.quadratic.program.SdpData`; names as in docs/quadratic-gates.md.

    Attributes:
        k: (problems, n, n) ``K``, the ``k_i`` as columns.
        g: (problems, J, n) ``G'``, the ``g_j`` as rows: thin products are several times faster that way.
        left, right: (problems, cuts, n) the ``f`` and ``g`` of cuts as rows.
        b: (problems, n) right-hand sides of the gates' equations.
        present, signs, cuts: (problems, n), (problems, J), (problems, cuts), 1 for what a problem has, 0 for padding.
        free: (problems, n) 1 for coordinates without an equation.
        pairs: (problems, 1 + cuts) 1 for ``d`` and for the cuts that are inequalities: those with a slack.
        probe: (problems, n) start vector of Lanczos.
        trace: (problems,) where the solver cuts off the trace.
        bound: (problems,) what is proved of the trace.
        scale, offset: (problems,) of :class:`~lipcompare.quadratic.program.SdpData`.
        ranges: coordinates of one activation node each.
    """

    k: Tensor
    g: Tensor
    left: Tensor
    right: Tensor
    b: Tensor
    present: Tensor
    signs: Tensor
    cuts: Tensor
    free: Tensor
    pairs: Tensor
    probe: Tensor
    trace: Tensor
    bound: Tensor
    scale: Tensor
    offset: Tensor
    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, data: SdpData, dtype: torch.dtype) -> Coefficients:
        cuts, signs = data.cuts, data.entry_mask
        one = torch.ones_like(data.mask[:, :1])
        return cls(
            k=data.columns.to(dtype),
            g=data.entries.mT.to(dtype, memory_format=torch.contiguous_format),
            left=cuts.left.mT.to(dtype, memory_format=torch.contiguous_format),
            right=cuts.right.mT.to(dtype, memory_format=torch.contiguous_format),
            b=data.right.to(dtype),
            present=data.mask.to(dtype),
            signs=signs.to(dtype),
            cuts=cuts.mask.to(dtype),
            free=(~data.equations).to(dtype),
            pairs=torch.cat([one, cuts.mask & ~cuts.equal], -1).to(dtype),
            probe=data.probe.to(dtype),
            trace=data.trace.to(dtype),
            bound=data.bound.to(dtype),
            scale=data.scale.to(dtype),
            offset=data.offset.to(dtype),
            ranges=data.ranges,
        )

    @property
    def size(self) -> int:
        return int(self.k.shape[-1])

    @property
    def sign_count(self) -> int:
        return int(self.g.shape[1])

    @property
    def cut_count(self) -> int:
        return int(self.left.shape[1])

    @cached_property
    def absent(self) -> Tensor:
        """Coordinates that a problem does not have, (problems,): both matrices hold a 1 there."""
        return self.size - self.present.sum(-1)

    @cached_property
    def order(self) -> Tensor:
        """Barrier parameter of the whole cone, (problems,)."""
        return self.present.sum(-1) + 2 * self.signs.sum(-1) + self.pairs.sum(-1)

    @cached_property
    def linear(self) -> Tensor:
        """Coefficients (problems, n + J + 1 + cuts) of the dual objective on ``y``, but for ``sum_j 1/(4 lam_j)``."""
        zero = torch.zeros_like
        return torch.cat([self.b, zero(self.signs), self.bound.unsqueeze(-1), zero(self.cuts)], -1)

    def select(self, index: Tensor) -> Coefficients:
        names = [f.name for f in dataclasses.fields(self) if f.name != "ranges"]
        return Coefficients(ranges=self.ranges, **{name: getattr(self, name).index_select(0, index) for name in names})


@dataclasses.dataclass(frozen=True, eq=False)
class Iterate:
    """Primal and dual variables of the problems still running.

    Attributes:
        y: (problems, n + J + 1 + cuts) ``theta``, ``lam``, ``d`` and ``nu``.
        tau: (problems, J) the 2x2 dual blocks are ``[[tau, -1/2], [-1/2, lam]]``.
        blocks: (3, problems, J) entries 11, 12 and 22 of the 2x2 primal blocks.
        slacks: (problems, 1 + cuts) of the trace constraint and of the cuts; 0 for equations.
        matrices: (2, problems, n, n) ``M`` and ``S``.
        inverses: (2, problems, n, n) inverses of their Cholesky factors.
        infeasible: (problems,) what is left of the first primal infeasibility.
        caution: (2, problems) factor on the steps of ``M`` and ``S``: below 1 after one that left the cone.
    """

    coefficients: Coefficients
    y: Tensor
    tau: Tensor
    blocks: Tensor
    slacks: Tensor
    matrices: Tensor
    inverses: Tensor
    infeasible: Tensor
    caution: Tensor

    @property
    def theta(self) -> Tensor:
        return self.y[:, : self.coefficients.size]

    @property
    def lam(self) -> Tensor:
        n = self.coefficients.size
        return self.y[:, n : n + self.coefficients.sign_count]

    @property
    def d(self) -> Tensor:
        return self.y[:, self.coefficients.size + self.coefficients.sign_count]

    @property
    def scalars(self) -> Tensor:
        """``d`` and ``nu``, what the slacks are paired with, (problems, 1 + cuts)."""
        return self.y[:, self.coefficients.size + self.coefficients.sign_count :]

    @cached_property
    def complementarity(self) -> Tensor:
        """``<M, S> + sum_j <X_j, Z_j> + s d + sum_c x_c nu_c``, (problems,)."""
        c = self.coefficients
        total = inner(self.matrices[0], self.matrices[1]) - c.absent + (self.slacks * self.scalars).sum(-1)
        x11, x12, x22 = self.blocks
        return total + (torch.addcmul(x11 * self.tau - x12, x22, self.lam) * c.signs).sum(-1)

    def select(self, index: Tensor) -> Iterate:
        def of(value: Tensor, axis: int) -> Tensor:
            return value.index_select(axis, index)

        return Iterate(
            coefficients=self.coefficients.select(index),
            y=of(self.y, 0),
            tau=of(self.tau, 0),
            blocks=of(self.blocks, 1),
            slacks=of(self.slacks, 0),
            matrices=of(self.matrices, 1),
            inverses=of(self.inverses, 1),
            infeasible=of(self.infeasible, 0),
            caution=of(self.caution, 1),
        )


def inner(a: Tensor, b: Tensor) -> Tensor:
    """``<a, b>`` of matrices (problems, n, n): (problems,)."""
    result: Tensor = torch.linalg.vecdot(a.flatten(1), b.flatten(1))
    return result


def joined(iterates: Sequence[Iterate]) -> Iterate:
    """The problems of several iterates, one after another."""
    each = [i.coefficients for i in iterates]
    names = [f.name for f in dataclasses.fields(Coefficients) if f.name != "ranges"]
    coefficients = Coefficients(
        ranges=each[0].ranges, **{name: torch.cat([getattr(c, name) for c in each]) for name in names}
    )
    return Iterate(
        coefficients=coefficients,
        y=torch.cat([i.y for i in iterates]),
        tau=torch.cat([i.tau for i in iterates]),
        blocks=torch.cat([i.blocks for i in iterates], 1),
        slacks=torch.cat([i.slacks for i in iterates]),
        matrices=torch.cat([i.matrices for i in iterates], 1),
        inverses=torch.cat([i.inverses for i in iterates], 1),
        infeasible=torch.cat([i.infeasible for i in iterates]),
        caution=torch.cat([i.caution for i in iterates], 1),
    )
