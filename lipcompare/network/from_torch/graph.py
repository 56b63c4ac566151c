"""A traced torch model as a plain list of calls, whatever it was read from, and its lowering.

Module, exported program and ``.pt2`` file all become a :class:`TorchGraph`: names of ATen operators with their
arguments, nothing that can be executed but what the tables of :mod:`~lipcompare.network.from_torch.operations` list.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lipcompare.errors import InvalidInput, UnsupportedOperation
from lipcompare.network.from_torch.moves import aten, is_movement, move, result_shapes
from lipcompare.network.from_torch.operations import LOWERINGS, PROBED, READERS, SOFTMAX, supported
from lipcompare.network.graph import Network
from lipcompare.network.lowering import axes
from lipcompare.network.lowering.builder import Builder, NotLinear, Value, unsupported
from lipcompare.network.lowering.constants import double
from lipcompare.network.lowering.decomposed import Pending, settle
from lipcompare.network.lowering.heads import no_softmax
from lipcompare.network.room import Room


@dataclass(frozen=True)
class Ref:
    """The result of an earlier call, a constant or the input, by name."""

    name: str


@dataclass(frozen=True)
class Call:
    """One operator call. ``target`` is ``aten.conv2d.default``, ``operator.getitem``, ...; ``where`` is for people."""

    name: str
    target: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    where: str


@dataclass(frozen=True)
class TorchGraph:
    """A model with one input and one output.

    Attributes:
        calls: in order of execution.
        constants: parameters, buffers and lifted constants by name.
        input: name of the input; ``input_shape`` is its shape at batch size 1, ``dtype`` its type.
        batched: whether axis 0 of the input is the batch axis.
        output: the result.
    """

    calls: tuple[Call, ...]
    constants: Mapping[str, Tensor]
    input: str
    input_shape: tuple[int, ...]
    dtype: torch.dtype
    batched: bool
    output: Any


_OPERATORS: dict[str, Callable[..., Any]] = {
    f"operator.{name}": getattr(operator, name)
    for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pow", "getitem",
                 "eq", "ne", "lt", "le", "gt", "ge")
}  # fmt: skip
# Checks that exporters leave behind; they have no result.
_CHECKS = ("aten._assert", "aten.sym_constrain", "aten._check")


def lower(graph: TorchGraph, name: str, room: Room) -> Network:
    """The graph as a network, one node per operation (not yet simplified).

    Raises:
        UnsupportedOperation: an operation is not in the tables.
        InvalidInput: something in it takes more memory than there is ``room``.
    """
    if not graph.dtype.is_floating_point:
        raise InvalidInput(
            f"The model's input is of type {str(graph.dtype).removeprefix('torch.')}, and a Lipschitz constant is one "
            "over real numbers: give the part of the model after an embedding or a cast."
        )
    builder = Builder(graph.input_shape, room)
    for key, value in graph.constants.items():
        room.require(value.numel(), f"The constant {key!r}")
    env: dict[str, Any] = {key: double(value, f"The constant {key!r}") for key, value in graph.constants.items()}
    env[graph.input] = builder.input
    mutations = _Mutations(graph)
    for call in graph.calls:
        mutations.check(call)
        if call.target.startswith(_CHECKS):
            continue
        args, kwargs = _resolve(call.args, env), _resolve(dict(call.kwargs), env)
        builder.at = call.where
        try:
            result = _apply(builder, call.target, args, kwargs)
        except NotLinear as reason:
            raise _unsupported(call, str(reason)) from None
        env[call.name] = result
        mutated = mutations.target(call)
        if mutated is not None:
            env[mutated] = result
    output = _resolve(graph.output, env)
    if isinstance(output, Pending):
        last = next(call for call in graph.calls if env.get(call.name) is output)
        try:
            output = settle(builder, output)
        except NotLinear as reason:
            raise _unsupported(last, str(reason)) from None
    if not isinstance(output, (Value, Tensor)):
        raise InvalidInput("The model returns something that is not one tensor: wrap it so that it returns one tensor.")
    shape = tuple(output.shape)
    outer = shape[1:] if graph.batched and shape[:1] == (1,) else shape
    return builder.finish(output, graph.input_shape[1:] if graph.batched else graph.input_shape, outer, name)


def without_softmax(graph: TorchGraph) -> TorchGraph:
    """The graph up to the softmax that is its last operation.

    Raises:
        InvalidInput: it ends in another operation.
    """
    calls = {call.name: call for call in graph.calls}
    output, dropped = graph.output, set[str]()
    while isinstance(output, Ref) and output.name in calls:
        call = calls[output.name]
        operation = call.target.split(".")[1]
        dropped.add(call.name)
        if operation in SOFTMAX:
            kept = tuple(call for call in graph.calls if call.name not in dropped)
            return replace(graph, calls=kept, output=call.args[0])
        if operation not in _COPIES:
            raise no_softmax(operation)
        output = call.args[0]
    raise no_softmax("its input")


_COPIES = ("alias", "clone", "detach", "contiguous", "to", "_to_copy")


def evaluate(graph: TorchGraph, x: Tensor) -> Tensor:
    """The model's own value, computed by torch operator by operator.

    Args:
        x: one input, with or without the batch axis.
    """
    env: dict[str, Any] = {key: value.detach().cpu().clone() for key, value in graph.constants.items()}
    env[graph.input] = x.reshape(graph.input_shape).to(graph.dtype, copy=True)
    for call in graph.calls:
        if not call.target.startswith(_CHECKS):
            args, kwargs = _resolve(call.args, env), _resolve(dict(call.kwargs), env)
            env[call.name] = _execute(call.target, args, kwargs)
    result = _resolve(graph.output, env)
    assert isinstance(result, Tensor)
    return result


def _apply(builder: Builder, target: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Result of one call: lowered if it depends on the input, computed if it does not."""
    operation = target.rsplit(".", 1)[0] if target.startswith("aten.") else target
    if target in _OPERATORS:
        if any(isinstance(a, (Value, Tensor)) for a in args):
            raise NotLinear("comparing or combining values outside torch is not supported")
        return _OPERATORS[target](*args, **kwargs)
    if operation.startswith("aten.sym_"):
        return _size(args)
    plain = operation.removesuffix("_") if _writes(target) else operation
    if not _depends([*args, *kwargs.values()]):
        return _fold(builder, target, args, kwargs)
    if plain not in READERS:
        args, kwargs = _settled(builder, args), _settled(builder, kwargs)
    if plain in LOWERINGS:
        return LOWERINGS[plain](builder, *args, **_known(kwargs))
    if is_movement(plain):
        return move(builder, target, args, kwargs)
    if plain in PROBED:
        return _probe(builder, target, PROBED[plain], args, kwargs)
    raise NotLinear("")


def _probe(builder: Builder, target: str, slots: Sequence[int], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """A call that is affine in any one of the arguments at ``slots``."""
    moving = [i for i, arg in enumerate(args) if _depends(arg)]
    if len(moving) != 1 or moving[0] not in slots or _depends(list(kwargs.values())):
        raise NotLinear("it is supported where one of its factors depends on the input")
    (i,) = moving
    fixed = [arg.double() if isinstance(arg, Tensor) and arg.is_floating_point() else arg for arg in args]
    return axes.probed(builder, args[i], lambda x: _execute(target, [*fixed[:i], x, *fixed[i + 1 :]], kwargs))


def _fold(builder: Builder, target: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """A call whose operands are constants, computed once its result is known to fit in memory."""
    if target.startswith("aten.") and not target.startswith("aten.sym_"):
        for shape in result_shapes(target, args, kwargs):
            builder.require(shape)
    return _execute(target, args, kwargs)


def _execute(target: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    if target in _OPERATORS:
        return _OPERATORS[target](*args, **kwargs)
    if target.startswith("aten.sym_"):
        return _size(args)
    kwargs = {k: v for k, v in kwargs.items() if k not in ("device", "pin_memory", "layout")}
    return aten(target)(*args, **kwargs)


def _size(args: Sequence[Any]) -> Any:
    shape = tuple(args[0].shape)
    return shape[args[1]] if len(args) > 1 else int(torch.Size(shape).numel())


def _known(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that say something about the function, and not where or in what precision it is computed."""
    return {k: v for k, v in kwargs.items() if k not in ("dtype", "device", "layout", "pin_memory", "memory_format",
                                                         "non_blocking", "copy", "implicit")}  # fmt: skip


def _writes(target: str) -> bool:
    operation = target.split(".")[1] if target.count(".") else ""
    return operation.endswith("_") and not operation.endswith("__")


def _depends(item: Any) -> bool:
    if isinstance(item, (list, tuple)):
        return any(map(_depends, item))
    return isinstance(item, (Value, Pending))


def _settled(builder: Builder, item: Any) -> Any:
    """The same with values in place of results that are none yet."""
    if isinstance(item, Mapping):
        return {key: _settled(builder, part) for key, part in item.items()}
    if isinstance(item, (list, tuple)):
        return [_settled(builder, part) for part in item]
    return settle(builder, item) if isinstance(item, Pending) else item


def _resolve(item: Any, env: Mapping[str, Any]) -> Any:
    if isinstance(item, Ref):
        return env[item.name]
    if isinstance(item, dict):
        return {key: _resolve(value, env) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return (
            [_resolve(part, env) for part in item]
            if isinstance(item, list)
            else tuple(_resolve(part, env) for part in item)
        )
    return item


def _unsupported(call: Call, reason: str) -> UnsupportedOperation:
    return unsupported(call.target.rsplit(".", 1)[0], call.where, reason, supported())


class _Mutations:
    """Refuses in-place operations whose effect on another view of the same memory would be lost.

    An in-place operation rebinds its own argument; every other name that shares the memory is stale from then on.
    """

    def __init__(self, graph: TorchGraph) -> None:
        self._active = any(_writes(call.target) for call in graph.calls)
        self._group: dict[str, str] = {}
        self._stale: dict[str, str] = {}

    def target(self, call: Call) -> str | None:
        if _writes(call.target) and call.args and isinstance(call.args[0], Ref):
            return call.args[0].name
        return None

    def check(self, call: Call) -> None:
        if not self._active:
            return
        for name in _names([*call.args, *call.kwargs.values()]):
            if name in self._stale:
                raise _unsupported(
                    call,
                    f"it reads memory that {self._stale[name]} changed in place; write that operation out of place",
                )
        written = self.target(call)
        first = call.args[0] if call.args else None
        views = call.target == "operator.getitem" or (
            call.target.startswith("aten.") and is_movement(call.target.rsplit(".", 1)[0])
        )
        if isinstance(first, Ref) and (views or written is not None):
            self._group[call.name] = self._group.get(first.name, first.name)
        if written is not None:
            group = self._group.get(written, written)
            for other in [group, *(name for name, g in self._group.items() if g == group)]:
                if other not in (written, call.name):
                    self._stale[other] = call.where


def _names(item: Any) -> list[str]:
    if isinstance(item, Ref):
        return [item.name]
    if isinstance(item, (list, tuple)):
        return [name for part in item for name in _names(part)]
    return []
