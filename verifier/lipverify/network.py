"""The network: affine maps and kinks ``max(z, alpha z)`` (ReLU: alpha = 0), in an order in which parents come first."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from lipverify.numbers import Arithmetic, Array


@dataclasses.dataclass(frozen=True, eq=False)
class Map:
    """One matrix (out, in) with what bounds need of it."""

    matrix: Array

    @cached_property
    def positive(self) -> Array:
        return np.maximum(self.matrix, 0 * self.matrix)

    @cached_property
    def negative(self) -> Array:
        return self.matrix - self.positive

    @cached_property
    def absolute(self) -> Array:
        return np.abs(self.matrix)


@dataclasses.dataclass(frozen=True, eq=False)
class Affine:
    """``sum of map times value[parent] + bias`` over the terms ``(parent, map)``."""

    terms: tuple[tuple[int, Map], ...]
    bias: Array  # (size,)

    @property
    def parents(self) -> tuple[int, ...]:
        return tuple(parent for parent, _ in self.terms)

    @property
    def size(self) -> int:
        return len(self.bias)


@dataclasses.dataclass(frozen=True, eq=False)
class Kink:
    """``max(z, alpha z)`` entry by entry, ``alpha <= 1``."""

    parent: int
    alpha: Array  # (size,)

    @property
    def size(self) -> int:
        return len(self.alpha)


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """Node 0 is the input, the last node the output; gates are the neurons of all kinks, from the input on.

    Attributes:
        inputs: size of node 0.
        nodes: the others, numbered from 1 on.
    """

    inputs: int
    nodes: tuple[Affine | Kink, ...]

    def __post_init__(self) -> None:
        for k, node in enumerate(self.nodes, 1):
            for parent in node.parents if isinstance(node, Affine) else (node.parent,):
                if not 0 <= parent < k:
                    raise ValueError(f"node {k} has the parent {parent}, which does not precede it")
            if isinstance(node, Affine):
                for parent, one in node.terms:
                    if one.matrix.shape != (node.size, self.size(parent)):
                        raise ValueError(f"node {k}: a matrix {one.matrix.shape} does not fit its parent {parent}")
            elif node.size != self.size(node.parent) or bool((node.alpha > 1).any()):
                raise ValueError(f"node {k}: its slopes do not fit, or are above 1")
        if min(self.size(k) for k in range(self.last + 1)) < 1:
            raise ValueError("a node without entries")

    def size(self, k: int) -> int:
        return self.inputs if k == 0 else self.nodes[k - 1].size

    def alpha(self, k: int) -> Array:
        """Slopes (size,) below the kinks of a kink node."""
        node = self.nodes[k - 1]
        if not isinstance(node, Kink):
            raise ValueError(f"node {k} has no kinks")
        return node.alpha

    @property
    def last(self) -> int:
        return len(self.nodes)

    @cached_property
    def kinks(self) -> tuple[int, ...]:
        return tuple(k for k, node in enumerate(self.nodes, 1) if isinstance(node, Kink))

    @cached_property
    def first_gate(self) -> dict[int, int]:
        """Number of the first gate of every kink node."""
        return {k: sum(self.size(j) for j in self.kinks if j < k) for k in self.kinks}

    @cached_property
    def gates(self) -> int:
        return sum(self.size(k) for k in self.kinks)

    @cached_property
    def length(self) -> int:
        """Operations on the longest chain through the network, forward or backward, generously counted."""
        chains = (16 if isinstance(n, Kink) else 4 + sum(sum(m.matrix.shape) for _, m in n.terms) for n in self.nodes)
        return 16 + sum(chains)

    def backward(
        self,
        start: Mapping[int, Any],
        through: Callable[[int, Affine | Kink, Any], Iterable[tuple[int, Any]]],
        add: Callable[[Any, Any], Any] = operator.add,
    ) -> Any:
        """Carry values from the nodes in ``start`` back to the input; None if none arrives.

        Args:
            through: what a node's value is for its parents, given the node's number, the node and the value.
            add: two values of one node.
        """
        waiting = dict(start)
        for k in range(max(start), 0, -1):
            if k in waiting:
                for parent, part in through(k, self.nodes[k - 1], waiting.pop(k)):
                    waiting[parent] = add(waiting[parent], part) if parent in waiting else part
        return waiting.get(0)

    def to(self, arithmetic: Arithmetic) -> Network:
        """The same network in another arithmetic."""
        number = arithmetic.array
        return Network(
            self.inputs,
            tuple(
                Kink(n.parent, number(n.alpha))
                if isinstance(n, Kink)
                else Affine(tuple((p, Map(number(m.matrix))) for p, m in n.terms), number(n.bias))
                for n in self.nodes
            ),
        )
