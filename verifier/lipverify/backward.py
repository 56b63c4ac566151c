"""Bounds on one row of the gradient: by the norms of the maps, or from the ranges of the slopes by chords.

The gradient ``J`` at a kink's output passes as ``u = a J`` with ``a`` in ``[lo, hi]``. Over an interval of ``J`` the
product lies between two lines; a linear functional of the gradient at any node is bounded by running its weights
forward through these lines to the output. The error is that of a sum with the same terms in absolute values, which one
pass back from ``|c|`` gives for all entries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from lipverify.forward import Interval, both_signs
from lipverify.network import Affine, Kink, Question
from lipverify.numbers import Arithmetic, Array, Number, outward, shift

Value = tuple[Array, Array, Array]
"""Ends of an interval of a node's gradient, and a sum of absolute values that bounds the terms of any functional."""


class GateLines(NamedTuple):
    """``(slope -+ spread) J -+ reach`` around ``a J``: the line above has the share ``rise`` of the slope's range."""

    slope: Array
    spread: Array
    reach: Array
    rise: Array


class Gradients(NamedTuple):
    """One row's gradient in every case; the first axis of every array is that of the cases.

    Attributes:
        rows: (cases, outputs).
        intervals: at every kink's output and at the input (node 0).
        lines: around every kink's gate.
        sums: at the same nodes, sums of absolute values that bound the terms of any functional.
    """

    rows: Array
    intervals: dict[int, Interval]
    lines: dict[int, GateLines]
    sums: dict[int, Array]


def gradients(question: Question, rows: Array, slopes: Mapping[int, Interval]) -> Gradients:
    """Intervals of the gradients of ``rows`` (cases, outputs), by one step of interval arithmetic and by chords of all
    later gates."""
    network, arithmetic = question.network, question.arithmetic
    found = Gradients(rows, {}, {}, {})

    def refined(k: int, lower: Array, upper: Array, total: Array) -> None:
        # A sum of absolute values (p = inf) needs no tighter entry where the sign is known.
        wanted = (lower < 0) & (upper > 0) if k or question.norm == "inf" else lower < upper
        index = np.flatnonzero(wanted.any(0)) if found.lines else np.zeros(0, int)
        if len(index):
            top = functional(question, found, k, both_signs(arithmetic, index, lower.shape[1]))
            top = top + arithmetic.error(network.length, np.tile(total[:, index], 2))
            lower, upper = lower.copy(), upper.copy()
            upper[:, index] = np.minimum(upper[:, index], top[:, : len(index)])
            lower[:, index] = np.maximum(lower[:, index], -top[:, len(index) :])
            lower, upper = np.minimum(lower, upper), np.maximum(lower, upper)
        found.intervals[k], found.sums[k] = (lower, upper), total

    def through(k: int, node: Affine | Kink, value: Value) -> Iterator[tuple[int, Value]]:
        lower, upper, total = value
        if isinstance(node, Kink):
            refined(k, *value)
            line = found.lines[k] = _lines(arithmetic, found.intervals[k], slopes[k])
            corners = [end * slope for end in found.intervals[k] for slope in slopes[k]]
            low, high = np.minimum.reduce(corners), np.maximum.reduce(corners)
            size = (np.abs(line.slope) + np.abs(line.spread)) * total + line.reach
            yield node.parent, (-arithmetic.up(-low), arithmetic.up(high), size)
            return
        size = np.maximum(total, np.maximum(np.abs(lower), np.abs(upper)))
        for parent, one in node.terms:
            own, positive = size @ np.abs(one), np.maximum(one, 0 * one)
            error = arithmetic.error(network.length, own)
            low, high = (a @ positive + b @ (one - positive) for a, b in ((lower, upper), (upper, lower)))
            yield parent, (low - error, high + error, own)

    start = {network.last: (rows, rows, np.abs(rows))}
    nothing = arithmetic.zeros(len(rows), network.inputs)
    refined(0, *(network.backward(start, through) or (nothing, nothing, nothing)))
    return found


def _lines(arithmetic: Arithmetic, gradient: Interval, slope: Interval) -> GateLines:
    (below, above, rise), (lo, hi) = _around(arithmetic, *gradient), slope
    width = hi - lo
    reach = np.maximum(width * (1 - rise) * above, -width * rise * below)
    return GateLines((hi + lo) / 2, width * rise - width / 2, reach, rise)


def _around(arithmetic: Arithmetic, lower: Array, upper: Array) -> tuple[Array, Array, Array]:
    """Intervals widened to 0, and the share of the upper end in their width: any number in [0, 1] will do, as what it
    is used for is made valid afterwards."""
    below, above = np.minimum(lower, 0 * lower), np.maximum(upper, 0 * upper)
    b, a = arithmetic.floats(below), arithmetic.floats(above)
    share = np.where((b < 0) & (a > 0), a / np.where(a > b, a - b, 1.0), (1.0 + (a > 0) - (b < 0)) / 2)
    return below, above, arithmetic.array(np.clip(share, 0.0, 1.0))


def functional(question: Question, found: Gradients, source: int, weights: Array) -> Array:
    """Upper bounds (cases, t) on functionals ``weights`` (t, size) or (cases, t, size) of the gradient at node
    ``source``, before rounding."""
    network = question.network
    tangents: dict[int, Array] = {source: weights}
    total = question.arithmetic.zeros(len(found.rows), weights.shape[-2])
    for k in range(source + 1, network.last + 1):
        node = network.nodes[k - 1]
        if isinstance(node, Affine):
            parts = [tangents[p] @ m.T for p, m in node.terms if p in tangents]
            if parts:
                tangents[k] = sum(parts[1:], parts[0])
        elif node.parent in tangents and k in found.lines:
            tangent, line = tangents[node.parent], found.lines[k]
            size = np.abs(tangent)
            total = total + (size @ line.reach[..., None])[..., 0]
            tangents[k] = tangent * line.slope[:, None] + size * line.spread[:, None]
    return total + (tangents[network.last] @ found.rows[..., None])[..., 0] if network.last in tangents else total


def norm_bound(question: Question, found: Gradients) -> Array:
    """Upper bounds (cases,) on the dual norm of the gradient (squared for p = 2): entry by entry, and by chords of the
    entries' sizes and one more functional."""
    network, arithmetic, norm = question.network, question.arithmetic, question.norm
    lower, upper = found.intervals[0]
    size = np.maximum(np.abs(lower), np.abs(upper))
    if norm == "1":
        return np.asarray(size.max(1))
    box = (size if norm == "inf" else size * size).sum(1)
    box = box + arithmetic.error(network.length, box)
    if norm == "inf":
        below, above, rise = _around(arithmetic, lower, upper)
        slope = 2 * rise - 1
        offset = np.maximum(above * (1 - slope), -below * (1 + slope))
    else:
        slope, offset = lower + upper, -lower * upper
    total = (np.abs(slope) * np.maximum(found.sums[0], size) + np.abs(offset)).sum(1)
    pushed = functional(question, found, 0, slope[:, None])[:, 0] + offset.sum(1)
    return np.maximum(np.minimum(pushed + arithmetic.error(network.length, total), box), 0 * box)


def norm_product(question: Question, row: Array) -> Number:
    """Product of operator norms and steepest slopes along the network, branches added (squared for p = 2)."""
    network, size, error = question.network, np.abs(row), question.arithmetic.error
    reach: list[Number] = [question.arithmetic.array(1.0)[()]]
    for k, node in enumerate(network.nodes, 1):
        if isinstance(node, Kink):
            reach.append(max(1, np.abs(node.alpha).max()) * reach[node.parent])
        elif k < network.last:
            reach.append(sum(_operator_norm(question, m, 0) * reach[p] for p, m in node.terms))
        else:  # the row with the last map
            parts = [(p, (row @ m)[None], error(network.length, size @ np.abs(m))) for p, m in node.terms]
            reach.append(sum(_operator_norm(question, matrix, slack) * reach[p] for p, matrix, slack in parts))
    total = reach[-1] * (_operator_norm(question, row[None], 0) if network.last in network.kinks else 1)
    total = total + error(8 * network.last, total)
    return total * total if question.norm == "2" else total


def _operator_norm(question: Question, matrix: Array, slack: Array | int) -> Number:
    """From p to p, of a matrix whose entries are known up to ``slack``; for p = 2 as ``s I - A'A`` is semidefinite."""
    arithmetic, count, size = question.arithmetic, question.network.length, np.abs(matrix) + slack
    if question.norm == "2":
        gram = matrix @ matrix.T if len(matrix) < matrix.shape[1] else matrix.T @ matrix
        square = shift(arithmetic, -gram) + arithmetic.error(count, (size * size).sum())
        found = arithmetic.array(outward(square, up=True, root=True))[()] + (size - np.abs(matrix)).sum()
    else:
        found = size.sum(1 if question.norm == "inf" else 0).max()
    return found + arithmetic.error(count, found)
