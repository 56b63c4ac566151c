"""What each ONNX operator means: a table name -> lowering.

A lowering takes the builder, the node and the operands (None for an absent optional one). What an operation means is in
:mod:`~lipcompare.network.lowering`; here are ONNX's names and attributes. Operators that only move entries are listed
in :data:`MOVEMENTS` and need no rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lipcompare.errors import InvalidInput
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
from lipcompare.network.lowering.builder import (
    Builder,
    NotLinear,
    Operand,
    Value,
    as_value,
    fixed,
    rearrange,
    reshape,
)
from lipcompare.network.lowering.convolution import Windows
from lipcompare.network.lowering.decomposed import Pending
from lipcompare.network.room import Room, count

Lowering = Callable[..., Operand | Pending]

SOFTMAX = ("Softmax", "LogSoftmax")
_REFUSED: dict[str, Lowering] = {
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", "GroupNormalization"), refused.normalisation),
    **dict.fromkeys(("Attention", "com.microsoft.Attention", "com.microsoft.MultiHeadAttention"), refused.attention),
}
# What may read a result that is no value yet (see the module ``decomposed``).
READERS = frozenset({"Add", "Sub", "Mul", "Tanh", "Identity"})

# Operators that an activation node computes, and that have no attributes.
_NATIVE = ("Relu", "Sigmoid", "Softplus", "Softsign", "Mish", "HardSwish", "Exp", "Erf", "Atan")

# Result entries are copies of operand entries (or of a constant).
_MOVEMENT_NAMES = """
    Flatten Reshape Squeeze Unsqueeze Transpose Slice Split Gather GatherElements GatherND Concat Pad Expand Tile
    DepthToSpace SpaceToDepth Resize Upsample Where ScatterElements ScatterND Trilu
"""
MOVEMENTS = frozenset(_MOVEMENT_NAMES.split())


_SHAPE_LENGTH = 64  # entries of the longest operand that can say the shape of a result


class OnnxNode:
    """A node with its attributes in Python types and the operator set it is written for."""

    def __init__(self, proto: Any, opset: int) -> None:
        self.proto, self.opset = proto, opset

    @property
    def kind(self) -> str:
        """Operator; other domains than ONNX's own are part of the name."""
        domain = self.proto.domain
        return str(self.proto.op_type) if domain in ("", "ai.onnx") else f"{domain}.{self.proto.op_type}"

    @cached_property
    def attributes(self) -> dict[str, Any]:
        from onnx import helper

        values = {a.name: helper.get_attribute_value(a) for a in self.proto.attribute}
        return {name: v.decode() if isinstance(v, bytes) else v for name, v in values.items()}

    def evaluate(self, operands: Sequence[np.ndarray[Any, Any] | None], room: Room, copies: int = 1) -> list[Any]:
        """The operator applied to arrays, by onnx's reference implementation, if there is room for that many copies."""
        from onnx import TensorProto, helper
        from onnx.reference import ReferenceEvaluator

        if self.kind not in ("Constant", *MOVEMENTS, *LOWERINGS, *_FOLDED):
            raise NotLinear("")
        feeds = {n: o for n, o in zip(self.proto.input, operands, strict=True) if n and o is not None}
        for shape in self._result_shapes(feeds):
            room.require(copies * count(shape), f"A value of shape {shape} at {self.proto.name or self.kind}")
        graph = helper.make_graph(
            [self.proto],
            "node",
            [helper.make_tensor_value_info(n, TensorProto.DOUBLE, None) for n in feeds],
            [helper.make_tensor_value_info(n, TensorProto.DOUBLE, None) for n in self.proto.output if n],
        )
        # The reference implementation starts there, and what was said before means the same.
        opset = max(self.opset, 19) if self.kind == "DequantizeLinear" else self.opset
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        return list(ReferenceEvaluator(model).run(None, feeds))

    def _result_shapes(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> list[tuple[int, ...]]:
        """Shapes of the results, by onnx's shape inference; those it does not know are no larger than the operands."""
        from onnx import ValueInfoProto, helper, numpy_helper, shape_inference

        # The rules of some operators take scales in float32 alone.
        types = {n: np.dtype(np.float32) if o.dtype == np.float64 else o.dtype for n, o in feeds.items()}
        kinds = {n: helper.np_dtype_to_tensor_dtype(dtype) for n, dtype in types.items()}
        small = {n: np.asarray(o, types[n]) for n, o in feeds.items() if o.size <= _SHAPE_LENGTH}
        graph = helper.make_graph(
            [self.proto],
            "node",
            [helper.make_tensor_value_info(n, kinds[n], o.shape) for n, o in feeds.items()],
            [ValueInfoProto(name=n) for n in self.proto.output if n],
            [numpy_helper.from_array(o, n) for n, o in small.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        shapes = [o.type.tensor_type.shape.dim for o in inferred.graph.output]
        return [tuple(d.dim_value for d in dims) for dims in shapes if all(d.HasField("dim_value") for d in dims)]


# Operators that may compute constants but are not lowered when they depend on the input.
_FOLDED_NAMES = """
    Shape Size ConstantOfShape Range Equal Less Greater LessOrEqual GreaterOrEqual Not And Or Floor Ceil Round Mod Sqrt
    Log Reciprocal Sign ReduceProd EyeLike NonZero ArgMax ArgMin OneHot DequantizeLinear
"""
_FOLDED = frozenset(_FOLDED_NAMES.split())


def supported() -> list[str]:
    """Names of all supported operators, sorted."""
    return sorted({*LOWERINGS, *MOVEMENTS, "Constant", "ConstantOfShape", "Shape"} - {*_REFUSED})


def move(b: Builder, node: OnnxNode, operands: Sequence[Operand | None]) -> list[Operand]:
    """Run an operator that moves entries on labels, and read off where each entry went."""
    fill = 0.0
    fixed: list[Operand | None] = list(operands)
    # Operands that say where entries go; all others are moved.
    moved = {"Concat": range(len(fixed)), "Where": (1, 2), "ScatterElements": (0, 2), "ScatterND": (0, 2)}
    slots = list(moved.get(node.kind, (0,)))
    if node.kind == "Pad":
        value = fixed[2] if len(fixed) > 2 else None
        fill = float(value) if isinstance(value, Tensor) else float(node.attributes.get("value", 0.0))
        fixed[2:3] = [None if len(fixed) < 3 or fixed[2] is None else torch.tensor(0.0, dtype=torch.float64)][
            : len(fixed[2:3])
        ]
        if fill and "value" in node.attributes:
            node = _without(node, "value")
    if node.attributes.get("reduction", "none") != "none":
        raise NotLinear("scattering with a reduction is not supported")
    if node.kind in ("Resize", "Upsample") and node.attributes.get("mode", "nearest") != "nearest":
        return [_interpolate(b, node, *operands)]  # type: ignore[arg-type]  # its first operand is always there
    if any(isinstance(o, Value) for i, o in enumerate(fixed) if i not in slots):
        raise NotLinear("where its entries go depends on the input")
    arrays = [None if o is None or isinstance(o, Value) else o.numpy() for o in fixed]

    def run(*labels: Tensor) -> list[Any]:
        for i, label in zip(slots, labels, strict=True):
            arrays[i] = label.numpy()
        return node.evaluate(arrays, b.room, copies=4)

    sources = [o for o in (fixed[i] for i in slots) if o is not None]
    count = len(run(*(torch.zeros(tuple(o.shape), dtype=torch.float64) for o in sources)))
    return [
        rearrange(b, sources, lambda *t, k=k: torch.from_numpy(np.array(run(*t)[k], dtype=np.float64)), fill=fill)
        for k in range(count)
    ]


def _interpolate(b: Builder, node: OnnxNode, x: Operand, *where: Operand | None) -> Operand:
    """Linear or cubic resizing, one axis after another; ``where``: region, scales and sizes (first of all scales)."""
    a, rank = node.attributes, len(x.shape)
    numbers = [None if w is None or 0 in w.shape else fixed(w, "size") for w in where]
    scales = numbers[0] if len(numbers) == 1 else numbers[1]
    sizes = numbers[2] if len(numbers) > 2 else None
    simple = not a.get("axes") and a.get("keep_aspect_ratio_policy", "stretch") == "stretch"
    if not simple or a.get("coordinate_transformation_mode") == "tf_crop_and_resize" or rank < 2:
        raise NotLinear("linear resizing is supported for all axes, without a region or an aspect ratio")
    if (scales is None) == (sizes is None):
        raise InvalidInput(f"{b.at} needs either scales or sizes: export the model again.")
    for axis in range(rank):
        scale = 1.0 if scales is None else float(scales[axis])
        size = int(x.shape[axis] * scale) if sizes is None else int(sizes[axis])
        if (scale, size) != (1.0, x.shape[axis]):
            x = axes.along(b, x, axis, partial(_resized, b, node, axis, scale, size, rank), size)
    return x


def _resized(b: Builder, node: OnnxNode, axis: int, scale: float, size: int, rank: int, vectors: Tensor) -> Tensor:
    """The vectors (count, n) resized along an axis, by laying them side by side on another one."""
    other = 0 if axis else 1
    shape, scales, sizes = [1] * rank, [1.0] * rank, [1] * rank
    shape[axis], shape[other] = vectors.shape[1], len(vectors)
    scales[axis], sizes[axis], sizes[other] = scale, size, len(vectors)
    given = [np.array(scales)] if len(node.proto.input) == 2 else [np.zeros(0), np.array(scales), np.array(sizes)]
    rows = vectors.T if axis < other else vectors
    named = [g if n else None for g, n in zip(given, node.proto.input[1:], strict=False)]
    (y,) = node.evaluate([rows.reshape(shape).numpy(), *named], b.room)
    y = torch.from_numpy(np.array(y, dtype=np.float64))
    return y.reshape(size, len(vectors)).T if axis < other else y.reshape(len(vectors), size)


def _without(node: OnnxNode, name: str) -> OnnxNode:
    proto = type(node.proto)()
    proto.CopyFrom(node.proto)
    kept = [a for a in node.proto.attribute if a.name != name]
    del proto.attribute[:]
    proto.attribute.extend(kept)
    return OnnxNode(proto, node.opset)


def _binary(function: Callable[[Builder, Any, Any], Operand | Pending]) -> Lowering:
    def lower(b: Builder, node: OnnxNode, x: Any, y: Any) -> Operand | Pending:
        if node.opset < 7 and node.attributes.get("broadcast") and len(y.shape) < len(x.shape):
            axis = node.attributes.get("axis", len(x.shape) - len(y.shape)) % len(x.shape)
            y = reshape(y, (*y.shape, *(1,) * (len(x.shape) - axis - len(y.shape))))
        return function(b, x, y)

    return lower


def _fold(function: Callable[[Builder, Operand, Operand], Operand]) -> Lowering:
    """An operator with any number of operands from the one with two."""

    def lower(b: Builder, node: OnnxNode, first: Operand, *rest: Operand) -> Operand:
        for operand in rest:
            first = function(b, first, operand)
        return first

    return lower


def _average(b: Builder, node: OnnxNode, *operands: Operand) -> Operand:
    whole: Any = _fold(arithmetic.add)(b, node, *operands)
    return arithmetic.multiply(b, whole, torch.tensor(1 / len(operands), dtype=torch.float64))


def _gemm(b: Builder, node: OnnxNode, x: Operand, y: Operand, bias: Operand | None = None) -> Operand:
    a = node.attributes
    x = rearrange(b, [x], torch.t) if a.get("transA", 0) else x
    y = rearrange(b, [y], torch.t) if a.get("transB", 0) else y
    product = arithmetic.matmul(b, x, y)
    if a.get("alpha", 1.0) != 1:
        product = arithmetic.multiply(b, product, torch.tensor(a["alpha"], dtype=torch.float64))
    return product if bias is None else arithmetic.add(b, product, bias, a.get("beta", 1.0))


def _windows(node: OnnxNode, spatial: Sequence[int], kernel: Sequence[int]) -> Windows:
    a, rank = node.attributes, len(kernel)
    stride, dilation = tuple(a.get("strides", (1,) * rank)), tuple(a.get("dilations", (1,) * rank))
    mode = a.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        before, after = convolution.same_padding(spatial, kernel, stride, dilation, extra_after=mode == "SAME_UPPER")
    else:
        pads = (0,) * 2 * rank if mode == "VALID" else tuple(a.get("pads", (0,) * 2 * rank))
        before, after = pads[:rank], pads[rank:]
    return Windows(stride, before, after, dilation)


def _conv(b: Builder, node: OnnxNode, x: Operand, weight: Operand, bias: Operand | None = None) -> Operand:
    windows = _windows(node, x.shape[2:], weight.shape[2:])
    return convolution.convolution(b, x, weight, bias, windows, node.attributes.get("group", 1))


def _conv_transpose(b: Builder, node: OnnxNode, x: Operand, weight: Operand, bias: Operand | None = None) -> Operand:
    a, rank = node.attributes, len(weight.shape) - 2
    stride, dilation = a.get("strides", (1,) * rank), a.get("dilations", (1,) * rank)
    extra = tuple(a.get("output_padding", (0,) * rank))
    mode = a.get("auto_pad", "NOTSET")
    pads = tuple(a.get("pads", (0,) * 2 * rank))
    wanted = a.get("output_shape")
    if wanted is None and mode.startswith("SAME"):
        wanted = [n * s for n, s in zip(x.shape[2:], stride, strict=True)]
    if wanted is not None:
        full = [
            s * (n - 1) + e + d * (k - 1) + 1
            for n, s, e, d, k in zip(x.shape[2:], stride, extra, dilation, weight.shape[2:], strict=True)
        ]
        spare = [f - w for f, w in zip(full, wanted[-rank:], strict=True)]
        small = [s // 2 for s in spare]
        large = [s - s // 2 for s in spare]
        pads = (*small, *large) if mode != "SAME_LOWER" else (*large, *small)
    windows = Windows(tuple(stride), pads[:rank], pads[rank:], tuple(dilation))
    return convolution.transposed_convolution(b, x, weight, bias, windows, extra, a.get("group", 1))


def _batch_norm(
    b: Builder, node: OnnxNode, x: Operand, weight: Operand, bias: Operand, mean: Operand, variance: Operand
) -> Operand:
    epsilon, training = node.attributes.get("epsilon", 1e-5), bool(node.attributes.get("training_mode", 0))
    return arithmetic.batch_norm(b, x, weight, bias, mean, variance, epsilon, training=training)


def _average_pool(b: Builder, node: OnnxNode, x: Operand) -> Operand:
    a = node.attributes
    kernel = tuple(a["kernel_shape"])
    return pooling.average_pool(
        b, x, kernel, _windows(node, x.shape[2:], kernel), ceil=bool(a.get("ceil_mode", 0)),
        count_padding=bool(a.get("count_include_pad", 0)),
    )  # fmt: skip


def _max_pool(b: Builder, node: OnnxNode, x: Operand) -> Operand:
    a = node.attributes
    kernel = tuple(a["kernel_shape"])
    return pooling.max_pool(b, x, kernel, _windows(node, x.shape[2:], kernel), ceil=bool(a.get("ceil_mode", 0)))


def _reduction(function: Callable[..., Operand]) -> Lowering:
    def lower(b: Builder, node: OnnxNode, x: Operand, axes: Operand | None = None) -> Operand:
        a = node.attributes
        chosen = a.get("axes") if axes is None else [int(k) for k in fixed(axes, "axes").reshape(-1)]
        if not chosen and a.get("noop_with_empty_axes", 0):
            return x
        return function(b, x, chosen or (), bool(a.get("keepdims", 1)))

    return lower


def _over_space(function: Callable[..., Operand]) -> Lowering:
    return lambda b, node, x: function(b, x, range(2, len(x.shape)), True)


def _smallest(b: Builder, x: Operand, axes: Sequence[int], keepdim: bool) -> Operand:
    return pooling.max_axes(b, x, axes, keepdim, smallest=True)


def _clip(b: Builder, node: OnnxNode, x: Operand, low: Operand | None = None, high: Operand | None = None) -> Operand:
    if node.opset < 11:
        low, high = node.attributes.get("min"), node.attributes.get("max")
    return piecewise.clip(b, x, low, high)


def _prelu(b: Builder, node: OnnxNode, x: Operand, slope: Operand) -> Operand:
    per_channel = node.opset < 9 and len(slope.shape) == 1
    return piecewise.prelu(b, x, slope) if per_channel else piecewise.leaky(b, x, slope)


def _hard_sigmoid(b: Builder, node: OnnxNode, x: Operand) -> Operand:
    return piecewise.hard_sigmoid(b, x, node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5))


def _selu(b: Builder, node: OnnxNode, x: Operand) -> Operand:
    a = node.attributes
    return scaled.selu(b, x, a.get("alpha", scaled.SELU_ALPHA), a.get("gamma", scaled.SELU_SCALE))


def _difference(b: Builder, x: Operand | Pending, y: Operand | Pending) -> Operand | Pending:
    return decomposed.add(b, x, y, -1.0)


def _cumsum(b: Builder, node: OnnxNode, x: Operand, axis: Operand) -> Operand:
    a = node.attributes
    exclusive, reverse = bool(a.get("exclusive", 0)), bool(a.get("reverse", 0))
    return axes.running_sum(b, x, int(fixed(axis, "axis")), exclusive=exclusive, reverse=reverse)


def _linear_regressor(b: Builder, node: OnnxNode, x: Operand) -> Operand:
    a = node.attributes
    if a.get("post_transform", "NONE") != "NONE":
        raise NotLinear(f"its post_transform {a['post_transform']!r} is not supported")
    given, targets = a["coefficients"], a.get("targets", 1)
    if len(given) != targets * as_value(b, x).shape[-1]:
        raise NotLinear(f"it has {len(given)} coefficients for {targets} x {as_value(b, x).shape[-1]} weights")
    weight = torch.tensor(given, dtype=torch.float64).reshape(targets, -1)
    bias = torch.tensor(a["intercepts"], dtype=torch.float64) if a.get("intercepts") else None
    return arithmetic.dense(b, x, weight, bias)


def _grid_sample(b: Builder, node: OnnxNode, x: Operand, grid: Operand) -> Operand:
    places = fixed(grid, "grid").numpy()

    def op(t: Tensor) -> Tensor:
        (y,) = node.evaluate([t.numpy(), places], b.room)
        return torch.from_numpy(np.array(y, dtype=np.float64))

    return axes.probed(b, as_value(b, x), op)


def _swish(b: Builder, node: OnnxNode, x: Operand) -> Operand:
    return scaled.silu(b, x, node.attributes.get("alpha", 1.0))


def _dropout(b: Builder, node: OnnxNode, x: Operand, ratio: Operand | None = None, training: Any = None) -> Operand:
    return unchanged.dropout(x, training=isinstance(training, Tensor) and bool(training.any()))


def _cast(b: Builder, node: OnnxNode, x: Operand, *_: Operand) -> Operand:
    real = node.attributes.get("to", 1) in (1, 10, 11, 16)
    return unchanged.cast(x, to=None if real else "integers")


def _same(b: Builder, node: OnnxNode, x: Operand, *_: Operand) -> Operand:
    return x


def _softmax(lower: Callable[[Builder, Operand, int], Operand]) -> Lowering:
    def lowered(b: Builder, node: OnnxNode, x: Operand) -> Operand:
        if node.opset >= 13:
            return lower(b, x, node.attributes.get("axis", -1))
        # Before that it is over all axes from this one on.
        axis = node.attributes.get("axis", 1) % max(1, len(x.shape))
        return reshape(lower(b, reshape(x, (*x.shape[:axis], math.prod(x.shape[axis:]))), -1), x.shape)

    return lowered


def _plain(function: Callable[[Builder, Any], Operand | Pending]) -> Lowering:
    """An operator of one operand without attributes."""
    return lambda b, node, x: function(b, x)


LOWERINGS: dict[str, Lowering] = {
    "Add": _binary(decomposed.add), "Sub": _binary(_difference), "Mul": _binary(decomposed.multiply),
    "Div": _binary(products.divide), "Neg": _plain(arithmetic.negate),
    "Sum": _fold(arithmetic.add), "Mean": _average,
    "MatMul": lambda b, node, x, y: arithmetic.matmul(b, x, y), "Gemm": _gemm,
    "Conv": _conv, "ConvTranspose": _conv_transpose, "BatchNormalization": _batch_norm,
    "AveragePool": _average_pool, "GlobalAveragePool": _over_space(arithmetic.mean),
    "MaxPool": _max_pool, "GlobalMaxPool": _over_space(pooling.max_axes),
    "ReduceMean": _reduction(arithmetic.mean), "ReduceSum": _reduction(arithmetic.total),
    "ReduceMax": _reduction(pooling.max_axes), "ReduceMin": _reduction(_smallest),
    "LeakyRelu": lambda b, node, x: piecewise.leaky(b, x, node.attributes.get("alpha", 0.01)),
    "PRelu": _prelu, "Abs": _plain(piecewise.absolute), "Clip": _clip, "HardSigmoid": _hard_sigmoid,
    "Elu": lambda b, node, x: scaled.elu(b, x, node.attributes.get("alpha", 1.0)),
    "Celu": lambda b, node, x: scaled.celu(b, x, node.attributes.get("alpha", 1.0)), "Selu": _selu, "Swish": _swish,
    "Max": _fold(piecewise.maximum), "Min": _fold(lambda b, x, y: piecewise.maximum(b, x, y, smallest=True)),
    "Tanh": _plain(decomposed.tanh), "Pow": lambda b, node, x, y: decomposed.raise_to(b, x, y),
    "Einsum": lambda b, node, *xs: arithmetic.einsum(b, node.attributes["equation"], xs), "CumSum": _cumsum,
    "ai.onnx.ml.LinearRegressor": _linear_regressor, "GridSample": _grid_sample,
    "Softmax": _softmax(heads.softmax), "LogSoftmax": _softmax(heads.log_softmax), **_REFUSED,
    "Identity": _same, "Dropout": _dropout, "Cast": _cast, "CastLike": _same,
    "Gelu": lambda b, node, x: native.gelu(b, x, node.attributes.get("approximate", "none")),
    **{name: _plain(native.native(name.lower())) for name in _NATIVE},
}  # fmt: skip
