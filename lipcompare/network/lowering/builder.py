"""A network under construction: nodes, and the shape that the source model gives each value.

Shapes are those of the source at batch size 1, with the batch axis still there: one example is the model run on a batch
of one, so an operation means exactly what the source says and no rule needs to know which axis is the batch.

A constant is a plain float64 (or integer) tensor; an :data:`Operand` is a value or a constant.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from lipcompare.errors import InvalidInput, UnsupportedOperation, suggestions
from lipcompare.network.activations import Activation, LeakyReLU
from lipcompare.network.graph import Activate, Affine, Input, Network, Node, affine_value, linear_value, tensors
from lipcompare.network.linear_maps import Identity, LinearMap, Select, Transposed
from lipcompare.network.room import Room, count


class NotLinear(Exception):
    """Why an operation has no lowering; the importers turn it into an ``UnsupportedOperation`` that names the node."""


def unsupported(operation: str, where: str, reason: str, supported: Sequence[str]) -> UnsupportedOperation:
    """The error that names an operation, its node, why it has no lowering, and what has one and almost its name."""
    because = f": {reason}" if reason else ""
    like = suggestions(operation.removeprefix("aten."), supported)
    near = f"Supported, with names like it: {', '.join(like)}. " if like else ""
    told = f"Operation {operation!r} at {where} is not supported{because}. {near}"
    return UnsupportedOperation(f"{told}`lipcompare operations` lists all that are.")


@dataclasses.dataclass(frozen=True)
class Value:
    """A value that depends on the network's input: a node and the shape in which the source sees it."""

    node: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


Operand = Value | Tensor


class Builder:
    """Appends nodes. ``at`` names the source node at work and ends up in the nodes' names; ``room`` is the memory."""

    def __init__(self, input_shape: Sequence[int], room: Room) -> None:
        self.room = room
        room.take(2 * count(input_shape), f"An input of shape {tuple(input_shape)}")
        self.nodes: list[Node] = [Input(math.prod(input_shape))]
        self.input = Value(0, tuple(input_shape))
        self.at = ""
        self._known: dict[Hashable, Value] = {}

    def affine(
        self,
        terms: Sequence[tuple[Value, LinearMap]],
        shape: Sequence[int],
        bias: Tensor | None = None,
        *,
        key: Hashable = None,
    ) -> Value:
        """A sum of linear maps of values plus a constant.

        Args:
            terms: values and the maps that act on their flat vectors.
            shape: shape of the result.
            bias: constant of any shape with as many entries as ``shape``.
            key: what identifies this node; a second request with the same key returns the first node.
        """

        self.require(shape)

        def make() -> Node:
            flat = None if bias is None else bias.to(torch.float64).reshape(-1)
            return Affine(tuple(v.node for v, _ in terms), tuple(m for _, m in terms), flat, self.at)

        return self._append(make, key, tuple(shape))

    def require(self, shape: Sequence[int], copies: int = 1) -> None:
        """Room for a value of that shape, which is about to be computed ``copies`` times over."""
        self.room.require(copies * count(shape), f"A value of shape {tuple(shape)} in {self.at or 'the model'}")

    def activate(self, x: Value, activation: Activation) -> Value:
        """An elementwise activation."""
        # The same ReLU of the same value is one set of neurons: GroupSort writes max and min with a shared difference.
        key = None
        if isinstance(activation, LeakyReLU) and not isinstance(activation.alpha, Tensor):
            key = ("activate", x.node, activation.alpha)
        return self._append(lambda: Activate(x.node, activation, x.size, self.at), key, x.shape)

    def constant(self, value: Tensor) -> Value:
        """A constant as a value (needed only where the network's output does not depend on its input)."""
        nothing = Select(torch.full((value.numel(),), -1), self.input.size)
        return self.affine([(self.input, nothing)], value.shape, value)

    def finish(self, output: Operand, input_shape: Sequence[int], output_shape: Sequence[int], name: str) -> Network:
        """The network that ends in ``output``; shapes without the batch axis."""
        if 0 in output.shape:
            raise InvalidInput(f"The model's output has the shape {tuple(output.shape)}, and so no entries.")
        if isinstance(output, Tensor):
            output = self.constant(output)
        # An Affine at the end: the output may be a node that others read, or the input itself.
        output = self.affine([(output, Identity(output.size))], output.shape)
        return Network(tuple(self.nodes[: output.node + 1]), tuple(input_shape), tuple(output_shape), name)

    def _append(self, make: Callable[[], Node], key: Hashable, shape: tuple[int, ...]) -> Value:
        if key is not None and key in self._known:
            return dataclasses.replace(self._known[key], shape=shape)
        node = make()
        # The node's value and its gradient, for one example, and its weights.
        self.room.take(2 * node.size + sum(t.numel() for t in tensors(node)), node.name or "A constant")  # type: ignore[union-attr]
        self.nodes.append(node)
        value = Value(len(self.nodes) - 1, shape)
        if key is not None:
            self._known[key] = value
        return value


_LABELS = 4
"""Numbers that :func:`rearrange` holds for each entry of its result: label, index, mask and constant."""


def rearrange(
    builder: Builder, operands: Sequence[Operand], op: Callable[..., Tensor], *, fill: float = 0.0
) -> Operand:
    """Any operation whose result entries are copies of operand entries: transpose, slice, pad, concatenate, ...

    ``op`` is run once on tensors of labels (float64, of the operands' shapes), which tells where each entry comes from.
    Label 0 is nobody's: where ``op`` writes zeros (padding), the result is the constant ``fill``.
    """
    labels, start = [], 1
    for operand in operands:
        size = math.prod(operand.shape)
        labels.append(torch.arange(start, start + size, dtype=torch.float64).reshape(tuple(operand.shape)))
        start += size
    result = op(*labels)
    shape, flat = tuple(result.shape), result.reshape(-1).round().to(torch.int64)

    sources: dict[int, tuple[int, Tensor]] = {}  # node -> (size, index into its vector, -1 elsewhere)
    bias, start = (flat == 0).to(torch.float64) * fill, 1
    for operand in operands:
        size = math.prod(operand.shape)
        mine = (flat >= start) & (flat < start + size)
        if isinstance(operand, Tensor):
            bias[mine] = operand.to(torch.float64).reshape(-1)[flat[mine] - start]
        elif bool(mine.any()):
            _, index = sources.get(operand.node, (size, torch.full_like(flat, -1)))
            sources[operand.node] = (size, torch.where(mine, flat - start, index))
        start += size
    if not sources:
        return bias.reshape(shape)
    constant = bias if bool(bias.any()) else None
    if len(sources) == 1 and constant is None:
        (node, (size, index)) = next(iter(sources.items()))
        if torch.equal(index, torch.arange(size)):
            return Value(node, shape)  # a reshape
    terms: list[tuple[Value, LinearMap]] = []
    for node, (size, index) in sources.items():
        terms.append((Value(node, (size,)), _placement(index, size)))
    key = None
    if constant is None:
        key = ("select", *((node, index.numpy().tobytes()) for node, (_, index) in sources.items()))
    return builder.affine(terms, shape, constant, key=key)


def _placement(index: Tensor, size: int) -> LinearMap:
    """The map ``y_i = x[index_i]`` (0 where -1), as a scatter where the whole of x goes to distinct places among
    holes."""
    filled = torch.nonzero(index >= 0).reshape(-1)
    if filled.numel() == size < index.numel() and torch.unique(index[filled]).numel() == size:
        # Backward bounds apply adjoints, and the adjoint of a scatter is a plain gather.
        places = torch.empty(size, dtype=torch.int64)
        places[index[filled]] = filled
        return Transposed(Select(places, index.numel()))
    return Select(index, size)


def take(builder: Builder, x: Operand, index: Tensor) -> Operand:
    """Entries of the flat vector of ``x``; the result has the shape of ``index``."""
    return rearrange(builder, [x], lambda t: t.reshape(-1)[index])


def reshape(x: Operand, shape: Sequence[int]) -> Operand:
    """The same entries in another shape."""
    return x.reshape(tuple(shape)) if isinstance(x, Tensor) else Value(x.node, tuple(shape))


def expand(builder: Builder, x: Operand, shape: Sequence[int]) -> Operand:
    """Broadcast to ``shape``."""
    if tuple(x.shape) == tuple(shape):
        return x
    builder.require(shape, _LABELS)
    return rearrange(builder, [x], lambda t: t.expand(tuple(shape)))


def fixed(x: Operand, what: str) -> Tensor:
    """A constant, where an operation is linear for constants alone; ``what`` it is, for the error."""
    if isinstance(x, Value):
        raise NotLinear(f"its {what} depends on the input")
    return x


def per_channel(x: Operand, rank: int) -> Operand:
    """One number per channel, so that it broadcasts to (..., channels, *spatial) with ``rank`` spatial axes."""
    return reshape(x, (-1 if isinstance(x, Tensor) else x.size, *(1,) * rank))


def known(builder: Builder, x: Value) -> Tensor | None:
    """The constant that a value is where no entry of the input reaches it, as half of a concatenation may be; None for
    any other value."""
    reached, values = {0: torch.ones(builder.input.size)}, {0: torch.zeros(builder.input.size, dtype=torch.float64)}
    needed, stack = {x.node}, [x.node]
    while stack:
        before = {p for p in builder.nodes[stack.pop()].parents if p not in needed}
        needed |= before
        stack += before
    for k in sorted(needed - {0}):
        node = builder.nodes[k]
        if isinstance(node, Activate):
            reached[k], values[k] = reached[node.parent], node.activation.value(values[node.parent])
        elif isinstance(node, Affine):
            values[k] = affine_value(node, [(m, values[p]) for p, m in node.terms])
            size = linear_value([(m.absolute, reached[p].double()) for p, m in node.terms])
            reached[k] = (size > 0).to(torch.float32)
    return None if bool(reached[x.node].any()) else values[x.node].reshape(x.shape)


def as_value(builder: Builder, x: Operand) -> Value:
    """``x``, with a constant turned into a value."""
    return builder.constant(x) if isinstance(x, Tensor) else x
