"""Bounds on every value before a kink, over boxes in which some kinks are decided (``s z >= 0``), many at once.

Per layer: interval arithmetic, then linear functions above ``z`` and ``-z`` (CROWN), maximised over the box and over
the half-spaces that the decisions cut off. Any multipliers of these half-spaces give a bound; they are looked for in
floating point and then used as they are. The error of every function is that of a sum with the same terms replaced by
their absolute values, which one pass from the input gives for all neurons.

The first axis of every array is that of the cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from lipverify.network import Affine, Kink, Network, Question
from lipverify.numbers import LARGEST, TINY, Arithmetic, Array

Interval = tuple[Array, Array]
Intervals = Mapping[int, Interval]


class Cases(NamedTuple):
    """Boxes and decisions.

    Attributes:
        lower, upper: (cases, inputs).
        signs: (cases, gates) 1 for ``z >= 0``, -1 for ``z <= 0``, 0 for none.
    """

    lower: Array
    upper: Array
    signs: Array


class Planes(NamedTuple):
    """``normal x + offset >= 0`` on the whole case, one row per decided neuron; rows of zeros fill up.

    Attributes:
        normal: (cases, rows, inputs).
        offset: (cases, rows).
        gate: (cases, rows) whose decision it is.
    """

    normal: Array
    offset: Array
    gate: Array


class Forward(NamedTuple):
    """What is known of the cases.

    Attributes:
        bounds: per kink node the interval of its input.
        slopes: per kink node the range of its slope.
        planes: the decisions as half-spaces.
        empty: (cases,) true where the case was found to hold no input.
    """

    bounds: dict[int, Interval]
    slopes: dict[int, Interval]
    planes: dict[int, Planes]
    empty: Array


class Lines(NamedTuple):
    """``low z <= kink(z) <= high z + offset`` on the interval of ``z``: (cases, 1 or functions, size)."""

    low: Array
    high: Array
    offset: Array


class Below(NamedTuple):
    """Lines below kinks, ``low z``, for functions of one node's value: any slope from alpha to 1 is valid.

    Attributes:
        neurons: (t,) entries of the value.
        low: per kink node (2 t, size) slopes, for the functions above these entries and then above their negatives.
    """

    neurons: Array
    low: Mapping[int, Array]

    def instead(self, arithmetic: Arithmetic, network: Network, lines: Mapping[int, Lines]) -> dict[int, Lines]:
        """Other lines with these below."""
        low = {k: np.clip(arithmetic.array(low), network.kinks[k].alpha, 1)[None] for k, low in self.low.items()}
        return {k: line._replace(low=low.get(k, line.low)) for k, line in lines.items()}


def everywhere(question: Question, given: Mapping[int, Below]) -> Forward:
    """The whole box, as one case; ``given``: the lines below that are best for some neurons."""
    whole = Cases(question.lower[None], question.upper[None], np.zeros((1, question.network.gates), int))
    found = forward(question, whole, Forward({}, {}, {}, np.zeros(1, bool)))
    return (forward(question, whole, found, given) if given else found)._replace(planes={})


def forward(question: Question, cases: Cases, known: Forward, given: Mapping[int, Below] = {}) -> Forward:
    """Propagate boxes with decisions, which tighten earlier layers once their half-spaces are known.

    Args:
        known: bounds that hold anyway, for all cases or for each, and half-spaces of an earlier pass.
        given: per node lines below for functions that are tried besides the usual ones.
    """
    network, arithmetic, planes = question.network, question.arithmetic, dict(known.planes)
    values, sums = [(cases.lower, cases.upper)], [np.maximum(np.abs(cases.lower), np.abs(cases.upper))]
    lines, bounds, slopes = dict[int, Lines](), dict[int, Interval](), dict[int, Interval]()
    empty = np.zeros(len(cases.signs), bool)
    for k, node in enumerate(network.nodes, 1):
        if isinstance(node, Affine):
            (lower, upper), total = _affine(node, values, sums)
            error = arithmetic.error(network.length, total)
            values.append((lower - error, upper + error))
            sums.append(total)
            continue
        sign, one = cases.signs[:, network.first_gate[k] :][:, : len(node.alpha)], 0 * node.alpha + 1
        lower, upper = (v.copy() for v in values[node.parent])
        if k in known.bounds:
            lower, upper = np.maximum(lower, known.bounds[k][0]), np.minimum(upper, known.bounds[k][1])
        wanted = np.flatnonzero(((lower <= 0) & (upper >= 0) | (sign != 0)).any(0))
        if len(wanted):
            below = given.get(node.parent)
            more = [(below.neurons, below.instead(arithmetic, network, lines))] if below else []
            for neurons, own in [(wanted, lines), *more]:
                signs = both_signs(arithmetic, neurons, len(node.alpha))
                normal, offset = _functions(question, own, node.parent, signs)
                offset = offset + arithmetic.error(network.length, np.tile(sums[node.parent][:, neurons], 2))
                if own is lines:
                    planes[k] = _own(normal, offset, sign[:, wanted], network.first_gate[k] + wanted)
                top = maximum(arithmetic, cases, normal, offset, cutting(arithmetic, cases, planes))
                upper[:, neurons] = np.minimum(upper[:, neurons], top[:, : len(neurons)])
                lower[:, neurons] = np.maximum(lower[:, neurons], -top[:, len(neurons) :])
        gone, (lower, upper) = decided(sign, -arithmetic.up(-lower), arithmetic.up(upper))
        empty, bounds[k] = empty | gone, (lower, upper)
        right, left = (sign > 0) | (lower > 0), (sign < 0) | (upper < 0)
        slopes[k] = np.where(right, one, node.alpha), np.where(left & ~right, node.alpha, one)
        lines[k] = _lines(arithmetic, lower, upper, slopes[k], node.alpha)
        values.append(_image(arithmetic, lower, upper, node.alpha))
        sums.append(np.maximum(np.abs(node.alpha), one) * sums[node.parent] + lines[k].offset[:, 0])
    return Forward(bounds, slopes, planes, empty)


def decided(sign: Array, lower: Array, upper: Array) -> tuple[Array, Interval]:
    """Intervals cut at 0, on the side of their sign (0 for none), and which cases that leaves without any value."""
    low = np.where(sign > 0, np.maximum(lower, 0 * lower), lower)
    high = np.where(sign < 0, np.minimum(upper, 0 * upper), upper)
    return np.asarray((low > high).any(1)), (np.minimum(low, high), np.maximum(low, high))


def _affine(node: Affine, values: list[Interval], sums: list[Array]) -> tuple[Interval, Array]:
    lower = upper = node.bias + 0 * values[0][0][:, :1]
    total = np.abs(lower)
    for parent, one in node.terms:
        low, high = values[parent]
        positive = np.maximum(one, 0 * one)
        lower = lower + low @ positive.T + high @ (one - positive).T
        upper = upper + high @ positive.T + low @ (one - positive).T
        # The sums of absolute values bound what a pass over any input computes; the interval's ends may be wider.
        total = total + np.maximum(sums[parent], np.maximum(np.abs(low), np.abs(high))) @ np.abs(one).T
    return (lower, upper), total


def _image(arithmetic: Arithmetic, lower: Array, upper: Array, alpha: Array) -> Interval:
    ends = np.maximum(lower, alpha * lower), np.maximum(upper, alpha * upper)
    least = np.where((lower < 0) & (upper > 0), np.minimum(np.minimum(*ends), 0 * lower), np.minimum(*ends))
    return -arithmetic.up(-least), arithmetic.up(np.maximum(*ends))


def _lines(arithmetic: Arithmetic, lower: Array, upper: Array, slope: Interval, alpha: Array) -> Lines:
    """The chord above (its slope is any number; its offset makes it valid) and the steeper or flatter line below."""
    low, high = slope
    open_ = (high > low) & (lower < 0) & (upper > 0)
    a, low_end, high_end = (arithmetic.floats(v) for v in (alpha, lower, upper))
    width = np.where(open_, high_end - low_end, 1.0)
    chord = arithmetic.array(np.clip(np.where(open_, (high_end - a * low_end) / width, 0.0), np.minimum(a, 1), 1))
    offset = np.maximum(lower * (alpha - chord), upper * (1 - chord))
    offset = np.where(open_, offset + arithmetic.error(8, offset), 0 * lower)
    under = np.where(upper > -lower, 0 * alpha + 1, alpha)
    # A neuron that touches its kink without crossing it is on one line over its whole interval.
    settled = np.where(high > low, np.where(lower >= 0, 0 * alpha + 1, alpha), high)
    return Lines(*(v[:, None] for v in (np.where(open_, under, settled), np.where(open_, chord, settled), offset)))


def both_signs(arithmetic: Arithmetic, index: Array, size: int) -> Array:
    """Functionals (2 t, size): the entries at ``index``, and their negatives."""
    rows = arithmetic.zeros(2 * len(index), size)
    rows[np.arange(len(rows)), np.tile(index, 2)] = arithmetic.array(np.repeat([1.0, -1.0], len(index)))
    return rows


def _functions(question: Question, lines: Mapping[int, Lines], source: int, rows: Array) -> tuple[Array, Array]:
    """Linear functions of the input above ``rows`` (t, size) times a node's value: (cases, t, inputs), (cases, t)."""
    offset = question.arithmetic.zeros(len(lines[min(lines)].low) if lines else 1, len(rows))

    def through(k: int, node: Affine | Kink, value: tuple[Array]) -> list[tuple[int, tuple[Array]]]:
        nonlocal offset
        (weight,) = value
        if isinstance(node, Affine):
            offset = offset + weight @ node.bias
            return [(parent, (weight @ one,)) for parent, one in node.terms]
        line, positive = lines[k], np.maximum(weight, 0 * weight)
        offset = offset + (positive @ line.offset.swapaxes(-1, -2))[..., 0]
        return [(node.parent, (positive * line.high + (weight - positive) * line.low,))]

    nothing = (question.arithmetic.zeros(len(rows), question.network.inputs),)
    (normal,) = question.network.backward({source: (rows,)}, through) or nothing
    return normal, offset


def _own(normal: Array, offset: Array, sign: Array, gates: Array) -> Planes:
    """Of functions above ``z`` and ``-z`` (cases, 2 neurons) those above ``s z`` of decided neurons: half-spaces."""
    some = np.flatnonzero((sign != 0).any(0))
    sign, other = sign[:, some], some + len(gates)
    normal = np.where((sign > 0)[..., None], normal[..., some, :], normal[..., other, :])
    offset = np.where(sign > 0, offset[:, some], offset[:, other])
    gate = np.broadcast_to(gates[some], sign.shape)
    return Planes(np.where((sign != 0)[..., None], normal, 0 * normal), np.where(sign != 0, offset, 0 * offset), gate)


def cutting(arithmetic: Arithmetic, cases: Cases, planes: Mapping[int, Planes]) -> Planes:
    """Of all half-spaces those that do not contain the whole box."""
    normal, offset, gate = (np.concatenate(parts, 1) for parts in zip(*planes.values(), strict=True))
    cut = arithmetic.floats(offset - _reach(cases, -normal)) < 0
    order = np.argsort(~cut, 1, kind="stable")[:, : cut.sum(1).max(initial=0)]
    cut, offset, gate = (np.take_along_axis(v, order, 1) for v in (cut, offset, gate))
    normal = np.take_along_axis(normal, order[..., None], 1)
    return Planes(np.where(cut[..., None], normal, 0 * normal), np.where(cut, offset, 0 * offset), gate)


def _reach(cases: Cases, normal: Array) -> Array:
    """Largest values (cases, t) of linear functions over the boxes."""
    return np.maximum(normal * cases.lower[:, None], normal * cases.upper[:, None]).sum(-1)


def maximum(
    arithmetic: Arithmetic, cases: Cases, normal: Array, offset: Array, walls: Planes, given: Array | None = None
) -> Array:
    """Upper bounds (cases, t) of affine functions over box and half-spaces, with the given or with good multipliers
    (cases, t, m).

    For every ``l >= 0``: ``max {c'x + b : x in box, A x + h >= 0} <= b + l'h + max_box (c + A'l)'x``.
    """
    size = np.maximum(np.abs(cases.lower), np.abs(cases.upper))[..., None]
    total = np.abs(offset) + (np.abs(normal) @ size)[..., 0]
    plain = offset + _reach(cases, normal) + arithmetic.error(size.shape[1] + 8, total)
    if not walls.offset.shape[1]:
        return plain
    if given is None:
        parts = [arithmetic.floats(v) for v in (*cases[:2], normal + 0 * cases.lower[:, None], *walls[:2])]
        step = max(1, 2**17 // (parts[2][0].size * walls.offset.shape[1]))  # tables that stay in a cache
        given = np.concatenate([multipliers(*(v[i : i + step] for v in parts)) for i in range(0, len(size), step)])
    factor, height = arithmetic.array(np.clip(np.nan_to_num(given), 0.0, LARGEST)), walls.offset[..., None]
    moved = normal + factor @ walls.normal
    total = total + (factor @ (np.abs(height) + np.abs(walls.normal) @ size))[..., 0]
    error = arithmetic.error(size.shape[1] + height.shape[1] + 8, total)
    return np.minimum(plain, offset + (factor @ height)[..., 0] + _reach(cases, moved) + error)


def multipliers(lower: Array, upper: Array, rest: Array, walls: Array, heights: Array, *, pivots: int = 100) -> Array:
    """Good ones, (cases, t, m), found in floating point by the dual simplex method.

    All variables are distances: of inputs to an end of their range, of half-spaces to their points. As many as there
    are inputs are 0: they have the slots. The table has the others in terms of them, and in its last column their
    values; its last row is the function. A pivot takes the variable that violates its range the most to its end, and
    gives it the slot of the first variable whose end would be the wrong one if its multiplier went on.
    """
    center, radius, least = (lower + upper)[:, None] / 2, (upper - lower)[:, None] / 2, 1e-9
    rest, walls, heights = rest * radius, walls * radius, heights + (walls * center).sum(-1)
    weight, (t, inputs), count = np.maximum(np.abs(walls).sum(-1), TINY), rest.shape[1:], heights.shape[1]
    cost = rest.reshape(-1, 1, inputs)
    table = np.repeat(walls / weight[..., None], t, 0) * np.where(cost < 0, 1.0, -1.0)
    table = np.dstack([table, np.repeat(heights / weight, t, 0) - table.sum(-1)])
    table = np.concatenate([table, np.pad(-np.abs(cost), ((0, 0), (0, 0), (0, 1)))], 1)
    # Whose distance it is; ``count`` for an input's.
    held, name = np.full(cost[:, 0].shape, count), np.tile(np.arange(count), (len(cost), 1))
    for _ in range(pivots):
        violation = np.maximum(-table[:, :-1, -1], np.where(name < count, -1.0, table[:, :-1, -1] - 2))
        row = table[np.arange(len(table)), basic := violation.argmax(1)]
        row = np.where(row[:, -1:] > 1, np.append(np.zeros(inputs), 2) - row, row)  # from the other end of an input
        slot = np.where(row[:, :-1] > least, table[:, -1, :-1] / -np.maximum(row[:, :-1], least), np.inf).argmin(1)
        moves = np.flatnonzero((violation.max(1) > least) & (row[:, :-1].max(1) > least))
        if not len(moves):
            break
        p, k, each, some = basic[moves], slot[moves], np.arange(len(moves)), table[moves]
        step = row[moves] / -row[moves, k, None]
        step[each, k] = 1 / row[moves, k]
        column, some[each, :, k] = some[each, :, k], 0.0
        some += column[..., None] * step[:, None]
        table[moves], table[moves, p] = some, step
        held[moves, k], name[moves, p] = name[moves, p], held[moves, k]
    found = np.zeros((len(cost), count + 1))
    np.put_along_axis(found, held, np.maximum(-table[:, -1, :-1], 0.0), 1)
    return np.asarray(found[:, :-1].reshape(*rest.shape[:-1], count) / weight[:, None])
