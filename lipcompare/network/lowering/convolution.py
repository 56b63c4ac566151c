"""Convolution and transposed convolution in one to three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lipcompare.errors import InvalidInput
from lipcompare.network.linear_maps import Conv, LinearMap, Transposed
from lipcompare.network.lowering.arithmetic import add
from lipcompare.network.lowering.builder import Builder, Operand, Value, as_value, fixed, per_channel, rearrange


@dataclass(frozen=True)
class Windows:
    """Geometry of sliding windows, one entry per spatial axis; padding may differ at the two ends."""

    stride: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    dilation: tuple[int, ...]

    @classmethod
    def of(
        cls,
        rank: int,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        after: Sequence[int] | None = None,
    ) -> Windows:
        """From numbers or sequences (one number stands for all axes); ``after`` where the padding is not symmetric."""
        before = per_axis(padding, rank)
        return cls(per_axis(stride, rank), before, before if after is None else tuple(after), per_axis(dilation, rank))


def per_axis(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    """One number per spatial axis."""
    values = [value] if isinstance(value, int) else [int(v) for v in value]
    return tuple(values * rank) if len(values) == 1 else tuple(values)


def same_padding(
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    *,
    extra_after: bool = True,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding before and after with which the output has ``ceil(n / stride)`` entries on each axis."""
    before, after = [], []
    for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        need = max(0, (math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n)
        small, large = need // 2, need - need // 2
        before.append(small if extra_after else large)
        after.append(large if extra_after else small)
    return tuple(before), tuple(after)


def pad(b: Builder, x: Operand, before: Sequence[int], after: Sequence[int], *, fill: float = 0.0) -> Operand:
    """Padding of the last axes with a constant (negative numbers crop)."""
    rank = len(before)
    b.require([*x.shape[:-rank], *map(sum, zip(x.shape[-rank:], before, after, strict=True))], copies=4)
    widths = [w for pair in zip(reversed(before), reversed(after), strict=True) for w in pair]
    return rearrange(b, [x], lambda t: F.pad(t, widths), fill=fill) if any(widths) else x


def convolution(
    b: Builder, x: Operand, weight: Operand, bias: Operand | None, windows: Windows, groups: int = 1
) -> Operand:
    """Convolution of ``x`` (N, C, *spatial) or (C, *spatial) with ``weight`` (out, C / groups, *kernel)."""
    weight = fixed(weight, "weight")
    rank = weight.ndim - 2
    batch = tuple(x.shape[: -rank - 1])
    if windows.before != windows.after:
        x = pad(b, x, windows.before, windows.after)
        windows = Windows.of(rank, windows.stride, 0, windows.dilation)
    x = as_value(b, x)
    many = math.prod(batch)
    b.require([many, weight.numel()])
    # Several images at once are one image with more groups.
    kernel = weight.to(torch.float64).repeat(many, *(1,) * (rank + 1)) if many > 1 else weight.to(torch.float64)
    in_shape = (many * x.shape[-rank - 1], *x.shape[-rank:])
    if len(x.shape) <= rank or x.shape[-rank - 1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise InvalidInput(f"{b.at}: weights {tuple(weight.shape)} do not fit an input of shape {tuple(x.shape)}.")
    conv = Conv(kernel, in_shape, windows.stride, windows.before, windows.dilation, groups * many)
    if min(conv.out_shape) < 1:
        raise InvalidInput(f"{b.at}: a kernel {tuple(weight.shape[2:])} does not fit into {tuple(x.shape[-rank:])} "
                           "entries: the input is too small for the model.")  # fmt: skip
    return _with_bias(b, x, conv, (*batch, weight.shape[0], *conv.out_shape[1:]), bias, rank)


def transposed_convolution(
    b: Builder,
    x: Operand,
    weight: Operand,
    bias: Operand | None,
    windows: Windows,
    output_padding: Sequence[int],
    groups: int = 1,
) -> Operand:
    """Transposed convolution with ``weight`` of shape (C, out / groups, *kernel)."""
    weight, x = fixed(weight, "weight"), as_value(b, x)
    rank = weight.ndim - 2
    batch, spatial = tuple(x.shape[: -rank - 1]), x.shape[-rank:]
    many = math.prod(batch)
    channels = int(weight.shape[1]) * groups
    full = [
        (n - 1) * s + d * (k - 1) + 1
        for n, s, k, d in zip(spatial, windows.stride, weight.shape[2:], windows.dilation, strict=True)
    ]
    wanted = [n - p - q + o for n, p, q, o in zip(full, windows.before, windows.after, output_padding, strict=True)]
    plain = windows.before == windows.after and all(o < s for o, s in zip(output_padding, windows.stride, strict=True))
    kernel = weight.to(torch.float64).repeat(many, *(1,) * (rank + 1)) if many > 1 else weight.to(torch.float64)
    shape, padding = (wanted, windows.before) if plain else (full, (0,) * rank)
    base = Conv(kernel, (many * channels, *shape), windows.stride, padding, windows.dilation, groups * many)
    y = _with_bias(b, x, Transposed(base), (*batch, channels, *shape), bias if plain else None, rank)
    if plain:
        return y
    # Output padding shows entries that the crop hides, and zeros beyond them.
    crop = [w - n + p for w, n, p in zip(wanted, full, windows.before, strict=True)]
    y = pad(b, y, [-p for p in windows.before], crop)
    return y if bias is None else add(b, y, per_channel(bias, rank))


def _with_bias(b: Builder, x: Value, m: LinearMap, shape: Sequence[int], bias: Operand | None, rank: int) -> Operand:
    channels = None if bias is None else per_channel(bias, rank)
    if isinstance(channels, Tensor):
        return b.affine([(x, m)], shape, channels.expand(tuple(shape)))
    y = b.affine([(x, m)], shape)
    return y if channels is None else add(b, y, channels)
