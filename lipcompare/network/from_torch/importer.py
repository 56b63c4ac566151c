"""Import of ``torch.nn.Module`` and ``torch.export.ExportedProgram``."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from lipcompare.errors import InvalidInput, LipcompareError, UnsupportedOperation, summary
from lipcompare.network.agreement import check_agreement
from lipcompare.network.from_torch.graph import Call, Ref, TorchGraph, evaluate, lower, without_softmax
from lipcompare.network.graph import Network
from lipcompare.network.lowering.constants import require_finite, require_real
from lipcompare.network.room import MEMORY, Room, count
from lipcompare.network.shapes import one_example, one_of_each
from lipcompare.network.simplify import simplify

T = TypeVar("T")


def from_module(
    module: nn.Module,
    *,
    input_shape: Sequence[int] | None = None,
    name: str | None = None,
    memory: int = MEMORY,
    logits: bool = False,
) -> Network:
    """Import a torch module in evaluation mode.

    Args:
        module: takes a batch (N, *input_shape) and returns one tensor. It is traced with ``torch.export``, and neither
            its weights nor its training flags change.
        input_shape: shape of one example without the batch axis; may be left out if the first layer is a ``Linear``.
        name: name of the network (default: the class name).
        memory: bytes that the import may take beyond what the module's own size explains.
        logits: leave out a softmax at the end.

    Raises:
        InvalidInput: the model does not run or cannot be traced, has NaN or infinite weights, does not fit in memory,
            or the result differs.
        UnsupportedOperation: an operation has no lowering.
    """
    _check_tensors(module)
    shape = _guessed_shape(module) if input_shape is None else tuple(int(n) for n in input_shape)
    guess = (
        ""
        if input_shape is not None
        else (", which is a guess from the first Linear layer: give input_shape (--input-shape) if it is another")
    )
    room = Room(memory, _bytes_of((*module.parameters(), *module.buffers())))
    room.require(count(shape), f"An input of shape {shape}")
    with _evaluation_mode(module), torch.no_grad():
        example = _example(module, shape, guess)
        program = _run(
            lambda: torch.export.export(module, (example,)),
            "torch.export cannot trace the model, perhaps as its code branches on values or leaves torch",
        )
        graph = graph_of(program, input_shape=shape)
        if logits:
            return from_graph(without_softmax(graph), name or type(module).__name__, room)
        network = simplify(lower(graph, name or type(module).__name__, room))
        device, dtype = example.device, example.dtype
        check_agreement(network, lambda x: _only(module(x[None].to(device, dtype))).cpu(), dtype)
    return network


def _example(module: nn.Module, shape: tuple[int, ...], guess: str) -> Tensor:
    """An input on which the module runs, on the module's device and in its precision."""
    tensors = (t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point())
    first = next(tensors, None)
    device = torch.device("cpu") if first is None else first.device
    # A module without parameters may still hold tensors that torch does not know of: they have either precision.
    dtypes = (torch.get_default_dtype(), torch.float64) if first is None else (first.dtype,)
    sentence = f"The model does not run on an input of shape {(1, *shape)}{guess}"
    refusals: list[InvalidInput] = []
    for dtype in dtypes:
        example = torch.zeros((1, *shape), dtype=dtype, device=device)
        try:
            _run(lambda example=example: module(example), sentence)  # type: ignore[misc]
        except InvalidInput as error:
            refusals.append(error)
        else:
            return example
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding):
            raise InvalidInput(
                f"{name or 'The model'} is an Embedding, which takes integers, and a Lipschitz constant is one over "
                "real numbers: give the part of the model after it."
            )
    raise refusals[0]


def _only(result: Any) -> Tensor:
    """What a model returns: a tensor, perhaps as the one entry of a tuple, list or dictionary."""
    while not isinstance(result, Tensor):
        (result,) = result.values() if isinstance(result, Mapping) else result
    return result


def _check_tensors(module: nn.Module) -> None:
    """That the module has numbers, and that they are finite."""
    for what, tensors in (("Parameter", module.named_parameters()), ("Buffer", module.named_buffers())):
        for name, tensor in tensors:
            if nn.parameter.is_lazy(tensor):
                raise InvalidInput(
                    f"{what} {name!r} of a lazy module has no shape yet: run the model once on an example first."
                )
            if tensor.is_meta:
                raise InvalidInput(
                    f"{what} {name!r} is on the meta device and has no numbers: load the trained weights first."
                )
            require_real(tensor, f"{what} {name!r}")
            if what == "Parameter":
                require_finite(tensor, f"{what} {name!r}")


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    """Memory that tensors hold, each piece of it counted once."""
    storages = {s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in tensors if t.layout == torch.strided)}
    return sum(storages.values())


def from_exported(
    program: ExportedProgram,
    *,
    input_shape: Sequence[int] | None = None,
    name: str = "network",
    memory: int = MEMORY,
    logits: bool = False,
) -> Network:
    """Import an exported program with one tensor input, exported with batch size 1 or a dynamic batch.

    Args:
        program: from ``torch.export.export``, decomposed or not.
        input_shape: shape of one example without the batch axis, needed only where the program's own is ambiguous.
        name: name of the network.
        memory, logits: as for :func:`from_module`.

    Raises:
        InvalidInput, UnsupportedOperation: as :func:`from_module`.
    """
    graph = graph_of(program, input_shape=input_shape)
    graph = without_softmax(graph) if logits else graph
    return from_graph(graph, name, Room(memory, _bytes_of(graph.constants.values())))


def from_graph(graph: TorchGraph, name: str, room: Room) -> Network:
    """Lower and simplify a graph, and check the result against torch's own evaluation of it."""
    network = simplify(lower(graph, name, room))
    with torch.no_grad():
        check_agreement(network, lambda x: evaluate(graph, x), graph.dtype)
    return network


def graph_of(program: ExportedProgram, *, input_shape: Sequence[int] | None = None) -> TorchGraph:
    """The calls and constants of an exported program."""
    nodes = program.graph.nodes
    if any(n.op == "get_attr" or _mutable(n.target) for n in nodes):
        # Without in-place operations and without parts (``with torch.no_grad()``) that are graphs of their own.
        program = _run(lambda: program.run_decompositions({}), "torch.export cannot remove in-place operations")
        nodes = program.graph.nodes
    signature = program.graph_signature
    constants: dict[str, Tensor] = {}
    inputs: list[str] = []
    for spec in signature.input_specs:
        if spec.kind == InputKind.USER_INPUT:
            if isinstance(getattr(spec.arg, "value", None), (int, float, bool, str)):
                continue
            inputs.append(spec.arg.name)
        elif spec.target in program.state_dict:
            constants[spec.arg.name] = program.state_dict[spec.target]
        elif spec.target in program.constants:
            constants[spec.arg.name] = program.constants[spec.target]
    outputs = [k for k, s in enumerate(signature.output_specs) if s.kind == OutputKind.USER_OUTPUT]
    one_of_each(len(inputs), len(outputs))
    for spec in signature.input_specs:
        if spec.kind == InputKind.PARAMETER and spec.target in program.state_dict:
            require_finite(program.state_dict[spec.target], f"Parameter {spec.target!r}")
    calls: list[Call] = []
    example: Any = None
    result: Any = None
    for node in nodes:
        if node.op == "placeholder" and node.name == inputs[0]:
            example = node.meta["val"]
        elif node.op == "output":
            result = _argument(node.args[0])
        elif node.op == "get_attr":
            raise UnsupportedOperation(
                f"{_where(node)} is a graph of its own, which is not supported: write it inline."
            )
        elif node.op != "placeholder":
            where = _where(node)
            calls.append(Call(node.name, _target(node), _argument(node.args), _argument(dict(node.kwargs)), where))
    assert isinstance(example, Tensor)
    dims = [n if isinstance(n, int) else None for n in example.shape]
    shape, batched = one_example(dims, input_shape)
    return TorchGraph(
        calls=tuple(calls),
        constants=constants,
        input=inputs[0],
        input_shape=shape,
        dtype=example.dtype,
        batched=batched,
        output=result[outputs[0]],
    )


def _argument(item: Any) -> Any:
    if isinstance(item, torch.fx.Node):
        return Ref(item.name)
    if isinstance(item, dict):
        return {key: _argument(value) for key, value in item.items()}
    if isinstance(item, tuple):
        return tuple(map(_argument, item))
    return [*map(_argument, item)] if isinstance(item, list) else item


def _target(node: torch.fx.Node) -> str:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    module = getattr(target, "__module__", "").removeprefix("_")
    return f"{module}.{getattr(target, '__name__', target)}"


def _mutable(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def _where(node: torch.fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()))[0] if stack else ""
    return f"{path} ({node.name})" if path else node.name


def _guessed_shape(module: nn.Module) -> tuple[int, ...]:
    """A vector as long as the first layer with parameters takes, if that is a Linear (parametrised or not)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            return (layer.in_features,)
        if any(True for _ in layer.parameters(recurse=False)):
            break
    raise InvalidInput(
        "The input shape cannot be read off the first layer: give input_shape, the shape of one example without "
        "batch axis."
    )


def example_shape(module: nn.Module, inputs: Sequence[int]) -> tuple[int, ...] | None:
    """The shape of one example among ``inputs``, the shape of one or of a batch, as the first layer with parameters
    tells them apart; None where it is no convolution, or for a single number.

    Raises:
        InvalidInput: it is a convolution, and ``inputs`` has too few or too many axes for it.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            axes = 1 + len(layer.kernel_size)
            if not len(inputs):
                return None
            if len(inputs) not in (axes, axes + 1):
                sides = ", ".join(("length",) if axes == 2 else ("depth", "height", "width")[4 - axes :])
                raise InvalidInput(
                    f"The input has shape {tuple(inputs)}, and the first layer takes ({layer.in_channels}, {sides}) or "
                    "a batch of that: give it all of these axes, or say input_shape."
                )
            return tuple(inputs[-axes:])
        if any(True for _ in layer.parameters(recurse=False)):
            break
    return None


@contextlib.contextmanager
def _evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every part has its own training flag and its buffers back."""
    flags = {submodule: submodule.training for submodule in module.modules()}
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    module.eval()
    try:
        yield
    finally:
        for buffer, before in buffers:
            buffer.copy_(before)
        for submodule, training in flags.items():
            submodule.training = training


def _run(action: Callable[[], T], sentence: str) -> T:
    """Run the user's model or the tracer, either of which may raise anything, and say so in a sentence."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")  # nor are the graphs that the tracer prints anybody's concern
        try:
            return action()
        except LipcompareError:
            raise
        except Exception as error:  # noqa: BLE001 - what the model raises is its own choice, and is told here
            message = f"{sentence}: {summary(error)}"
    raise InvalidInput(message)
