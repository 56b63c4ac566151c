"""Cuts as columns: products of forms, the most violated ones, and what a round keeps."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lipcompare.quadratic.cuts.forms import Forms
from lipcompare.quadratic.program import Cuts, SdpData

_USEFUL = 1e-4  # multipliers of a smaller relative size do nothing
_VIOLATION = 1e-5  # relative to the size of the moments; smaller ones are not worth a cut


def products(data: SdpData, f: Forms, g: Forms, mask: Tensor, equal: Tensor) -> Cuts:
    """Products of forms with each other, one by one.

    Args:
        mask, equal: (problems, forms) products that exist, and those that are 0 rather than not negative.
    """
    limit = data.limit.unsqueeze(1)
    most_f, most_g = ((limit @ form.columns.abs()).squeeze(1) + form.error for form in (f, g))
    slack = f.error * most_g + g.error * most_f
    exists = mask.unsqueeze(1)
    return Cuts(left=f.columns * exists, right=g.columns * exists, mask=mask, equal=equal & mask, slack=slack * mask)


def useful(cuts: Cuts, nu: Tensor, most: int) -> Cuts:
    """The ``most`` with the largest multipliers ``nu`` (problems, cuts), without those that do nothing."""
    return cuts.where(weighty(nu.masked_fill(~cuts.mask, 0.0), most)) if cuts.count else cuts


def weighty(nu: Tensor, most: int) -> Tensor:
    """The ``most`` largest multipliers (problems, cuts), without those that do nothing; there is at least one cut."""
    least = nu.topk(min(most, nu.shape[-1]), dim=-1).values[:, -1:]
    return (nu > _USEFUL * nu.amax(-1, keepdim=True)) & (nu >= least)


def separate(data: SdpData, moments: Tensor, forms: Forms, allowed: Tensor, count: int) -> Cuts:
    """The ``count`` most violated products of two forms per problem.

    Args:
        moments: (problems, n, n) the point to cut off.
        allowed: (groups, groups) pairs of :class:`~lipcompare.quadratic.cuts.forms.Group` to multiply, symmetric.
    """
    f, g, violated = most_violated_pairs(moments, forms, allowed, count)
    return products_of(data, forms, f, g, violated)


def most_violated_pairs(moments: Tensor, forms: Forms, allowed: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two forms of each of those products, and where there is one: (problems, count) each."""
    value = forms.columns.mT @ moments @ forms.columns
    total = forms.count
    pairs = allowed[forms.group][:, forms.group] & torch.ones(total, total, device=value.device).tril().bool()
    value.masked_fill_(~pairs, 0.0)
    lowest, index = value.flatten(1).topk(min(count, total * total), dim=-1, largest=False)
    return index // total, index % total, lowest < -_VIOLATION * _size(moments)


def products_of(data: SdpData, forms: Forms, first: Tensor, second: Tensor, mask: Tensor) -> Cuts:
    """Products of the forms at ``first`` and ``second`` (problems, count) that are not negative, where ``mask`` is."""
    return products(data, _taken(forms, first), _taken(forms, second), mask, torch.zeros_like(mask))


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
