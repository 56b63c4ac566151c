"""The network: affine maps and kinks ``max(z, alpha z)`` (ReLU: alpha = 0), in an order in which parents come first."""

from __future__ import annotations

import dataclasses
from functools import cached_property

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
    """``sum_i maps[i] value[parents[i]] + bias``."""

    parents: tuple[int, ...]
    maps: tuple[Map, ...]
    bias: Array  # (size,)

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
    """Node 0 is the input, the last node the output.

    Attributes:
        inputs: size of node 0.
        nodes: the others, numbered from 1 on.
        length: operations on the longest chain through the network, forward or backward, generously counted.
    """

    inputs: int
    nodes: tuple[Affine | Kink, ...]

    def __post_init__(self) -> None:
        for k, node in enumerate(self.nodes, 1):
            for parent in node.parents if isinstance(node, Affine) else (node.parent,):
                if not 0 <= parent < k:
                    raise ValueError(f"node {k} has the parent {parent}, which does not precede it")
            if isinstance(node, Affine):
                for parent, one in zip(node.parents, node.maps, strict=True):
                    if one.matrix.shape != (node.size, self.size(parent)):
                        raise ValueError(f"node {k}: a matrix {one.matrix.shape} does not fit its parent {parent}")
            elif node.size != self.size(node.parent) or bool((node.alpha > 1).any()):
                raise ValueError(f"node {k}: its slopes do not fit")

    def size(self, k: int) -> int:
        return self.inputs if k == 0 else self.nodes[k - 1].size

    @property
    def last(self) -> int:
        return len(self.nodes)

    @cached_property
    def kinks(self) -> tuple[int, ...]:
        return tuple(k for k, node in enumerate(self.nodes, 1) if isinstance(node, Kink))

    @cached_property
    def first_gate(self) -> dict[int, int]:
        """Number of the first gate of every kink node; gates are numbered from the input on."""
        numbers, total = {}, 0
        for k in self.kinks:
            numbers[k] = total
            total += self.size(k)
        return numbers

    @cached_property
    def gates(self) -> int:
        return sum(self.size(k) for k in self.kinks)

    @cached_property
    def length(self) -> int:
        total = 16
        for node in self.nodes:
            total += 16 if isinstance(node, Kink) else 4 + sum(sum(m.matrix.shape) for m in node.maps)
        return total

    def to(self, arithmetic: Arithmetic) -> Network:
        """The same network in another arithmetic."""
        made: list[Affine | Kink] = []
        for node in self.nodes:
            if isinstance(node, Kink):
                made.append(Kink(node.parent, arithmetic.array(node.alpha)))
            else:
                maps = tuple(Map(arithmetic.array(m.matrix)) for m in node.maps)
                made.append(Affine(node.parents, maps, arithmetic.array(node.bias)))
        return Network(self.inputs, tuple(made))
