"""Import of ONNX files, straight into linear maps and activations."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lipcompare.errors import InvalidInput, UnsupportedOperation, install, reading, shown
from lipcompare.network.agreement import check_agreement
from lipcompare.network.from_onnx.operations import LOWERINGS, MOVEMENTS, READERS, SOFTMAX, OnnxNode, move, supported
from lipcompare.network.graph import Network
from lipcompare.network.lowering.builder import Builder, NotLinear, Operand, Value, unsupported
from lipcompare.network.lowering.constants import from_numpy
from lipcompare.network.lowering.decomposed import Pending, settle
from lipcompare.network.lowering.heads import no_softmax
from lipcompare.network.room import MEMORY, Room, count
from lipcompare.network.shapes import one_example, one_of_each
from lipcompare.network.simplify import simplify

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto

_DTYPES = {1: torch.float32, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}


def from_onnx(
    source: str | os.PathLike[str] | ModelProto,
    *,
    input_shape: Sequence[int] | None = None,
    name: str | None = None,
    memory: int = MEMORY,
    logits: bool = False,
) -> Network:
    """Import an ONNX model with one tensor input and one output.

    Args:
        source: a file, or a loaded model.
        input_shape: shape of one example without the batch axis; needed only where the file's own is ambiguous.
        name: name of the network (default: the file's name).
        memory: bytes that the import may take beyond what the file's own size explains.
        logits: leave out a softmax at the end.

    Raises:
        InvalidInput: the ``onnx`` package is missing, the file is broken, the model does not fit in memory, a dimension
            other than the batch is dynamic,
            a weight is NaN or infinite, or the result differs from the model.
        UnsupportedOperation: an operation has no lowering.
    """
    _require_onnx()
    path = Path(source) if isinstance(source, (str, os.PathLike)) else None
    with reading(path or "The model", "ONNX file", "export the model again"):
        model, default, size = _read(source)
        model = _without_softmax(model) if logits else model
        return _import(model, input_shape, name or default, Room(memory, size))


def _import(model: ModelProto, input_shape: Sequence[int] | None, name: str, room: Room) -> Network:
    graph = model.graph
    for t in graph.initializer:
        room.require(count(t.dims), f"The weight {t.name!r} of shape {tuple(t.dims)}")
    constants = {t.name: from_numpy(_to_array(t), f"The weight {t.name!r}") for t in graph.initializer}
    inputs = [v for v in graph.input if v.name not in constants]
    one_of_each(len(inputs), len(graph.output))
    (x,) = inputs
    kind = x.type.tensor_type.elem_type
    if kind not in _DTYPES:
        raise InvalidInput(
            f"The input {x.name!r} of the model is no floating-point tensor, and a Lipschitz constant is one over "
            "real numbers: export the part of the model after an embedding or a cast."
        )
    shape, batched = one_example(_dims(x), input_shape)
    opsets = {o.domain: o.version for o in model.opset_import}
    builder, output = _lower(graph, opsets, constants, x.name, Builder(shape, room))
    outer = tuple(output.shape)
    outer = outer[1:] if batched and outer[:1] == (1,) else outer
    network = builder.finish(output, shape[1:] if batched else shape, outer, name)
    network = simplify(network)
    check_agreement(network, _runner(model, x.name, shape, _DTYPES[kind]), _DTYPES[kind])
    return network


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
    except ModuleNotFoundError:
        raise InvalidInput(f"Reading ONNX files needs the onnx package: {install('onnx')}.") from None


def _read(source: str | os.PathLike[str] | ModelProto) -> tuple[ModelProto, str, int]:
    """The model, its name, and its size in bytes."""
    import onnx

    if isinstance(source, onnx.ModelProto):
        return source, source.graph.name or "network", source.ByteSize()
    path = Path(source)
    model = onnx.load(path, load_external_data=False)
    if not model.graph.node and not model.graph.output:
        raise InvalidInput(f"{shown(path)} is not a readable ONNX file (it holds no graph): export the model again.")
    beside = {
        entry.value
        for tensor in model.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for name in beside:
        if not (path.parent / name).is_file():
            raise InvalidInput(
                f"{shown(path)} has its weights in {shown(name)}, which is not beside it: copy it there."
            )
    if beside:
        onnx.load_external_data_for_model(model, str(path.parent))
    size = sum((path.parent / name).stat().st_size for name in beside)
    return model, shown(path.stem), path.stat().st_size + size


def _without_softmax(model: ModelProto) -> ModelProto:
    """A copy of the model that ends before the softmax that is its last operation."""
    from onnx import helper

    makers = {name: node for node in model.graph.node for name in node.output}
    (output,) = model.graph.output
    name, dropped = output.name, set[str]()
    while name in makers and makers[name].op_type in ("Identity", "Cast"):
        dropped.add(name)
        name = makers[name].input[0]
    last = makers[name].op_type if name in makers else "its input"
    if last not in SOFTMAX:
        raise no_softmax(last)
    copy = type(model)()
    copy.CopyFrom(model)
    before = helper.make_tensor_value_info(makers[name].input[0], output.type.tensor_type.elem_type, None)
    copy.graph.output[0].CopyFrom(before)
    del copy.graph.node[:]
    copy.graph.node.extend(node for node in model.graph.node if not {name, *dropped}.intersection(node.output))
    return copy


def _lower(
    graph: GraphProto, opsets: Mapping[str, int], constants: Mapping[str, Tensor], input_name: str, builder: Builder
) -> tuple[Builder, Operand]:
    read = {name for proto in graph.node for name in proto.input} | {output.name for output in graph.output}
    env: dict[str, Operand | Pending] = {**constants, input_name: builder.input}
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
        missing = [n for n in proto.output[len(results) :] if n and n in read]
        if missing:
            raise UnsupportedOperation(
                f"Output {missing[0]!r} of {builder.at} is not supported, only the first output is."
            )
    if graph.output[0].name not in env:
        raise InvalidInput(f"No node computes the output {graph.output[0].name!r}: export the model again.")
    output = env[graph.output[0].name]
    if isinstance(output, Pending):
        try:
            output = settle(builder, output)
        except NotLinear as reason:
            raise unsupported("Pow", f"output {graph.output[0].name!r}", str(reason), supported()) from None
    return builder, output


def _apply(builder: Builder, node: OnnxNode, operands: Sequence[Any]) -> Sequence[Operand | Pending]:
    kind = node.kind
    if kind == "Shape" and isinstance(operands[0], Value):
        shape = torch.tensor(operands[0].shape, dtype=torch.int64)
        return [shape[node.attributes.get("start", 0) : node.attributes.get("end")]]
    if kind == "Size" and isinstance(operands[0], Value):
        return [torch.tensor(operands[0].size)]
    if not any(isinstance(o, Value | Pending) for o in operands):
        results = node.evaluate([None if o is None else _numpy(o) for o in operands], builder.room)
        return [from_numpy(r, f"A result of {builder.at}") for r in results]
    if kind not in READERS:
        operands = [settle(builder, o) if isinstance(o, Pending) else o for o in operands]
    if kind in LOWERINGS:
        return [LOWERINGS[kind](builder, node, *operands)]
    if kind in MOVEMENTS:
        return move(builder, node, operands)
    raise NotLinear("")


def _dims(x: ValueInfoProto) -> list[int | None]:
    tensor = x.type.tensor_type
    if not tensor.HasField("shape"):
        raise InvalidInput(
            f"The model does not say the shape of its input {x.name!r}: export it with a fixed input shape."
        )
    if any(d.HasField("dim_value") and d.dim_value == 0 for d in tensor.shape.dim):
        raise InvalidInput(f"The input {x.name!r} of the model has no entries: export it again with batch size 1.")
    return [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim]


def _to_array(tensor: Any) -> np.ndarray[Any, Any]:
    from onnx import numpy_helper

    return np.asarray(numpy_helper.to_array(tensor))


def _numpy(value: Operand) -> np.ndarray[Any, Any]:
    assert isinstance(value, Tensor)
    return value.numpy()


def _as_numpy(x: Tensor, dtype: torch.dtype) -> np.ndarray[Any, Any]:
    if dtype == torch.bfloat16:
        import ml_dtypes

        return x.numpy().astype(ml_dtypes.bfloat16)
    return np.asarray(x.to(dtype).numpy())


def _runner(model: ModelProto, name: str, shape: Sequence[int], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """The model's own value: onnxruntime where it is installed and takes the model, else onnx's reference evaluator."""

    def with_session(session: Any) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            feed = _as_numpy(x.reshape(tuple(shape)), dtype)
            return from_numpy(session.run(None, {name: feed})[0], "The model's output")

        return run

    from onnx.reference import ReferenceEvaluator

    try:
        import onnxruntime
    except ModuleNotFoundError:
        return with_session(ReferenceEvaluator(model))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its complaints are for its developers
    # Optimising takes time that grows with the square of the depth, and can change what is computed.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001 - it has an exception of its own for each of its reasons not to take a model
        return with_session(ReferenceEvaluator(model))
    return with_session(session)
