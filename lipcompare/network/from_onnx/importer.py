"""Import of ONNX files, straight into linear maps and activations."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lipcompare.errors import InvalidInput, UnsupportedOperation
from lipcompare.network.agreement import check_agreement
from lipcompare.network.from_onnx.operations import LOWERINGS, MOVEMENTS, OnnxNode, move, supported
from lipcompare.network.graph import Network
from lipcompare.network.lowering.builder import Builder, NotLinear, Operand, Value, unsupported
from lipcompare.network.shapes import one_example, one_of_each
from lipcompare.network.simplify import simplify

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto

_DTYPES = {1: torch.float32, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}


def from_onnx(
    source: str | os.PathLike[str] | ModelProto, *, input_shape: Sequence[int] | None = None, name: str | None = None
) -> Network:
    """Import an ONNX model with one tensor input and one output.

    Args:
        source: a file, or a loaded model.
        input_shape: shape of one example without the batch axis; needed only where the file's own is ambiguous.
        name: name of the network (default: the file's name).

    Raises:
        InvalidInput: the ``onnx`` package is missing, the file is broken, a dimension other than the batch is dynamic,
            a weight is NaN or infinite, or the result differs from the model.
        UnsupportedOperation: an operation has no lowering.
    """
    model, default = _read(source)
    graph = model.graph
    constants = {t.name: _from_numpy(_to_array(t)) for t in graph.initializer}
    inputs = [v for v in graph.input if v.name not in constants]
    one_of_each(len(inputs), len(graph.output))
    (x,) = inputs
    kind = x.type.tensor_type.elem_type
    if kind not in _DTYPES:
        raise InvalidInput(f"The input {x.name!r} of the model is not a floating-point tensor.")
    shape, batched = one_example(_dims(x), input_shape)
    builder, output = _lower(graph, {o.domain: o.version for o in model.opset_import}, constants, x.name, shape)
    outer = tuple(output.shape)
    outer = outer[1:] if batched and outer[:1] == (1,) else outer
    network = builder.finish(output, shape[1:] if batched else shape, outer, name or default)
    network = simplify(network)
    check_agreement(network, _runner(model, x.name, shape, _DTYPES[kind]), _DTYPES[kind])
    return network


def _read(source: str | os.PathLike[str] | ModelProto) -> tuple[ModelProto, str]:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ModuleNotFoundError:
        raise InvalidInput("Reading ONNX files needs the onnx package: pip install lipcompare[onnx].") from None
    if isinstance(source, onnx.ModelProto):
        return source, source.graph.name or "network"
    path = Path(source)
    try:
        model = onnx.load(path)
    except (DecodeError, ValueError, OSError, onnx.checker.ValidationError) as error:
        raise InvalidInput(
            f"{path} is not a readable ONNX file ({type(error).__name__}): export the model again."
        ) from None
    if not model.graph.node and not model.graph.output:
        raise InvalidInput(f"{path} is not a readable ONNX file (it holds no graph): export the model again.")
    return model, path.stem


def _lower(
    graph: GraphProto, opsets: Mapping[str, int], constants: Mapping[str, Tensor], input_name: str, shape: Sequence[int]
) -> tuple[Builder, Operand]:
    builder = Builder(shape)
    env: dict[str, Operand] = {**constants, input_name: builder.input}
    for proto in graph.node:
        node = OnnxNode(proto, int(opsets.get(proto.domain, opsets.get("", 1))))
        undefined = [n for n in proto.input if n and n not in env]
        if undefined:
            raise InvalidInput(f"Node {proto.name or proto.op_type!r} reads {undefined[0]!r}, which the file does not "
                               "define: check it with onnx.checker and export the model again.")  # fmt: skip
        operands = [env[n] if n else None for n in proto.input]
        builder.at = f"{proto.op_type} ({proto.name or proto.output[0]})"
        try:
            results = _apply(builder, node, operands)
        except NotLinear as reason:
            where = f"node {proto.name or proto.output[0]!r}"
            raise unsupported(proto.op_type, where, str(reason), supported()) from None
        # Results beyond the first that nobody can use (indices, masks) are absent; reading one is an error below.
        env.update({n: r for n, r in zip(proto.output, results, strict=False) if n})
        missing = [n for n in proto.output[len(results) :] if n and _is_read(graph, n)]
        if missing:
            raise UnsupportedOperation(
                f"Output {missing[0]!r} of {builder.at} is not supported, only the first output is."
            )
    if graph.output[0].name not in env:
        raise InvalidInput(f"No node computes the output {graph.output[0].name!r}: export the model again.")
    return builder, env[graph.output[0].name]


def _apply(builder: Builder, node: OnnxNode, operands: Sequence[Operand | None]) -> Sequence[Operand]:
    kind = node.kind
    if kind == "Shape" and isinstance(operands[0], Value):
        shape = torch.tensor(operands[0].shape, dtype=torch.int64)
        return [shape[node.attributes.get("start", 0) : node.attributes.get("end")]]
    if kind == "Size" and isinstance(operands[0], Value):
        return [torch.tensor(operands[0].size)]
    if not any(isinstance(o, Value) for o in operands):
        return [_from_numpy(r) for r in node.evaluate([None if o is None else _numpy(o) for o in operands])]
    if kind in LOWERINGS:
        return [LOWERINGS[kind](builder, node, *operands)]
    if kind in MOVEMENTS:
        return move(builder, node, operands)
    raise NotLinear("")


def _is_read(graph: GraphProto, name: str) -> bool:
    return any(name in n.input for n in graph.node) or any(name == o.name for o in graph.output)


def _dims(x: ValueInfoProto) -> list[int | None]:
    tensor = x.type.tensor_type
    if not tensor.HasField("shape"):
        raise InvalidInput(
            f"The model does not say the shape of its input {x.name!r}: export it with a fixed input shape."
        )
    return [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim]


def _to_array(tensor: Any) -> np.ndarray[Any, Any]:
    from onnx import numpy_helper

    return np.asarray(numpy_helper.to_array(tensor))


def _from_numpy(array: Any) -> Tensor:
    """Floating-point values as float64 (every narrower value is one exactly), others unchanged."""
    array = np.asarray(array)
    if array.dtype.kind == "f" or array.dtype.name == "bfloat16":
        array = array.astype(np.float64)
    return torch.from_numpy(np.array(array))


def _numpy(value: Operand) -> np.ndarray[Any, Any]:
    assert isinstance(value, Tensor)
    return value.numpy()


def _runner(model: ModelProto, name: str, shape: Sequence[int], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """The model's own value: onnxruntime where it is installed and takes the model, else onnx's reference evaluator."""

    def with_session(session: Any) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            feed = x.reshape(tuple(shape)).to(dtype).numpy()
            return torch.as_tensor(np.asarray(session.run(None, {name: feed})[0]))

        return run

    from onnx.reference import ReferenceEvaluator

    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ModuleNotFoundError:
        return with_session(ReferenceEvaluator(model))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    refusals = (state.NotImplemented, state.InvalidGraph, state.Fail, state.InvalidArgument, state.RuntimeException)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except refusals:
        return with_session(ReferenceEvaluator(model))
    return with_session(session)
