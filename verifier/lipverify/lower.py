"""A point and a pattern of slopes, in rational arithmetic: the pattern must be valid there, its norm is the value."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lipverify.network import Affine, Network
from lipverify.numbers import Array, Exact


class Refused(Exception):
    """A part of a certificate proves nothing; the message says why."""


def attained(
    network: Network,
    lower: Array,
    upper: Array,
    row: Array,
    norm: str,
    point: Array,
    sides: Mapping[int, Array],
) -> Array:
    """The dual norm of the gradient at a point: squared for p = 2.

    Args:
        network, lower, upper, row: rational.
        point: (inputs,) doubles.
        sides: per kink node, which side (1 or -1) a neuron at its kink counts for; elsewhere the point decides.
    """
    exact = Exact()
    x = exact.array(point)
    if x.shape != lower.shape or not np.isfinite(np.asarray(point, float)).all():
        raise Refused("the point has a wrong shape or is not finite")
    outside = np.flatnonzero((x < lower) | (x > upper))
    if len(outside):
        raise Refused(f"input {outside[0]} of the point lies outside the box")
    values: list[Array] = [x]
    slopes: dict[int, Array] = {}
    for k, node in enumerate(network.nodes, 1):
        if isinstance(node, Affine):
            total = node.bias
            for parent, one in zip(node.parents, node.maps, strict=True):
                total = total + one.matrix @ values[parent]
            values.append(total)
            continue
        z = values[node.parent]
        right = z > 0
        at_kink = z == 0
        if k in sides:
            right = np.where(at_kink, np.asarray(sides[k]) > 0, right)
        slopes[k] = np.where(right, 0 * node.alpha + 1, node.alpha)
        values.append(np.where(z > 0, z, node.alpha * z))
    gradients: dict[int, Array] = {network.last: row}
    for k in range(network.last, 0, -1):
        if k not in gradients:
            continue
        node, gradient = network.nodes[k - 1], gradients.pop(k)
        if isinstance(node, Affine):
            parts = [(p, gradient @ m.matrix) for p, m in zip(node.parents, node.maps, strict=True)]
        else:
            parts = [(node.parent, gradient * slopes[k])]
        for parent, part in parts:
            gradients[parent] = gradients[parent] + part if parent in gradients else part
    gradient = gradients.get(0, exact.zeros(network.inputs))
    if norm == "2":
        return (gradient * gradient).sum()
    size = np.abs(gradient)
    return size.sum() if norm == "inf" else max(size, default=exact.zeros(1)[0])
