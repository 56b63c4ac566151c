"""The network as a directed acyclic graph of affine maps and elementwise activations, and nothing else.

Node 0 is the input; the last node is the output; parents precede children. Every value is a flat vector (see
:mod:`~lipcompare.network.linear_maps`). A residual sum, a concatenation and a plain layer are the same node: a sum of
linear maps of parents plus a constant.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from lipcompare.errors import InvalidInput
from lipcompare.network.activations import Activation
from lipcompare.network.linear_maps import LinearMap


@dataclasses.dataclass(frozen=True, eq=False)
class Input:
    """The network's input."""

    size: int
    parents: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Affine:
    """``sum_i maps[i](value of parents[i]) + bias``."""

    parents: tuple[int, ...]
    maps: tuple[LinearMap, ...]
    bias: Tensor | None  # (size,)
    name: str = dataclasses.field(default="", compare=False)  # for people; no computation reads it

    @property
    def size(self) -> int:
        return self.maps[0].out_size

    @property
    def terms(self) -> Iterator[tuple[int, LinearMap]]:
        return zip(self.parents, self.maps, strict=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Activate:
    """``activation(value of parent)``, entry by entry."""

    parent: int
    activation: Activation
    size: int
    name: str = dataclasses.field(default="", compare=False)  # for people; no computation reads it

    @property
    def parents(self) -> tuple[int, ...]:
        return (self.parent,)


Node = Input | Affine | Activate


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A trained network. Build one with :func:`lipcompare.load` or one of the importers.

    Attributes:
        nodes: in topological order; node 0 is the :class:`Input`, the last one the output.
        input_shape, output_shape: shapes of one example as the source model has them, without the batch axis.
    """

    nodes: tuple[Node, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    name: str = dataclasses.field(default="network", compare=False)

    def __post_init__(self) -> None:
        if not self.nodes or not isinstance(self.nodes[0], Input):
            raise InvalidInput("A network starts with its Input node.")
        for k, node in enumerate(self.nodes):
            if any(p >= k for p in node.parents):
                raise InvalidInput(f"Node {k} has a parent that does not precede it: {node.parents}.")
            if isinstance(node, Affine):
                for p, m in node.terms:
                    if m.in_size != self.nodes[p].size or m.out_size != node.size:
                        raise InvalidInput(
                            f"Node {k} ({node.name or 'affine'}): a map {m.in_size} -> {m.out_size} does not fit "
                            f"between sizes {self.nodes[p].size} and {node.size}."
                        )
                for tensor in _tensors(node):
                    if not bool(torch.isfinite(tensor).all()):
                        raise InvalidInput(
                            f"Node {k} ({node.name or 'affine'}) has NaN or infinite weights: repair the model."
                        )
        if math.prod(self.input_shape) != self.in_size or math.prod(self.output_shape) != self.out_size:
            raise InvalidInput(f"Shapes {self.input_shape} -> {self.output_shape} do not fit the nodes.")

    @property
    def in_size(self) -> int:
        return self.nodes[0].size

    @property
    def out_size(self) -> int:
        return self.nodes[-1].size

    @cached_property
    def activations(self) -> tuple[int, ...]:
        """Indices of the activation nodes, from input to output."""
        return tuple(k for k, node in enumerate(self.nodes) if isinstance(node, Activate))

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """For every node the nodes that read it."""
        out: list[list[int]] = [[] for _ in self.nodes]
        for k, node in enumerate(self.nodes):
            for p in dict.fromkeys(node.parents):
                out[p].append(k)
        return tuple(map(tuple, out))

    @cached_property
    def reads(self) -> tuple[int, ...]:
        """For every node how often it is read; a node that reads a parent through two maps counts twice."""
        counts = Counter(p for node in self.nodes for p in node.parents)
        return tuple(counts[k] for k in range(len(self.nodes)))

    @cached_property
    def neurons(self) -> int:
        """Number of activation neurons."""
        return sum(self.nodes[k].size for k in self.activations)

    @property
    def piecewise_linear(self) -> bool:
        return all(self.activation(k).piecewise_linear for k in self.activations)

    def activation(self, k: int) -> Activation:
        """The activation function of activation node ``k``."""
        node = self.nodes[k]
        assert isinstance(node, Activate)
        return node.activation

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Network:
        """The same network on another device or in another precision."""
        device = torch.device(device)

        def move(node: Node) -> Node:
            if isinstance(node, Affine):
                return dataclasses.replace(
                    node,
                    maps=tuple(m.to(device, dtype) for m in node.maps),
                    bias=None if node.bias is None else node.bias.to(device=device, dtype=dtype),
                )
            if isinstance(node, Activate):
                return dataclasses.replace(node, activation=node.activation.to(device, dtype))
            return node

        return dataclasses.replace(self, nodes=tuple(map(move, self.nodes)))

    def values(self, x: Tensor) -> list[Tensor]:
        """Value of every node for inputs ``x`` of shape (..., in_size)."""
        values: list[Tensor] = []
        for node in self.nodes:
            if isinstance(node, Input):
                values.append(x)
            elif isinstance(node, Activate):
                values.append(node.activation.value(values[node.parent]))
            else:
                values.append(affine(node, values))
        return values

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (..., out_size) for inputs ``x`` of shape (..., in_size)."""
        return self.values(x)[-1]

    def slopes(self, values: Sequence[Tensor]) -> dict[int, Tensor]:
        """Derivative of every activation node, given all node values."""
        return {k: self.activation(k).derivative(values[self.nodes[k].parents[0]]) for k in self.activations}

    def pull_back(self, slopes: Mapping[int, Tensor], rows: Tensor, *, stop: int = 0) -> Tensor:
        """Gradient rows ``d (rows f) / d node``, with the activations' slopes given: the chain rule.

        Args:
            slopes: per activation node a tensor (..., n), broadcastable against the leading axes of ``rows``.
            rows: functionals on the output, (..., out_size).
            stop: the node whose gradient is wanted (0: the input).

        Returns:
            Tensor (..., size of node ``stop``).
        """
        grads: list[Tensor | None] = [None] * len(self.nodes)
        grads[-1] = rows
        for k in range(len(self.nodes) - 1, stop, -1):
            grad, node = grads[k], self.nodes[k]
            grads[k] = None
            if grad is None:
                continue
            if isinstance(node, Activate):
                _accumulate(grads, node.parent, grad * slopes[k])
            elif isinstance(node, Affine):
                for p, m in node.terms:
                    if p >= stop:
                        _accumulate(grads, p, m.adjoint(grad))
        result = grads[stop]
        return rows.new_zeros(*rows.shape[:-1], self.nodes[stop].size) if result is None else result


def affine(node: Affine, values: Sequence[Tensor]) -> Tensor:
    """Value of an affine node given the values of all nodes before it."""
    (p, m), *rest = node.terms
    total = m.forward(values[p])
    for p, m in rest:
        total = total + m.forward(values[p])
    return total if node.bias is None else total + node.bias


def _accumulate(grads: list[Tensor | None], k: int, grad: Tensor) -> None:
    old = grads[k]
    grads[k] = grad if old is None else old + grad


def _tensors(item: object) -> Iterator[Tensor]:
    """Every floating-point tensor inside a node."""
    if isinstance(item, Tensor):
        if item.is_floating_point():
            yield item
    elif isinstance(item, tuple):
        for part in item:
            yield from _tensors(part)
    elif dataclasses.is_dataclass(item) and not isinstance(item, type):
        for field in dataclasses.fields(item):
            yield from _tensors(getattr(item, field.name))
