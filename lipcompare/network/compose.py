"""Products and sums of linear maps, written as one simple map where that is cheap.

``compose(A, B)`` is ``A B``. Adjacent factors are fused by the rules of :data:`RULES`; what no rule fuses stays a
:class:`~lipcompare.network.linear_maps.Composed`. A new pair of classes is one function with its types.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from lipcompare.network.linear_maps import (
    Composed,
    Conv,
    Dense,
    Identity,
    LinearMap,
    Scale,
    Select,
    Transposed,
)

_LARGEST_MATRIX = 4_000_000  # entries; a product is never written out as a matrix larger than this


def cost(m: LinearMap) -> int:
    """Multiply-adds (or moves) that one application takes."""
    if isinstance(m, Identity):
        return 0
    if isinstance(m, Dense):
        return m.weight.numel() * m.blocks
    if isinstance(m, Conv):
        return m.out_size * math.prod(m.weight.shape[1:])
    if isinstance(m, Transposed):
        return cost(m.base)
    if isinstance(m, Composed):
        return cost(m.outer) + cost(m.inner)
    return max(m.in_size, m.out_size)


def plain(m: LinearMap) -> LinearMap:
    """The map itself, or a dense layer where a convolution is one (its window covers the whole input)."""
    if not isinstance(m, Conv) or m.groups > 1 or any(m.padding) or math.prod(m.out_shape[1:]) > 1:
        return m
    if tuple(m.weight.shape[1:]) != m.in_shape:
        return m
    return Dense(m.weight.reshape(m.out_size, m.in_size))


def compose(outer: LinearMap, inner: LinearMap) -> LinearMap:
    """The map ``outer(inner(x))``, fused as far as the rules go."""
    chain: list[LinearMap] = []
    for m in reversed([*_factors(outer), *_factors(inner)]):  # from the input side
        while chain and (fused := _fuse(m, chain[-1])) is not None:
            chain.pop()
            m = fused
        chain.append(m)
    return reduce(lambda inside, outside: Composed(outside, inside), chain)


def merge(first: LinearMap, second: LinearMap) -> LinearMap | None:
    """The map ``first(x) + second(x)`` if it is as cheap as the two, else None."""
    kinds = (Identity, Scale)
    if isinstance(first, kinds) and isinstance(second, kinds):
        return Scale(_factor(first) + _factor(second))
    if isinstance(first, Dense) and isinstance(second, Dense) and first.blocks == second.blocks:
        return Dense(first.weight + second.weight, first.blocks)
    if isinstance(first, Conv) and isinstance(second, Conv) and _geometry(first) == _geometry(second):
        return dataclasses.replace(first, weight=first.weight + second.weight)
    for a, b in ((first, second), (second, first)):
        if isinstance(a, Dense) and a.blocks == 1 and isinstance(b, kinds):
            return Dense(a.weight + torch.diag(_factor(b)))
    entries = first.in_size * first.out_size
    if entries <= min(cost(first) + cost(second), _LARGEST_MATRIX):
        return Dense(_matrix(first) + _matrix(second))
    return None


def _factors(m: LinearMap) -> list[LinearMap]:
    return [*_factors(m.outer), *_factors(m.inner)] if isinstance(m, Composed) else [m]


def _fuse(outer: LinearMap, inner: LinearMap) -> LinearMap | None:
    if isinstance(outer, Identity):
        return inner
    if isinstance(inner, Identity):
        return outer
    for first, second, rule in RULES:
        if isinstance(outer, first) and isinstance(inner, second):
            fused = rule(outer, inner)
            if fused is not None:
                return fused
    entries = outer.out_size * inner.in_size
    if entries <= min(cost(outer) + cost(inner), _LARGEST_MATRIX) and not _only_moves(outer, inner):
        return Dense(_matrix(outer, inner))
    return None


def _only_moves(*maps: LinearMap) -> bool:
    """Whether a product copies and scales entries; writing that as a matrix would only lose structure."""
    return all(isinstance(m.base if isinstance(m, Transposed) else m, (Select, Scale)) for m in maps)


def _matrix(*maps: LinearMap) -> Tensor:
    """Dense matrix of the product of ``maps`` (outermost first), in the cheaper direction."""
    rows, columns = maps[0].out_size, maps[-1].in_size
    if rows <= columns:
        product = torch.eye(rows, dtype=torch.float64)
        for m in maps:
            product = m.adjoint(product)
        return product
    product = torch.eye(columns, dtype=torch.float64)
    for m in reversed(maps):
        product = m.forward(product)
    return product.T.contiguous()


def _factor(m: LinearMap) -> Tensor:
    return m.factor if isinstance(m, Scale) else torch.ones(m.in_size, dtype=torch.float64)


def _geometry(m: Conv) -> tuple[object, ...]:
    return (tuple(m.weight.shape), m.in_shape, m.stride, m.padding, m.dilation, m.groups)


def _gather(values: Tensor, index: Tensor, axis: int) -> Tensor:
    """``values`` taken at ``index`` along an axis, zero where the index is -1."""
    mask = (index >= 0).to(values.dtype)
    return values.index_select(axis, index.clamp(min=0)) * (mask if axis == values.ndim - 1 else mask[:, None])


def _scale_scale(outer: Scale, inner: Scale) -> LinearMap:
    return Scale(outer.factor * inner.factor)


def _select_select(outer: Select, inner: Select) -> LinearMap:
    index = torch.where(outer.index >= 0, inner.index[outer.index.clamp(min=0)], -1)
    same = index.numel() == inner.size and torch.equal(index, torch.arange(inner.size))
    return Identity(inner.size) if same else Select(index, inner.size)


def _select_placed(outer: Select, inner: Transposed) -> LinearMap | None:
    """A selection from what was just placed somewhere (a slice of a concatenation)."""
    if not isinstance(inner.base, Select) or not _distinct(inner.base.index):
        return None
    placed = inner.base
    origin = torch.full((placed.size,), -1)
    origin[placed.index] = torch.arange(placed.index.numel())
    return _select_select(outer, Select(origin, placed.index.numel()))


def _transposed_transposed(outer: Transposed, inner: Transposed) -> LinearMap | None:
    fused = _fuse(inner.base, outer.base)
    return None if fused is None else Transposed(fused)


def _per_block(factor: Tensor, blocks: int) -> Tensor | None:
    """A factor that is the same in every block, for one block."""
    rows = factor.reshape(blocks, -1)
    return rows[0] if bool((rows == rows[0]).all()) else None


def _scale_dense(outer: Scale, inner: Dense) -> LinearMap | None:
    factor = _per_block(outer.factor, inner.blocks)
    return None if factor is None else Dense(inner.weight * factor[:, None], inner.blocks)


def _dense_scale(outer: Dense, inner: Scale) -> LinearMap | None:
    factor = _per_block(inner.factor, outer.blocks)
    return None if factor is None else Dense(outer.weight * factor, outer.blocks)


def _select_dense(outer: Select, inner: Dense) -> LinearMap | None:
    if inner.blocks > 1 or outer.out_size > 2 * inner.out_size:
        return None
    return Dense(_gather(inner.weight, outer.index, 0))


def _dense_select(outer: Dense, inner: Select) -> LinearMap | None:
    if outer.blocks > 1 or inner.in_size > 2 * outer.in_size:
        return None
    return Dense(inner.adjoint(outer.weight))


def _dense_placed(outer: Dense, inner: Transposed) -> LinearMap | None:
    if outer.blocks > 1 or not isinstance(inner.base, Select) or inner.in_size > 2 * outer.in_size:
        return None
    return Dense(_gather(outer.weight, inner.base.index, 1))


def _placed_dense(outer: Transposed, inner: Dense) -> LinearMap | None:
    if inner.blocks > 1 or not isinstance(outer.base, Select) or outer.out_size > 2 * inner.out_size:
        return None
    return Dense(outer.base.adjoint(inner.weight.T).T.contiguous())


def _scale_conv(outer: Scale, inner: Conv) -> LinearMap | None:
    factor = _per_channel(outer.factor, inner.out_shape)
    if factor is None:
        return None
    return dataclasses.replace(inner, weight=inner.weight * factor.reshape(-1, *(1,) * (inner.weight.ndim - 1)))


def _conv_scale(outer: Conv, inner: Scale) -> LinearMap | None:
    factor = _per_channel(inner.factor, outer.in_shape)
    if factor is None:
        return None
    # Output channel o of group g reads the input channels of that group only.
    groups = outer.groups
    weight = outer.weight.reshape(groups, -1, *outer.weight.shape[1:])
    weight = weight * factor.reshape(groups, 1, -1, *(1,) * (outer.weight.ndim - 2))
    return dataclasses.replace(outer, weight=weight.reshape(outer.weight.shape))


def _per_channel(factor: Tensor, shape: Sequence[int]) -> Tensor | None:
    rows = factor.reshape(shape[0], -1)
    return rows[:, 0] if bool((rows == rows[:, :1]).all()) else None


def _scale_transposed(outer: Scale, inner: Transposed) -> LinearMap | None:
    if not isinstance(inner.base, Conv):
        return None
    fused = _conv_scale(inner.base, outer)
    return None if fused is None else Transposed(fused)


def _transposed_scale(outer: Transposed, inner: Scale) -> LinearMap | None:
    if not isinstance(outer.base, Conv):
        return None
    fused = _scale_conv(inner, outer.base)
    return None if fused is None else Transposed(fused)


def _conv_select(outer: Conv, inner: Select) -> LinearMap | None:
    """Zero padding before a convolution, where it is symmetric."""
    if outer.in_size <= inner.in_size or any(outer.padding):
        return None
    channels, *spatial = outer.in_shape
    inside = torch.nonzero((inner.index >= 0).reshape(outer.in_shape)[0])
    if len(inside) == 0:
        return None
    padding = tuple(int(p) for p in inside[0])
    shape = (channels, *(n - 2 * p for n, p in zip(spatial, padding, strict=True)))
    if math.prod(shape) != inner.in_size or min(shape) < 1:
        return None
    widths = [p for p in reversed(padding) for _ in range(2)]
    plain = torch.nn.functional.pad(torch.arange(inner.in_size).reshape(shape), widths, value=-1)
    if not torch.equal(plain.reshape(-1), inner.index):
        return None
    return dataclasses.replace(outer, in_shape=shape, padding=padding)


def _distinct(index: Tensor) -> bool:
    return bool((index >= 0).all()) and torch.unique(index).numel() == index.numel()


RULES: tuple[tuple[type[LinearMap], type[LinearMap], Callable[[Any, Any], LinearMap | None]], ...] = (
    (Scale, Scale, _scale_scale),
    (Select, Select, _select_select),
    (Select, Transposed, _select_placed),
    (Transposed, Transposed, _transposed_transposed),
    (Scale, Dense, _scale_dense),
    (Dense, Scale, _dense_scale),
    (Select, Dense, _select_dense),
    (Dense, Select, _dense_select),
    (Dense, Transposed, _dense_placed),
    (Transposed, Dense, _placed_dense),
    (Scale, Conv, _scale_conv),
    (Conv, Scale, _conv_scale),
    (Scale, Transposed, _scale_transposed),
    (Transposed, Scale, _transposed_scale),
    (Conv, Select, _conv_select),
)
