"""What each ATen operator means: a table name -> lowering.

A lowering takes the builder and the operator's own arguments (values, constants, numbers). What an operation means is
in :mod:`~lipcompare.network.lowering`; here are torch's names and signatures. Operators that only move entries need no
rule (:mod:`~lipcompare.network.from_torch.moves`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lipcompare.network.from_torch.moves import MOVEMENTS
from lipcompare.network.lowering import (
    arithmetic,
    axes,
    convolution,
    decomposed,
    heads,
    native,
    piecewise,
    pooling,
    products,
    refused,
    scaled,
    unchanged,
)
from lipcompare.network.lowering.builder import Builder, NotLinear, Operand, Value, rearrange
from lipcompare.network.lowering.convolution import Windows, per_axis
from lipcompare.network.lowering.decomposed import Comparison, Pending

Lowering = Callable[..., Any]

# Operators that an activation node computes, and that take no argument but its input.
_NATIVE = ("relu", "sigmoid", "silu", "mish", "hardswish", "exp", "erf", "atan")
SOFTMAX = ("softmax", "log_softmax", "_softmax", "_log_softmax", "_safe_softmax")
_REFUSED: dict[str, Lowering] = {
    **dict.fromkeys(("layer_norm", "native_layer_norm", "rms_norm", "group_norm", "native_group_norm"),
                    refused.normalisation),
    **dict.fromkeys(("scaled_dot_product_attention", "_native_multi_head_attention"), refused.attention),
}  # fmt: skip
_NO_EFFECT = ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")
# What may read a result that is no value yet (see the module ``decomposed``).
READERS = frozenset(
    f"aten.{name}" for name in ("add", "sub", "subtract", "rsub", "mul", "multiply", "div", "divide", "true_divide",
                                "tanh", "where", "to", "_to_copy", "alias", "detach", "clone")
)  # fmt: skip
_COPIES = ("alias", "detach", "clone", "contiguous", "lift_fresh_copy", "lift_fresh")
_CASTS = ("to", "_to_copy", "type_as", "float", "double", "_autocast_to_full_precision")


PROBED: dict[str, tuple[int, ...]] = {
    **{f"aten.{name}": (0,) for name in ("grid_sampler", "grid_sampler_2d", "grid_sampler_3d", "col2im", "trace",
                                         "affine_grid_generator", "cumulative_trapezoid", "diff")},
    **{f"aten.{name}": (0, 1) for name in ("cross", "linalg_cross", "outer", "ger", "inner", "tensordot", "kron",
                                           "vdot", "linalg_vecdot")},
    **{f"aten.{name}": (0, 1, 2) for name in ("addmv", "addr", "addbmm")},
}  # fmt: skip
"""Operators that are affine in each of the named arguments, the others being constants: read off what they compute."""


def supported() -> list[str]:
    """Names of all supported operators, sorted."""
    known = {*LOWERINGS, *MOVEMENTS, *PROBED} - {f"aten.{name}" for name in _REFUSED}
    return sorted(name.removeprefix("aten.") for name in known if "._" not in name)


def _number(x: Any) -> Any:
    """An operand; python numbers become constants."""
    return x if isinstance(x, (Value, Tensor, Pending)) else torch.tensor(float(x), dtype=torch.float64)


def _add(b: Builder, x: Any, y: Any, alpha: float = 1) -> Operand | Pending:
    return decomposed.add(b, _number(x), _number(y), float(alpha))


def _sub(b: Builder, x: Any, y: Any, alpha: float = 1) -> Operand | Pending:
    found = decomposed.difference(b, x, y) if alpha == 1 else None
    return _add(b, x, y, -alpha) if found is None else found


def _rsub(b: Builder, x: Any, y: Any, alpha: float = 1) -> Operand | Pending:
    return _sub(b, y, x, alpha)


def _mul(b: Builder, x: Any, y: Any) -> Operand | Pending:
    return decomposed.multiply(b, _number(x), _number(y))


def _div(b: Builder, x: Any, y: Any, rounding_mode: str | None = None) -> Operand | Pending:
    if rounding_mode is not None:
        raise NotLinear("division that rounds is not piecewise linear")
    x, y = _number(x), _number(y)
    if isinstance(x, Pending) and isinstance(y, Tensor):
        return decomposed.multiply(b, x, 1 / y.to(torch.float64))
    return products.divide(b, x, y)


def _addmm(b: Builder, bias: Operand, x: Operand, y: Operand, beta: float = 1, alpha: float = 1) -> Operand:
    product = arithmetic.matmul(b, x, y)
    if alpha != 1:
        product = products.multiply(b, product, _number(alpha))
    return arithmetic.add(b, product, bias, float(beta))


def _norm(
    b: Builder, x: Operand, weight: Any, bias: Any, mean: Any, variance: Any, *rest: Any, **named: Any
) -> Operand:
    training = rest[0] if rest and isinstance(rest[0], bool) else named.get("training", False)
    epsilon = named.get("eps", rest[2] if len(rest) > 2 else 1e-5)
    return arithmetic.batch_norm(b, x, weight, bias, mean, variance, float(epsilon), training=training)


def _norm_core(b: Builder, x: Operand, w: Any, bias: Any, mean: Any, var: Any, momentum: float, eps: float) -> Any:
    return [arithmetic.batch_norm(b, x, w, bias, mean, var, eps), None, None]


def _sum(b: Builder, x: Operand, dim: Any = None, keepdim: bool = False) -> Operand:
    return arithmetic.total(b, x, _dims(dim), keepdim)


def _mean(b: Builder, x: Operand, dim: Any = None, keepdim: bool = False) -> Operand:
    return arithmetic.mean(b, x, _dims(dim), keepdim)


def _dims(dim: Any) -> list[int] | None:
    return [dim] if isinstance(dim, int) else dim


def _conv(rank: int) -> Lowering:
    def lower(
        b: Builder, x: Operand, weight: Operand, bias: Operand | None = None, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1,
    ) -> Operand:  # fmt: skip
        stride, dilation = per_axis(stride, rank), per_axis(dilation, rank)
        if padding == "same":
            before, after = convolution.same_padding(x.shape[-rank:], weight.shape[2:], stride, dilation)
            windows = Windows(stride, before, after, dilation)
        else:
            windows = Windows.of(rank, stride, 0 if padding == "valid" else padding, dilation)
        return convolution.convolution(b, x, weight, bias, windows, groups)

    return lower


def _conv_transpose(rank: int) -> Lowering:
    def lower(
        b: Builder, x: Operand, weight: Operand, bias: Operand | None = None, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
    ) -> Operand:  # fmt: skip
        windows = Windows.of(rank, stride, padding, dilation)
        extra = per_axis(output_padding, rank)
        return convolution.transposed_convolution(b, x, weight, bias, windows, extra, groups)

    return lower


def _convolution(
    b: Builder, x: Operand, weight: Operand, bias: Operand | None, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> Operand:  # fmt: skip
    rank = len(weight.shape) - 2
    if transposed:
        y: Operand = _conv_transpose(rank)(b, x, weight, bias, stride, padding, output_padding, groups, dilation)
    else:
        y = _conv(rank)(b, x, weight, bias, stride, padding, dilation, groups)
    return y


def _avg_pool(rank: int) -> Lowering:
    def lower(
        b: Builder, x: Operand, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> Operand:  # fmt: skip
        kernel = per_axis(kernel_size, rank)
        windows = Windows.of(rank, stride or kernel, padding)
        return pooling.average_pool(
            b, x, kernel, windows, ceil=ceil_mode, count_padding=count_include_pad, divisor=divisor_override
        )

    return lower


def _max_pool(rank: int, *, pair: bool = False) -> Lowering:
    def lower(
        b: Builder, x: Operand, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> Any:  # fmt: skip
        kernel = per_axis(kernel_size, rank)
        y = pooling.max_pool(b, x, kernel, Windows.of(rank, stride or kernel, padding, dilation), ceil=ceil_mode)
        return [y, None] if pair else y

    return lower


def _adaptive_avg(b: Builder, x: Operand, size: Any, *, rank: int) -> Operand:
    return pooling.adaptive_average_pool(b, x, per_axis(size, rank))


def _adaptive_max(b: Builder, x: Operand, size: Any, *, rank: int) -> Any:
    return [pooling.adaptive_max_pool(b, x, per_axis(size, rank)), None]


def _with_rank(function: Lowering, rank: int) -> Lowering:
    return lambda b, *args, **kwargs: function(b, *args, rank=rank, **kwargs)


def _extreme(smallest: bool) -> Lowering:
    """max / min of two operands, over an axis (with indices, which stay out of reach), or over everything."""

    def lower(b: Builder, x: Operand, dim: Any = None, keepdim: bool = False) -> Any:
        if isinstance(dim, (Value, Tensor)):
            return piecewise.maximum(b, x, dim, smallest=smallest)
        if dim is None:
            return pooling.max_axes(b, x, (), False, smallest=smallest)
        return [pooling.max_axes(b, x, [dim], keepdim, smallest=smallest), None]

    return lower


def _amax(smallest: bool) -> Lowering:
    def lower(b: Builder, x: Operand, dim: Any = (), keepdim: bool = False) -> Operand:
        return pooling.max_axes(b, x, _dims(dim) or (), keepdim, smallest=smallest)

    return lower


def _pairwise(smallest: bool) -> Lowering:
    return lambda b, x, y: piecewise.maximum(b, _number(x), _number(y), smallest=smallest)


def _sort(
    b: Builder, x: Operand, *args: Any, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> Any:
    rest = list(args)
    if rest and (rest[0] is None or isinstance(rest[0], bool)) and len(rest) > 1:
        rest = rest[1:]  # the overload whose first argument is ``stable``
    dim = rest[0] if rest else dim
    return [piecewise.sort(b, x, dim, descending=bool(rest[1]) if len(rest) > 1 else descending), None]


def _instance_norm(
    b: Builder, x: Operand, weight: Any, bias: Any, mean: Any, variance: Any, use_input_stats: bool,
    momentum: float, eps: float, *_: Any,
) -> Operand:  # fmt: skip
    if use_input_stats:
        raise NotLinear("instance norm by the statistics of its input is not piecewise linear")
    return arithmetic.batch_norm(b, x, weight, bias, mean, variance, float(eps))


def _glu(b: Builder, x: Operand, dim: int = -1) -> Operand:
    first, gate = (rearrange(b, [x], lambda t, k=k: t.chunk(2, dim)[k]) for k in (0, 1))
    return products.multiply(
        b, first, gate.sigmoid() if isinstance(gate, Tensor) else native.native("sigmoid")(b, gate)
    )


def _rrelu(
    b: Builder, x: Operand, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, *_: Any
) -> Operand:
    if training:
        raise NotLinear("RReLU in training mode draws random numbers; call model.eval() before exporting")
    return piecewise.leaky(b, x, (float(lower) + float(upper)) / 2)


# Linear and cubic up-sampling, one axis after another: name and rank.
_INTERPOLATIONS = (
    ("upsample_linear1d", 1), ("upsample_bilinear2d", 2), ("upsample_trilinear3d", 3), ("upsample_bicubic2d", 2),
    ("_upsample_bilinear2d_aa", 2), ("_upsample_bicubic2d_aa", 2),
)  # fmt: skip


def _interpolation(name: str, rank: int) -> Lowering:
    operation = getattr(torch.ops.aten, name).default

    def lower(b: Builder, x: Operand, size: Sequence[int] | None, align_corners: bool, *factors: Any) -> Operand:
        listed = factors[0] if factors and isinstance(factors[0], (list, tuple)) else factors
        scales = [*(listed or ()), *[None] * rank][:rank]
        spatial = x.shape[-rank:]
        sizes = [int(n * s) for n, s in zip(spatial, scales, strict=True)] if size is None else [int(n) for n in size]
        for i, (wanted, scale) in enumerate(zip(sizes, scales, strict=True)):

            def op(t: Tensor, i: int = i, wanted: int = wanted, scale: float | None = scale) -> Tensor:
                """That axis alone: the others have two equal entries, which stay (one entry is more than torch's
                anti-aliasing can do)."""
                lengths, results = [2] * rank, [2] * rank
                lengths[i], results[i] = t.shape[1], wanted
                alone = [scale if k == i else None for k in range(rank)]
                shape = [len(t), 1, *(n if k == i else 1 for k, n in enumerate(lengths))]
                y: Tensor = operation(t.reshape(shape).expand(-1, -1, *lengths), results, align_corners, *alone)
                return y.movedim(i + 2, -1).flatten(1, -2)[:, 0]

            x = axes.along(b, x, i - rank, op, wanted)
        return x

    return lower


def _pad(b: Builder, x: Operand, widths: Any, mode: Any = "constant", value: Any = None) -> Operand:
    if mode == "constant":
        before, after = list(reversed(widths[::2])), list(reversed(widths[1::2]))
        return convolution.pad(b, x, before, after, fill=0.0 if value is None else float(value))
    return rearrange(b, [x], lambda t: torch.nn.functional.pad(t, widths, mode=mode))


def _constant_pad(b: Builder, x: Operand, widths: Any, value: float = 0.0) -> Operand:
    return _pad(b, x, widths, "constant", value)


def _where(b: Builder, condition: Any, x: Any, y: Any) -> Operand:
    x, y = _number(x), _number(y)
    pending = next((v for v in (x, y, condition) if isinstance(v, Pending) and not isinstance(v, Comparison)), None)
    if pending is not None:
        raise NotLinear(pending.reason)
    if isinstance(condition, Comparison):
        return decomposed.choose(b, condition, x, y)
    if isinstance(condition, Value):
        raise NotLinear("its condition depends on the input")
    return rearrange(b, [x, y], lambda s, t: torch.where(condition.bool(), s, t))


def _masked_fill(b: Builder, x: Operand, mask: Any, value: Any) -> Operand:
    return _where(b, mask, value, x)


def _fill_like(b: Builder, x: Operand, value: Any) -> Operand:
    return rearrange(b, [_number(value)], lambda t: t.expand(tuple(x.shape)))


def _copy(b: Builder, x: Operand, source: Operand, non_blocking: bool = False) -> Operand:
    return rearrange(b, [source], lambda t: t.expand(tuple(x.shape)))


def _like(value: float) -> Lowering:
    return lambda b, x, *_: torch.full(tuple(x.shape), value, dtype=torch.float64)


def _new(value: float) -> Lowering:
    return lambda b, x, size, *_: _new_full(b, x, size, value)


def _full_like(b: Builder, x: Operand, value: float, *_: Any) -> Operand:
    return torch.full(tuple(x.shape), float(value), dtype=torch.float64)


def _new_full(b: Builder, x: Operand, size: Sequence[int], value: float, *_: Any) -> Operand:
    b.require(size)
    return torch.full(tuple(size), float(value), dtype=torch.float64)


def _compare(positive: bool) -> Lowering:
    return lambda b, x, y: decomposed.compare(x, y, positive=positive)


def _cast(b: Builder, x: Operand, dtype: Any = None, *_: Any, **__: Any) -> Operand:
    real = not isinstance(dtype, torch.dtype) or dtype.is_floating_point
    return unchanged.cast(x, to=None if real else str(dtype).removeprefix("torch."))


def _hard_sigmoid(b: Builder, x: Operand) -> Operand:
    return piecewise.hard_sigmoid(b, x, 1 / 6, 0.5)


def _softplus(b: Builder, x: Operand, beta: float = 1.0, threshold: float = 20.0) -> Operand:
    # Beyond the threshold torch drops a term that is below rounding in float32.
    return scaled.softplus(b, x, float(beta))


def _elu(b: Builder, x: Operand, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Operand:
    return scaled.elu(b, x, float(alpha), float(scale), float(input_scale))


def _softmax(name: str) -> Lowering:
    lower = heads.log_softmax if "log" in name else heads.softmax
    return lambda b, x, dim, *_: lower(b, x, dim)


def _dropout(b: Builder, x: Operand, p: float = 0.5, train: bool = False) -> Operand:
    return unchanged.dropout(x, training=train and p > 0)


_TABLE: dict[str, Lowering] = {
    "add": _add, "sub": _sub, "subtract": _sub, "rsub": _rsub, "mul": _mul, "multiply": _mul, "div": _div,
    "divide": _div, "true_divide": _div, "neg": arithmetic.negate, "negative": arithmetic.negate,
    "positive": unchanged.same, "sum": _sum, "mean": _mean,
    "linear": arithmetic.dense, "addmm": _addmm, "baddbmm": _addmm, "mm": arithmetic.matmul, "bmm": arithmetic.matmul,
    "matmul": arithmetic.matmul, "mv": arithmetic.matmul, "dot": arithmetic.matmul,
    "conv1d": _conv(1), "conv2d": _conv(2), "conv3d": _conv(3), "convolution": _convolution,
    "conv_transpose1d": _conv_transpose(1), "conv_transpose2d": _conv_transpose(2),
    "conv_transpose3d": _conv_transpose(3),
    "batch_norm": _norm, "_native_batch_norm_legit_no_training": _norm_core,
    "avg_pool1d": _avg_pool(1), "avg_pool2d": _avg_pool(2), "avg_pool3d": _avg_pool(3),
    "max_pool1d": _max_pool(1), "max_pool2d": _max_pool(2), "max_pool3d": _max_pool(3),
    "max_pool1d_with_indices": _max_pool(1, pair=True), "max_pool2d_with_indices": _max_pool(2, pair=True),
    "max_pool3d_with_indices": _max_pool(3, pair=True),
    **{f"{prefix}adaptive_avg_pool{r}d": _with_rank(_adaptive_avg, r) for r in (1, 2, 3) for prefix in ("", "_")},
    **{f"adaptive_max_pool{r}d": _with_rank(_adaptive_max, r) for r in (1, 2, 3)},
    "leaky_relu": lambda b, x, negative_slope=0.01: piecewise.leaky(b, x, float(negative_slope)),
    "prelu": piecewise.prelu, "_prelu_kernel": piecewise.leaky,
    "abs": piecewise.absolute, "absolute": piecewise.absolute,
    "clamp": lambda b, x, min=None, max=None: piecewise.clip(b, x, min, max),
    "clip": lambda b, x, min=None, max=None: piecewise.clip(b, x, min, max),
    "clamp_min": lambda b, x, min: piecewise.clip(b, x, min, None),
    "clamp_max": lambda b, x, max: piecewise.clip(b, x, None, max),
    "hardtanh": lambda b, x, min_val=-1.0, max_val=1.0: piecewise.clip(b, x, min_val, max_val),
    "relu6": lambda b, x: piecewise.clip(b, x, 0.0, 6.0),
    "hardsigmoid": _hard_sigmoid,
    "tanh": decomposed.tanh, "log1p": decomposed.log1p, "expm1": decomposed.expm1,
    "pow": decomposed.raise_to, "exp2": lambda b, x: decomposed.exponential(b, 2.0, x),
    "einsum": lambda b, equation, operands, **_: arithmetic.einsum(b, equation, operands),
    "cumsum": lambda b, x, dim: axes.running_sum(b, x, dim),
    "lerp": lambda b, x, end, weight: arithmetic.lerp(b, x, end, _number(weight)),
    "addcmul": lambda b, x, y, z, value=1: _add(b, x, _mul(b, y, z), value),
    **{name: _softmax(name) for name in SOFTMAX}, **_REFUSED,
    "addcdiv": lambda b, x, y, z, value=1: _add(b, x, _div(b, y, z), value),
    "instance_norm": _instance_norm, "glu": _glu, "rrelu": _rrelu,
    "rrelu_with_noise": lambda b, x, noise, *rest, **named: _rrelu(b, x, *rest, **named),
    "threshold": lambda b, x, threshold, value: piecewise.threshold(b, x, float(threshold), float(value)),
    "hardshrink": lambda b, x, lambd=0.5: piecewise.hard_shrink(b, x, float(lambd)),
    **{name: _interpolation(name, rank) for name, rank in _INTERPOLATIONS},
    "square": lambda b, x: decomposed.power(b, x, 2.0),
    "softplus": _softplus, "elu": _elu, "celu": lambda b, x, alpha=1.0: scaled.celu(b, x, float(alpha)),
    "selu": lambda b, x: scaled.selu(b, x, scaled.SELU_ALPHA, scaled.SELU_SCALE),
    "gelu": native.gelu, "arctan": native.native("atan"),
    "log_sigmoid": scaled.log_sigmoid, "log_sigmoid_forward": lambda b, x: [scaled.log_sigmoid(b, x), None],
    "softshrink": lambda b, x, lambd=0.5: piecewise.soft_shrink(b, x, float(lambd)),
    "maximum": _pairwise(False), "minimum": _pairwise(True), "fmax": _pairwise(False), "fmin": _pairwise(True),
    "max": _extreme(False), "min": _extreme(True), "amax": _amax(False), "amin": _amax(True), "sort": _sort,
    "pad": _pad, "constant_pad_nd": _constant_pad, "where": _where, "masked_fill": _masked_fill,
    "fill": _fill_like, "copy": _copy, "zeros_like": _like(0.0), "ones_like": _like(1.0),
    "full_like": _full_like, "new_zeros": _new(0.0), "new_ones": _new(1.0), "new_full": _new_full,
    "gt": _compare(True), "ge": _compare(True), "lt": _compare(False), "le": _compare(False),
    **dict.fromkeys(_NO_EFFECT, _dropout), **dict.fromkeys(_CASTS, _cast),
    **dict.fromkeys(_COPIES, unchanged.same), **{name: native.native(name) for name in _NATIVE},
}  # fmt: skip
LOWERINGS: dict[str, Lowering] = {f"aten.{name}": lowering for name, lowering in _TABLE.items()}
