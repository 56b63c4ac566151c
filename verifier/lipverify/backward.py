"""Bounds on one row of the gradient from the ranges of the slopes: interval arithmetic, RecurJac, chords.

The gradient ``J`` at a kink's output passes as ``u = a J`` with ``a`` in ``[lo, hi]``. Over an interval of ``J`` the
product lies between two lines; a linear functional of the gradient at any node is bounded by running its weights
forward through these lines to the output. The error of each such sum is at most ``gamma S``, with ``S`` the sum of
absolute values, which one pass back from ``|c|`` gives for all entries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from lipverify.forward import Interval
from lipverify.network import Affine, Network
from lipverify.numbers import Arithmetic, Array


@dataclasses.dataclass(frozen=True, eq=False)
class GateLines:
    """``(slope -+ spread) J + offset -+ reach`` around ``a J``."""

    slope: Array
    spread: Array
    offset: Array
    reach: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Gradients:
    """One row's gradient.

    Attributes:
        intervals: at every kink's output and at the input (node 0).
        lines: around every kink's gate.
        sums: at the same nodes, sums of absolute values that bound the terms of any functional.
    """

    intervals: dict[int, Interval]
    lines: dict[int, GateLines]
    sums: dict[int, Array]


def gradients(
    network: Network, arithmetic: Arithmetic, slopes: Mapping[int, Interval], row: Array, kind: str, norm: str
) -> Gradients:
    """Intervals of the gradient of ``row`` (outputs,) times the network.

    Args:
        kind: ``interval``, ``recurjac`` (constants where gate and sign are open) or ``linear`` (chords).
        norm: ``inf``, ``2`` or ``1``: the sum of absolute values (inf) needs no tighter entry where the sign is known.
    """
    gamma = arithmetic.gamma(network.length)
    intervals: dict[int, Interval] = {}
    sums: dict[int, Array] = {}
    lines: dict[int, GateLines] = {}
    open_value: dict[int, Interval] = {network.last: (row, row)}
    open_sum: dict[int, Array] = {network.last: np.abs(row)}

    def refined(k: int, value: Interval, total: Array) -> Interval:
        lower, upper = value
        wanted = (lower < 0) & (upper > 0) if k or norm == "inf" else lower < upper
        index = np.flatnonzero(wanted) if kind != "interval" and lines else np.zeros(0, int)
        if not len(index):
            return value
        weights = arithmetic.zeros(2 * len(index), len(lower))
        here = np.arange(len(index))
        weights[here, index], weights[here + len(index), index] = arithmetic.array(1.0), arithmetic.array(-1.0)
        top = functional(network, row, lines, k, weights) + gamma * np.concatenate([total[index]] * 2)
        lower, upper = lower.copy(), upper.copy()
        upper[index] = np.minimum(upper[index], top[: len(index)])
        lower[index] = np.maximum(lower[index], -top[len(index) :])
        return np.minimum(lower, upper), np.maximum(lower, upper)

    for k in range(network.last, 0, -1):
        if k not in open_value:
            continue
        node, value, total = network.nodes[k - 1], open_value.pop(k), open_sum.pop(k)
        if isinstance(node, Affine):
            for parent, one in zip(node.parents, node.maps, strict=True):
                lower = value[0] @ one.positive + value[1] @ one.negative
                upper = value[1] @ one.positive + value[0] @ one.negative
                own = np.maximum(total, np.maximum(np.abs(value[0]), np.abs(value[1]))) @ one.absolute
                _add(open_value, open_sum, parent, (lower - gamma * own, upper + gamma * own), own)
            continue
        value = refined(k, value, total)
        intervals[k], sums[k] = value, total
        lines[k] = _lines(arithmetic, value, slopes[k], constants=kind == "recurjac")
        corners = [end * slope for end in value for slope in slopes[k]]
        low, high = np.minimum.reduce(corners), np.maximum.reduce(corners)
        size = (np.abs(lines[k].slope) + np.abs(lines[k].spread)) * total + np.abs(lines[k].offset) + lines[k].reach
        _add(open_value, open_sum, node.parent, (arithmetic.down(low), arithmetic.up(high)), size)
    nothing = arithmetic.zeros(network.inputs)
    value, total = open_value.get(0, (nothing, nothing)), open_sum.get(0, nothing)
    intervals[0], sums[0] = refined(0, value, total), total
    return Gradients(intervals, lines, sums)


def _add(values: dict[int, Interval], sums: dict[int, Array], k: int, value: Interval, total: Array) -> None:
    if k in values:
        value = values[k][0] + value[0], values[k][1] + value[1]
        total = sums[k] + total
    values[k], sums[k] = value, total


def _lines(arithmetic: Arithmetic, gradient: Interval, slope: Interval, *, constants: bool) -> GateLines:
    (lower, upper), (lo, hi) = gradient, slope
    below, above = np.minimum(lower, 0 * lower), np.maximum(upper, 0 * upper)
    mixed = (below < 0) & (above > 0)
    b, a = arithmetic.floats(below), arithmetic.floats(above)
    share = np.where(mixed, a / np.where(mixed, a - b, 1.0), (a > 0).astype(float))
    rise = arithmetic.array(np.clip(share, 0.0, 1.0))  # any number in [0, 1] will do: the reach makes the lines valid
    width = hi - lo
    reach = np.maximum(width * (1 - rise) * above, -width * rise * below)
    middle, spread, offset = (hi + lo) / 2, width * rise - width / 2, 0 * reach
    if constants:
        flat = mixed & (hi > lo)
        highest, lowest = np.maximum(hi * above, lo * below), np.minimum(hi * below, lo * above)
        middle, spread = np.where(flat, 0 * middle, middle), np.where(flat, 0 * spread, spread)
        offset = np.where(flat, (highest + lowest) / 2, offset)
        reach = np.where(flat, (highest - lowest) / 2, reach)
    return GateLines(middle, spread, offset, reach)


def functional(network: Network, row: Array, lines: Mapping[int, GateLines], source: int, weights: Array) -> Array:
    """Upper bounds (t,) on functionals ``weights`` (t, size) of the gradient at node ``source``, before rounding."""
    tangents: dict[int, Array] = {source: weights}
    total = 0 * (weights[:, :1].sum(-1))
    for k in range(source + 1, network.last + 1):
        node = network.nodes[k - 1]
        if isinstance(node, Affine):
            parts = [tangents[p] @ m.matrix.T for p, m in zip(node.parents, node.maps, strict=True) if p in tangents]
            if parts:
                tangents[k] = sum(parts[1:], parts[0])
        elif node.parent in tangents:
            tangent, line = tangents[node.parent], lines[k]
            size = np.abs(tangent)
            total = total + tangent @ line.offset + size @ line.reach
            tangents[k] = tangent * line.slope + size * line.spread
    return total + tangents[network.last] @ row if network.last in tangents else total


def norm_bound(
    network: Network, arithmetic: Arithmetic, row: Array, found: Gradients, norm: str, *, pushed: bool
) -> tuple[Array, bool]:
    """Upper bound on the dual norm of the gradient, and whether it stands for its square (p = 2).

    Args:
        norm: ``inf``, ``2`` or ``1``, the norm on the input.
        pushed: bound the sum over entries by chords and one more pass, rather than entry by entry.
    """
    lower, upper = found.intervals[0]
    size = np.maximum(np.abs(lower), np.abs(upper))
    gamma = arithmetic.gamma(len(size) + 16)
    if norm == "1":
        return size.max(initial=arithmetic.zeros(1)[0]), False
    box = (size if norm == "inf" else size * size).sum() * (1 + gamma)
    if not pushed or not len(size):
        return box, norm == "2"
    below, above = np.minimum(lower, 0 * lower), np.maximum(upper, 0 * upper)
    if norm == "inf":
        b, a = arithmetic.floats(below), arithmetic.floats(above)
        mixed = (b < 0) & (a > 0)
        slope = np.where(mixed, (a + b) / np.where(mixed, a - b, 1.0), (a > 0) * 1.0 - (b < 0) * 1.0)
        slope = arithmetic.array(np.clip(slope, -1.0, 1.0))
        offset = np.maximum(above * (1 - slope), -below * (1 + slope))
    else:
        slope, offset = lower + upper, -lower * upper
    total = functional(network, row, found.lines, 0, slope[None])[0] + offset.sum()
    error = arithmetic.gamma(network.length + len(size) + 16)
    total = total + error * (np.abs(slope) @ np.maximum(found.sums[0], size) + np.abs(offset).sum())
    return max(min(total, box), arithmetic.zeros(1)[0]), norm == "2"
