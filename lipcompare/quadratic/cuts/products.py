"""Cuts as columns: products of forms, the most violated ones, and what a round keeps."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lipcompare.quadratic.cuts.forms import Forms
from lipcompare.quadratic.program import SdpData, no_cuts

_USEFUL = 1e-4  # multipliers of a smaller relative size do nothing
_VIOLATION = 1e-5  # relative to the size of the moments; smaller ones are not worth a cut


@dataclasses.dataclass(frozen=True, eq=False)
class Cuts:
    """``f' M g >= 0``, or ``= 0``, for a batch of problems.

    Attributes:
        left, right: (problems, n, cuts) the ``f`` and ``g``; 0 where a problem has fewer.
        mask: (problems, cuts) those that exist.
        equal: (problems, cuts) equations.
        slack: (problems, cuts) what rounding may take from ``(f' w)(g' w)``.
    """

    left: Tensor
    right: Tensor
    mask: Tensor
    equal: Tensor
    slack: Tensor

    @classmethod
    def of(cls, data: SdpData, f: Forms, g: Forms, mask: Tensor, equal: Tensor) -> Cuts:
        """Products of forms with each other, one by one."""
        limit = data.limit.unsqueeze(1)
        most_f, most_g = ((limit @ form.columns.abs()).squeeze(1) + form.error for form in (f, g))
        slack = f.error * most_g + g.error * most_f
        there = mask.unsqueeze(1)
        return cls(f.columns * there, g.columns * there, mask, equal & mask, slack * mask)

    @classmethod
    def none(cls, data: SdpData) -> Cuts:
        return cls(*no_cuts(data.columns))

    @property
    def count(self) -> int:
        return int(self.mask.shape[1])

    def __add__(self, other: Cuts) -> Cuts:
        names = [f.name for f in dataclasses.fields(self)]
        return Cuts(*(torch.cat([getattr(self, name), getattr(other, name)], -1) for name in names))

    def where(self, keep: Tensor) -> Cuts:
        """Those marked in ``keep`` (problems, cuts), moved to the front, as wide as the problem with most needs."""
        keep = keep & self.mask
        width = int(keep.sum(-1).max()) if len(keep) else 0
        order = torch.argsort((~keep).to(torch.uint8), dim=-1, stable=True)[:, :width]
        wide = order.unsqueeze(1).expand(-1, self.left.shape[1], -1)
        mask = keep.gather(-1, order)
        there = mask.unsqueeze(1)
        return Cuts(
            self.left.gather(-1, wide) * there, self.right.gather(-1, wide) * there, mask,
            self.equal.gather(-1, order) & mask, self.slack.gather(-1, order) * mask,
        )  # fmt: skip

    def useful(self, nu: Tensor, most: int) -> Cuts:
        """The ``most`` with the largest multipliers ``nu`` (problems, cuts), without those that do nothing."""
        if not self.count:
            return self
        size = nu.masked_fill(~self.mask, 0.0)
        least = size.topk(min(most, self.count), dim=-1).values[:, -1:]
        return self.where((size > _USEFUL * size.amax(-1, keepdim=True)) & (size >= least))

    def value(self, moments: Tensor) -> Tensor:
        """``f' M g`` of every cut, (problems, cuts)."""
        return ((moments @ self.left) * self.right).sum(-2)

    def grown(self, size: int) -> Cuts:
        """The same cuts over ``size`` coordinates, of which those at the end are new."""
        more = (0, 0, 0, size - self.left.shape[1])
        pad = torch.nn.functional.pad
        return dataclasses.replace(self, left=pad(self.left, more), right=pad(self.right, more))

    def into(self, data: SdpData) -> SdpData:
        """Problems with these cuts."""
        return data.with_cuts(self.left, self.right, self.mask, self.equal, self.slack)


def separate(data: SdpData, moments: Tensor, forms: Forms, allowed: Tensor, count: int) -> Cuts:
    """The ``count`` most violated products of two forms per problem.

    Args:
        moments: (problems, n, n) the point to cut off.
        allowed: (groups, groups) pairs of :class:`~lipcompare.quadratic.cuts.forms.Group` to multiply, symmetric.
    """
    value = forms.columns.mT @ moments @ forms.columns
    total = forms.count
    pairs = allowed[forms.group][:, forms.group] & torch.ones(total, total, device=value.device).tril().bool()
    value.masked_fill_(~pairs, 0.0)
    lowest, index = value.flatten(1).topk(min(count, total * total), dim=-1, largest=False)
    found = lowest < -_VIOLATION * _size(moments)
    f, g = (_taken(forms, part) for part in (index // total, index % total))
    return Cuts.of(data, f, g, found, torch.zeros_like(found))


def most_violated(moments: Tensor, equations: Cuts, count: int) -> Cuts:
    """The ``count`` equations per problem that the moments (problems, n, n) violate most."""
    if equations.count <= count:
        return equations
    value = equations.value(moments).abs() * equations.mask
    least = value.topk(count, dim=-1).values[:, -1:]
    return equations.where(value >= least)


def _size(moments: Tensor) -> Tensor:
    return moments.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)


def _taken(forms: Forms, index: Tensor) -> Forms:
    """Forms at ``index`` (problems, count)."""
    wide = index.unsqueeze(1).expand(-1, forms.columns.shape[1], -1)
    return dataclasses.replace(forms, columns=forms.columns.gather(-1, wide), error=forms.error.gather(-1, index))
