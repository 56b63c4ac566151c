"""Bounds on every value before a kink, over a box in which some kinks are decided (``s z >= 0``).

Per layer: interval arithmetic, then linear functions above ``z`` and ``-z`` (CROWN), maximised over the box and over
the half-spaces that the decisions cut off. Any multipliers of these half-spaces give a bound; they are looked for in
floating point and then used as they are. The error of every function is that of a sum with the same terms replaced by
their absolute values, which one pass from the input gives for all neurons.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from lipverify.network import Affine, Kink
from lipverify.numbers import LARGEST, Arithmetic, Array
from lipverify.question import Question

Interval = tuple[Array, Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Domain:
    """A box (inputs,) and decisions (gates,): 1 for ``z >= 0``, -1 for ``z <= 0``, 0 for none."""

    lower: Array
    upper: Array
    signs: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Planes:
    """``normal x + offset >= 0`` on the whole domain, one row per decided neuron."""

    normal: Array  # (rows, inputs)
    offset: Array  # (rows,)
    gate: Array  # (rows,) whose decision it is


@dataclasses.dataclass(frozen=True, eq=False)
class Forward:
    """What is known of a domain.

    Attributes:
        bounds: per kink node the interval of its input.
        slopes: per kink node the range of its slope.
        planes: the decisions as half-spaces.
        empty: true where the domain was found to hold no input.
    """

    bounds: dict[int, Interval]
    slopes: dict[int, Interval]
    planes: Planes
    empty: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Lines:
    """``low z <= kink(z) <= high z + offset`` on the interval of ``z``."""

    low: Array
    high: Array
    offset: Array


def forward(question: Question, domain: Domain, start: Mapping[int, Interval], passes: int = 1) -> Forward:
    """Propagate a domain.

    Args:
        start: bounds that hold anyway.
        passes: from the second one on, decisions tighten earlier layers.
    """
    nothing = question.arithmetic.zeros(0, question.network.inputs), question.arithmetic.zeros(0)
    planes = {0: Planes(*nothing, np.zeros(0, int))}
    for _ in range(passes):
        found = _pass(question, domain, start, planes)
        start = found.bounds
        if found.empty:
            break
    return found


def _pass(question: Question, domain: Domain, start: Mapping[int, Interval], planes: dict[int, Planes]) -> Forward:
    network, arithmetic = question.network, question.arithmetic
    count = network.length + network.inputs
    values: list[Interval] = [(domain.lower, domain.upper)]
    sums: list[Array] = [np.maximum(np.abs(domain.lower), np.abs(domain.upper))]
    lines: dict[int, Lines] = {}
    bounds: dict[int, Interval] = {}
    slopes: dict[int, Interval] = {}
    empty = False
    for k, node in enumerate(network.nodes, 1):
        if isinstance(node, Affine):
            (lower, upper), total = _affine(node, values, sums)
            error = arithmetic.error(count, total)
            values.append((lower - error, upper + error))
            sums.append(total)
            continue
        sign, one = domain.signs[network.first_gate[k] :][: node.size], 0 * node.alpha + 1
        lower, upper = (v.copy() for v in values[node.parent])
        if k in start:
            lower, upper = np.maximum(lower, start[k][0]), np.minimum(upper, start[k][1])
        error = one * arithmetic.error(count, sums[node.parent])
        wanted = np.flatnonzero((lower <= 0) & (upper >= 0) | (sign != 0))
        if len(wanted):
            both, sides = np.concatenate([wanted, wanted]), np.repeat([1, -1], len(wanted))
            normal, offset = _plane(question, lines, node.parent, both, sides)
            offset = offset + error[both]
            # The functions above s z of the decided neurons are their half-spaces.
            own = np.flatnonzero(sign[both] == sides)
            planes[k] = Planes(normal[own], offset[own], network.first_gate[k] + both[own])
            walls = _cutting(arithmetic, domain, _joined(planes))
            top = maximum(arithmetic, domain, normal, offset, walls)
            upper[wanted] = np.minimum(upper[wanted], top[: len(wanted)])
            lower[wanted] = np.maximum(lower[wanted], -top[len(wanted) :])
        lower, upper = arithmetic.down(lower), arithmetic.up(upper)
        empty |= bool(((lower > upper) | (sign > 0) & (upper < 0) | (sign < 0) & (lower > 0)).any())
        lower = np.where(sign > 0, np.maximum(lower, 0 * lower), lower)
        upper = np.where(sign < 0, np.minimum(upper, 0 * upper), upper)
        lower, upper = np.minimum(lower, upper), np.maximum(lower, upper)
        bounds[k] = lower, upper
        right, left = (sign > 0) | (lower > 0), (sign < 0) | (upper < 0)
        slopes[k] = np.where(right, one, node.alpha), np.where(left & ~right, node.alpha, one)
        lines[k] = _lines(arithmetic, lower, upper, slopes[k], node.alpha)
        values.append(_image(arithmetic, lower, upper, node.alpha))
        sums.append(np.maximum(np.abs(node.alpha), one) * sums[node.parent] + lines[k].offset)
    return Forward(bounds, slopes, _joined(planes), empty)


def _affine(node: Affine, values: list[Interval], sums: list[Array]) -> tuple[Interval, Array]:
    lower, upper, total = node.bias, node.bias, np.abs(node.bias)
    for parent, one in node.terms:
        low, high = values[parent]
        lower = lower + one.positive @ low + one.negative @ high
        upper = upper + one.positive @ high + one.negative @ low
        # The sums of absolute values bound what a pass over any input computes; the interval's ends may be wider.
        total = total + one.absolute @ np.maximum(sums[parent], np.maximum(np.abs(low), np.abs(high)))
    return (lower, upper), total


def _image(arithmetic: Arithmetic, lower: Array, upper: Array, alpha: Array) -> Interval:
    ends = np.maximum(lower, alpha * lower), np.maximum(upper, alpha * upper)
    least = np.where((lower < 0) & (upper > 0), np.minimum(np.minimum(*ends), 0 * lower), np.minimum(*ends))
    return arithmetic.down(least), arithmetic.up(np.maximum(*ends))


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
    return Lines(np.where(open_, under, settled), np.where(open_, chord, settled), offset)


def _plane(
    question: Question, lines: Mapping[int, Lines], node: int, neurons: Array, signs: Array
) -> tuple[Array, Array]:
    """Linear functions of the input above ``sign z`` of neurons of ``node``: (t, inputs), (t,)."""
    network, arithmetic = question.network, question.arithmetic
    rows = arithmetic.zeros(len(neurons), network.size(node))
    rows[np.arange(len(neurons)), neurons] = arithmetic.array(signs)
    weights: dict[int, Array] = {node: rows}
    offset = arithmetic.zeros(len(rows))
    for k in range(node, 0, -1):
        if k not in weights:
            continue
        item, weight = network.nodes[k - 1], weights.pop(k)
        if isinstance(item, Kink):
            positive = np.maximum(weight, 0 * weight)
            negative = weight - positive
            offset = offset + positive @ lines[k].offset
            parts = [(item.parent, positive * lines[k].high + negative * lines[k].low)]
        else:
            offset = offset + weight @ item.bias
            parts = [(p, weight @ m.matrix) for p, m in item.terms]
        for parent, part in parts:
            weights[parent] = weights[parent] + part if parent in weights else part
    return weights.get(0, arithmetic.zeros(len(rows), network.inputs)), offset


def _joined(planes: Mapping[int, Planes]) -> Planes:
    return Planes(*(np.concatenate([getattr(p, f.name) for p in planes.values()]) for f in dataclasses.fields(Planes)))


def _cutting(arithmetic: Arithmetic, domain: Domain, planes: Planes) -> Planes:
    """Those half-spaces that do not contain the whole box."""
    least = planes.offset - _reach(domain, -planes.normal)
    index = np.flatnonzero(arithmetic.floats(least) < 0)
    return Planes(planes.normal[index], planes.offset[index], planes.gate[index])


def _reach(domain: Domain, normal: Array) -> Array:
    """Largest value of linear functions over the box."""
    return np.maximum(normal * domain.lower, normal * domain.upper).sum(-1)


def maximum(
    arithmetic: Arithmetic,
    domain: Domain,
    normal: Array,
    offset: Array,
    walls: Planes,
    multipliers: Array | None = None,
) -> Array:
    """Upper bounds (t,) of affine functions over box and half-spaces, with the given or with good multipliers (t, m).

    For every ``l >= 0``: ``max {c'x + b : x in box, A x + h >= 0} <= b + l'h + max_box (c + A'l)'x``.
    """
    size = np.maximum(np.abs(domain.lower), np.abs(domain.upper))
    total = np.abs(offset) + np.abs(normal) @ size
    plain = offset + _reach(domain, normal) + arithmetic.error(len(size) + 8, total)
    if not len(walls.offset):
        return plain
    if multipliers is None:
        multipliers = _multipliers(arithmetic, domain, normal, walls)
    factor = arithmetic.array(np.clip(np.nan_to_num(multipliers), 0.0, LARGEST))
    moved = normal + factor @ walls.normal
    total = total + factor @ (np.abs(walls.offset) + np.abs(walls.normal) @ size)
    error = arithmetic.error(len(size) + len(walls.offset) + 8, total)
    return np.minimum(plain, offset + factor @ walls.offset + _reach(domain, moved) + error)


def _multipliers(arithmetic: Arithmetic, domain: Domain, normal: Array, walls: Planes, sweeps: int = 6) -> Array:
    """Coordinate descent on the multipliers, each to its optimum, in floating point: (t, m)."""
    lower, upper, c, a, h = (
        arithmetic.floats(v) for v in (domain.lower, domain.upper, normal, walls.normal, walls.offset)
    )
    center, radius = (lower + upper) / 2, (upper - lower) / 2
    rest, a, h = c * radius, a * radius, h + a @ center  # in units of the box
    found = np.zeros((len(c), len(h)))
    for _ in range(sweeps):
        for j, (wall, height) in enumerate(zip(a, h, strict=True)):
            base = rest - found[:, j, None] * wall
            found[:, j] = _best(base, wall, height)
            rest = base + found[:, j, None] * wall
    return found


def _best(base: Array, wall: Array, height: float) -> Array:
    """The ``l >= 0`` that minimises ``l height + |base + l wall|_1``: where the slope of this convex function turns."""
    steep = np.abs(wall)
    breaks = np.where((wall != 0) & (base * wall < 0), -base / np.where(wall != 0, wall, 1.0), 0.0)
    ahead = np.where(breaks > 0, steep, 0.0)
    slope = height + steep.sum() - 2 * ahead.sum(-1, keepdims=True)
    order = np.argsort(breaks, -1)
    rising = slope + 2 * np.cumsum(np.take_along_axis(ahead, order, -1), -1)
    turn = np.argmax(rising >= 0, -1)[:, None]
    chosen = np.take_along_axis(np.take_along_axis(breaks, order, -1), turn, -1)[:, 0]
    # A slope that never turns says that the domain is empty: a large multiplier shows it.
    never = rising[:, -1] < 0
    return np.where(slope[:, 0] >= 0, 0.0, np.where(never, 1e6 * (1 + chosen), chosen))
