"""The network as a directed acyclic graph of affine maps and elementwise activations, and nothing else.

Node 0 is the input; the last node is the output; parents precede children. Every value is a flat vector (see
:mod:`~lipcompare.network.linear_maps`). A residual sum, a concatenation and a plain layer are the same node: a sum of
linear maps of parents plus a constant.

Whatever is computed along the graph, forwards or backwards, is :func:`fold_forward` or :func:`fold_backward` with the
rules of one kind of value: tensors, intervals, affine functions, expressions of a program.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, reduce
from typing import TypeVar

import torch
from torch import Tensor

from lipcompare.errors import InvalidInput
from lipcompare.network.activations import Activation
from lipcompare.network.linear_maps import LinearMap
from lipcompare.rounding import SPARE


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

    @cached_property
    def absolute_bias(self) -> Tensor | None:
        """The absolute values of the bias."""
        return None if self.bias is None else self.bias.abs()

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
                for tensor in tensors(node):
                    if not bool(torch.isfinite(tensor).all()):
                        raise InvalidInput(
                            f"Node {k} ({node.name or 'affine'}) has weights, or products of weights, that are no "
                            f"finite {str(tensor.dtype).removeprefix('torch.')} numbers: repair or rescale the model."
                        )
        if math.prod(self.input_shape) != self.in_size or math.prod(self.output_shape) != self.out_size:
            raise InvalidInput(f"Shapes {self.input_shape} -> {self.output_shape} do not fit the nodes.")

    def __repr__(self) -> str:
        layers = len(self.activations)
        return (
            f"<Network {self.name}: {self.input_shape} -> {self.output_shape}, {self.neurons} neurons in {layers} "
            f"activation layer{'' if layers == 1 else 's'}>"
        )

    @property
    def in_size(self) -> int:
        return self.nodes[0].size

    @property
    def out_size(self) -> int:
        return self.nodes[-1].size

    @cached_property
    def used(self) -> tuple[bool, ...]:
        """For every node whether the output depends on it."""
        used = [k == len(self.nodes) - 1 for k in range(len(self.nodes))]
        for k in range(len(self.nodes) - 1, 0, -1):
            for p in self.nodes[k].parents:
                used[p] |= used[k]
        return tuple(used)

    @cached_property
    def activations(self) -> tuple[int, ...]:
        """Indices of the activation nodes, from input to output, without those that the output does not depend on."""
        return tuple(k for k, node in enumerate(self.nodes) if isinstance(node, Activate) and self.used[k])

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
    def operations(self) -> int:
        """Upper bound on the floating-point operations from any number to the result of a pass through the network.

        Each node sums the terms of its maps, on the way there or back; somewhere on the way a functional of one node's
        values adds as many terms as that has; the rest is :data:`~lipcompare.rounding.SPARE`.
        """
        sums = (max(m.fan_in, m.fan_out) for node in self.nodes if isinstance(node, Affine) for m in node.maps)
        return sum(sums) + max(node.size for node in self.nodes) + SPARE * len(self.nodes)

    @cached_property
    def products(self) -> int:
        """Multiply-adds of one pass through the network."""
        return sum(m.fan_in * m.out_size for node in self.nodes if isinstance(node, Affine) for m in node.maps)

    @cached_property
    def widest(self) -> int:
        """Size of the largest node."""
        return max(node.size for node in self.nodes)

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
        """The same network on another device or in another precision; itself where it is there already.

        So what its maps know of themselves (their absolute values) is found once, and weights are checked once.
        """
        device = torch.device(device)

        def move(node: Node) -> Node:
            if isinstance(node, Affine):
                maps = tuple(m.to(device, dtype) for m in node.maps)
                bias = None if node.bias is None else node.bias.to(device=device, dtype=dtype)
                same = bias is node.bias and all(map(operator.is_, maps, node.maps))
                return node if same else dataclasses.replace(node, maps=maps, bias=bias)
            if isinstance(node, Activate):
                activation = node.activation.to(device, dtype)
                return node if activation is node.activation else dataclasses.replace(node, activation=activation)
            return node

        nodes = tuple(map(move, self.nodes))
        return self if all(map(operator.is_, nodes, self.nodes)) else dataclasses.replace(self, nodes=nodes)

    def values(self, x: Tensor) -> list[Tensor]:
        """Value of every node for inputs ``x`` of shape (..., in_size)."""
        values = [x]
        for node in self.nodes[1:]:
            if isinstance(node, Activate):
                values.append(node.activation.value(values[node.parent]))
            elif isinstance(node, Affine):
                values.append(affine_value(node, [(m, values[p]) for p, m in node.terms]))
        return values

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (..., out_size) for inputs ``x`` of shape (..., in_size)."""
        outputs = fold_forward(
            self,
            {0: x},
            lambda k, node, z: node.activation.value(z),
            lambda k, node, terms: affine_value(node, terms),
        )
        assert outputs is not None  # every node depends on the input
        return outputs

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
        last = len(self.nodes) - 1
        gradient = fold_backward(self, {last: rows}, lambda k, node, g: g * slopes[k], adjoints, stop=stop)
        return rows.new_zeros(*rows.shape[:-1], self.nodes[stop].size) if gradient is None else gradient


V = TypeVar("V")


def once_per_network(function: Callable[[Network], V]) -> Callable[[Network], V]:
    """Remember what a function says of a network for as long as the network lives."""
    answers: weakref.WeakKeyDictionary[Network, V] = weakref.WeakKeyDictionary()

    @functools.wraps(function)
    def remembered(network: Network) -> V:
        if network not in answers:
            answers[network] = function(network)
        return answers[network]

    return remembered


Terms = Sequence[tuple[LinearMap, V]]
"""Maps of an affine node with the values of their parents."""


def fold_forward(
    network: Network,
    given: Mapping[int, V],
    activation: Callable[[int, Activate, V], V | None],
    affine: Callable[[int, Affine, Terms[V]], V],
    *,
    stop: int | None = None,
) -> V | None:
    """The value of a node, made of those of its parents by the rule of its kind, and so on from the given ones.

    Nodes that depend on no given one have no value, and affine nodes have no terms for them. A value is forgotten once
    its last reader has it; whoever wants to keep some does so in a rule.

    Args:
        given: values of some nodes, at least one; no rule is asked for these.
        activation: ``(k, node, value of the parent)`` to the value of activation node ``k``; None where nothing is to
            go on from there.
        affine: ``(k, node, terms)``, at least one of them, to the value of affine node ``k``.
        stop: the node whose value is wanted (None: the output). Nodes after it are not visited, nor those that the
            output does not depend on.

    Returns:
        Its value, None if it depends on no given one.
    """
    stop = len(network.nodes) - 1 if stop is None else stop
    values = dict(given)

    def visit(k: int, node: Node) -> None:
        if isinstance(node, Activate) and node.parent in values:
            value = activation(k, node, values[node.parent])
            if value is not None:
                values[k] = value
        elif isinstance(node, Affine):
            terms = [(m, values[p]) for p, m in node.terms if p in values]
            if terms:
                values[k] = affine(k, node, terms)

    for k in range(min(given) + 1, stop + 1):
        node = network.nodes[k]
        if k not in given and network.used[k]:
            visit(k, node)
        for p in node.parents:
            if network.consumers[p][-1] == k:
                values.pop(p, None)
    return values.get(stop)


def fold_backward(
    network: Network,
    given: Mapping[int, V],
    activation: Callable[[int, Activate, V], V | None],
    affine: Callable[[int, Affine, Sequence[LinearMap], V], Iterable[V]],
    *,
    add: Callable[[V, V], V] = operator.add,
    stop: int = 0,
) -> V | None:
    """What the given nodes hand back to a node along all paths: each node passes its total on to its parents.

    A total is complete when its node's rule sees it, and forgotten then; whoever wants to keep some does so in a rule.
    Nodes from which no path leads to a given one have none.

    Args:
        given: values that nodes start from, at least one; what readers hand back is added to them.
        activation: ``(k, node, total)`` to what activation node ``k`` hands to its parent; None for nothing.
        affine: ``(k, node, maps, total)`` to what affine node ``k`` hands back through each of its ``maps``, of which
            those to nodes before ``stop`` are left out.
        add: the sum of two values for the same node, the one that came first (from the later reader) first.
        stop: the node whose total is wanted (0: the input). Nodes before it are not visited, and it is not passed on.

    Returns:
        Its total, None if no path leads from it to a given node.
    """
    values = dict(given)

    def hand(p: int, value: V) -> None:
        values[p] = add(values[p], value) if p in values else value

    def visit(k: int, node: Node, total: V) -> None:
        if isinstance(node, Activate) and node.parent >= stop:
            part = activation(k, node, total)
            if part is not None:
                hand(node.parent, part)
        elif isinstance(node, Affine):
            terms = [(p, m) for p, m in node.terms if p >= stop]
            parts = affine(k, node, [m for _, m in terms], total)
            for (p, _), share in zip(terms, parts, strict=True):
                hand(p, share)

    for k in range(max(given), stop, -1):
        if k in values:
            visit(k, network.nodes[k], values.pop(k))
    return values.get(stop)


def linear_value(terms: Terms[Tensor]) -> Tensor:
    """The sum of the maps of an affine node, applied to their parents' values; these broadcast. No bias."""
    return reduce(operator.add, (m.forward(value) for m, value in terms))


def affine_value(node: Affine, terms: Terms[Tensor]) -> Tensor:
    """Value of an affine node: the sum of its terms and its bias."""
    total = linear_value(terms)
    return total if node.bias is None else total + node.bias


def adjoints(k: int, node: Affine, maps: Sequence[LinearMap], gradient: Tensor) -> Iterator[Tensor]:
    """The rule of the chain rule at an affine node, for :func:`fold_backward`."""
    return (m.adjoint(gradient) for m in maps)


def tensors(item: object) -> Iterator[Tensor]:
    """Every floating-point tensor inside a node, or inside anything made of dataclasses and tuples."""
    if isinstance(item, Tensor):
        if item.is_floating_point():
            yield item
    elif isinstance(item, tuple):
        for part in item:
            yield from tensors(part)
    elif dataclasses.is_dataclass(item) and not isinstance(item, type):
        for field in dataclasses.fields(item):
            yield from tensors(getattr(item, field.name))
