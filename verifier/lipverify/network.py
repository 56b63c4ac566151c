"""The network: affine maps and kinks ``max(z, alpha z)`` (ReLU: alpha = 0), parents first; and what is asked of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from lipverify.numbers import GROWTH, SMALL, Arithmetic, Array, Floating


class Affine(NamedTuple):
    """``sum of matrix times value[parent] + bias`` over the terms ``(parent, matrix)``, (size, parent's size) each."""

    terms: tuple[tuple[int, Array], ...]
    bias: Array  # (size,)

    @property
    def parents(self) -> tuple[int, ...]:
        return tuple(parent for parent, _ in self.terms)

    @property
    def numbers(self) -> tuple[Array, ...]:
        return (*(one for _, one in self.terms), self.bias)


class Kink(NamedTuple):
    """``max(z, alpha z)`` entry by entry, ``alpha <= 1``."""

    parent: int
    alpha: Array  # (size,)

    @property
    def parents(self) -> tuple[int, ...]:
        return (self.parent,)

    @property
    def numbers(self) -> tuple[Array, ...]:
        return (self.alpha,)


Through = Callable[[int, Affine | Kink, Any], Iterable[tuple[int, Any]]]


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
            if not all(0 <= parent < k for parent in node.parents):
                raise ValueError(f"node {k} has one of the parents {node.parents} that does not precede it")
            if isinstance(node, Affine):
                if any(one.shape != (self.size(k), self.size(parent)) for parent, one in node.terms):
                    raise ValueError(f"node {k}: a matrix does not fit its parent")
            elif self.size(k) != self.size(node.parent) or bool((node.alpha > 1).any()):
                raise ValueError(f"node {k}: its slopes do not fit, or are above 1")
        if min(self.size(k) for k in range(self.last + 1)) < 1:
            raise ValueError("a node without entries")

    def size(self, k: int) -> int:
        return self.inputs if k == 0 else len(self.nodes[k - 1].numbers[-1])

    @property
    def last(self) -> int:
        return len(self.nodes)

    @cached_property
    def kinks(self) -> dict[int, Kink]:
        """By their numbers, from the input on."""
        return {k: node for k, node in enumerate(self.nodes, 1) if isinstance(node, Kink)}

    @cached_property
    def first_gate(self) -> dict[int, int]:
        """Number of the first gate of every kink node."""
        return {k: sum(self.size(j) for j in self.kinks if j < k) for k in self.kinks}

    @cached_property
    def gates(self) -> int:
        return sum(self.size(k) for k in self.kinks)

    @cached_property
    def length(self) -> int:
        """Operations on the longest chain through the network, forward or backward, and on the inputs, generously
        counted."""
        chains = (16 if isinstance(n, Kink) else 4 + sum(sum(m.shape) for _, m in n.terms) for n in self.nodes)
        return 32 + self.inputs + sum(chains)

    def backward(self, start: Mapping[int, Any], through: Through) -> Any:
        """Carry tuples of values from the nodes in ``start`` back to the input; None if none arrives.

        Args:
            through: what a node's tuple is for its parents, given the node's number, the node and the tuple. Where
                several arrive at a node they are added, entry by entry.
        """
        waiting = dict(start)
        for k in range(max(start), 0, -1):
            if k in waiting:
                for parent, part in through(k, self.nodes[k - 1], waiting.pop(k)):
                    old = waiting.get(parent)
                    waiting[parent] = part if old is None else tuple(a + b for a, b in zip(old, part, strict=True))
        return waiting.get(0)

    def to(self, arithmetic: Arithmetic) -> Network:
        """The same network in another arithmetic."""
        nodes: list[Affine | Kink] = []
        for node in self.nodes:
            *matrices, last = (arithmetic.array(values) for values in node.numbers)
            terms = tuple(zip(node.parents, matrices, strict=False))
            nodes.append(Affine(terms, last) if isinstance(node, Affine) else Kink(node.parent, last))
        return Network(self.inputs, tuple(nodes))


class Leaf(NamedTuple):
    """A case, and what proves it: multipliers of a semidefinite bound (by gate, by entry, by pair of forms), or of
    contradicting decisions."""

    decisions: tuple[int, ...] = ()
    theta: Mapping[int, float] = {}
    lam: Mapping[int, float] = {}
    conflict: Mapping[int, float] = {}
    cuts: Mapping[int, float] = {}


class Refused(Exception):
    """A part of a certificate proves nothing; the message says why."""


class Question(NamedTuple):
    """The dual norm of the gradient of every row times the network, over a box.

    Attributes:
        lower, upper: (inputs,).
        rows: (rows, outputs).
        norm: ``inf``, ``2`` or ``1``, the norm on the input. Bounds for ``2`` are on squares until the end.
    """

    network: Network
    arithmetic: Arithmetic
    lower: Array
    upper: Array
    rows: Array
    norm: str

    def to(self, arithmetic: Arithmetic) -> Question:
        """The same question in another arithmetic.

        Raises:
            Refused: doubles might overflow or underflow in a way that their error bounds do not cover.
        """
        if isinstance(arithmetic, Floating) and not self._fits():
            raise Refused("numbers are too large or too small for doubles: only rational arithmetic proves anything")
        lower, upper, rows = (arithmetic.array(v) for v in (self.lower, self.upper, self.rows))
        return Question(self.network.to(arithmetic), arithmetic, lower, upper, rows, self.norm)

    def _fits(self) -> bool:
        """Whether no number that a pass forms is above 2^GROWTH, and no product of numbers that are not 0 vanishes."""
        large, small = 0.0, 0.0
        for parts in ([self.lower, self.upper], [self.rows], *(node.numbers for node in self.network.nodes)):
            sizes = [np.abs(part) for part in parts]
            large += 2 + np.log2(1 + sum(max(v.sum(axis).max() for axis in range(v.ndim)) for v in sizes))
            small -= np.log2(min(v.min(initial=1.0, where=v > 0) for v in sizes))
        return bool(large <= GROWTH and small <= SMALL)
