"""A point and a pattern of slopes, without any error: the pattern must be valid there, its norm is the value.

Doubles are integers over powers of two, and nothing is divided here, so all of it is done with integers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from lipverify.network import Affine, Kink, Question, Refused
from lipverify.numbers import Array


@dataclasses.dataclass(frozen=True, eq=False)
class Dyadic:
    """``integers / whole`` entry by entry, ``whole`` a power of two."""

    integers: Array
    whole: int

    @classmethod
    def of(cls, values: Any) -> Dyadic:
        """Of doubles."""
        ratios = [value.as_integer_ratio() for value in np.ravel(values).tolist()]
        whole = max((below for _, below in ratios), default=1)
        integers = np.array([above * (whole // below) for above, below in ratios], object)
        return cls(integers.reshape(np.shape(values)), whole)

    def __add__(self, other: Dyadic) -> Dyadic:
        whole = max(self.whole, other.whole)
        one, another = (value.integers * (whole // value.whole) for value in (self, other))
        return Dyadic(one + another, whole)

    def __mul__(self, other: Dyadic) -> Dyadic:
        return Dyadic(self.integers * other.integers, self.whole * other.whole)

    def __matmul__(self, other: Dyadic) -> Dyadic:
        return Dyadic(self.integers @ other.integers, self.whole * other.whole)


def attained(
    question: Question, numbers: Sequence[Sequence[Dyadic]], row: Array, x: Array, sides: Mapping[int, Array]
) -> Fraction:
    """The dual norm of the gradient at a point: squared for p = 2.

    Args:
        question: in doubles.
        numbers: those of every node.
        row: (outputs,).
        x: (inputs,).
        sides: per kink node, which side (1 or -1) a neuron at its kink counts for; elsewhere the point decides.
    """
    network = question.network
    outside = np.flatnonzero((x < question.lower) | (x > question.upper))
    if len(outside):
        raise Refused(f"input {outside[0]} of the point lies outside the box")
    values, slopes = [Dyadic.of(x)], dict[int, Dyadic]()
    for k, (node, own) in enumerate(zip(network.nodes, numbers, strict=True), 1):
        if isinstance(node, Affine):
            value = own[-1]
            for parent, matrix in zip(node.parents, own, strict=False):
                value = value + matrix @ values[parent]
        else:
            (alpha,), z = own, values[node.parent]
            right = np.where(z.integers == 0, sides[k] > 0, z.integers > 0) if k in sides else z.integers > 0
            slopes[k] = Dyadic(np.where(right, alpha.whole, alpha.integers), alpha.whole)
            value = z * slopes[k]
        values.append(value)

    def through(k: int, node: Affine | Kink, value: tuple[Dyadic]) -> list[tuple[int, tuple[Dyadic]]]:
        if isinstance(node, Kink):
            return [(node.parent, (value[0] * slopes[k],))]
        return [(parent, (value[0] @ matrix,)) for parent, matrix in zip(node.parents, numbers[k - 1], strict=False)]

    start = {network.last: (Dyadic.of(row),)}
    (gradient,) = network.backward(start, through) or (Dyadic.of(np.zeros(network.inputs)),)
    size, power = np.abs(gradient.integers), 2 if question.norm == "2" else 1
    return Fraction(int(size.max() if question.norm == "1" else (size**power).sum()), gradient.whole**power)
