"""A point and a pattern of slopes, in rational arithmetic: the pattern must be valid there, its norm is the value."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lipverify.forward import Interval
from lipverify.network import Affine
from lipverify.numbers import Array, Number
from lipverify.quadratic import coordinates
from lipverify.question import Question, Refused


def attained(question: Question, x: Array, sides: Mapping[int, Array]) -> Number:
    """The dual norm of the gradient at a point: squared for p = 2.

    Args:
        question: in rational arithmetic.
        x: (inputs,) rational.
        sides: per kink node, which side (1 or -1) a neuron at its kink counts for; elsewhere the point decides.
    """
    network = question.network
    outside = np.flatnonzero((x < question.lower) | (x > question.upper))
    if len(outside):
        raise Refused(f"input {outside[0]} of the point lies outside the box")
    values: list[Array] = [x]
    slopes: dict[int, Interval] = {}
    for k, node in enumerate(network.nodes, 1):
        if isinstance(node, Affine):
            values.append(node.bias + sum(m.matrix @ values[p] for p, m in node.terms))
            continue
        z = values[node.parent]
        right = np.where(z == 0, sides[k] > 0, z > 0) if k in sides else z > 0
        slopes[k] = (np.where(right, 0 * node.alpha + 1, node.alpha),) * 2
        values.append(np.where(z > 0, z, node.alpha * z))
    gradient = coordinates(question, slopes, {}).entries[0]  # with no gate open
    size = np.abs(gradient)
    if question.norm == "1":
        return size.max()
    return (size if question.norm == "inf" else gradient * gradient).sum()
