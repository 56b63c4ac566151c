"""One row's bound by cases: a binary tree of decisions that covers the box, with a proof at every leaf.

Decision ``2 g + 1`` puts gate ``g`` on its side ``z >= 0``, ``2 g`` on the other. From ``2 gates`` on come the signs of
gradient entries (``2 (gates + j) + 1``: not negative), from ``2 (gates + inputs)`` on the halves of the box along an
input (``+ 1``: the upper half). An inner node with decision ``d`` is followed by the parts ``d ^ 1`` and ``d``, so
together they cover it whatever the numbers say; what is wrong in a leaf weakens that leaf alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from lipverify.backward import gradients, norm_bound
from lipverify.forward import Cases, Forward, Interval, Planes, cutting, forward, maximum
from lipverify.numbers import Array, Number
from lipverify.quadratic import coordinates, quadratic_bound
from lipverify.question import Question

_ENTRIES, _ROUNDS = 2**20, 3
"""Numbers in an array of cases; gates of a leaf that may be decided beyond its decisions."""


@dataclasses.dataclass(frozen=True)
class Leaf:
    """What proves a case: multipliers of a semidefinite bound (by gate and by entry), or of contradicting decisions."""

    theta: Mapping[int, float] = dataclasses.field(default_factory=dict)
    lam: Mapping[int, float] = dataclasses.field(default_factory=dict)
    conflict: Mapping[int, float] = dataclasses.field(default_factory=dict)


def fault(nodes: Sequence[int], leaves: int, decisions: int) -> str | None:
    """What keeps a list of nodes in preorder from being a tree with so many leaves; None for nothing."""
    waiting = 1
    for number, node in enumerate(nodes):
        if not -1 <= node < decisions:
            return f"node {number} takes decision {node}, which names nothing"
        if not waiting:
            return f"node {number} comes after the last leaf"
        waiting += 1 if node >= 0 else -1
    if waiting:
        return f"the list ends with {waiting} open branches"
    return None if leaves == (found := list(nodes).count(-1)) else f"{leaves} proofs for {found} leaves"


@dataclasses.dataclass(frozen=True)
class Case:
    """A leaf, or a part of it.

    Attributes:
        row: number of the functional.
        decisions: what was decided on the way to it.
        target: effort beyond a bound of this size is not needed (squared for p = 2).
    """

    row: int
    decisions: tuple[int, ...]
    leaf: Leaf
    target: Number


def cases_of(row: int, nodes: Sequence[int], leaves: Sequence[Leaf], target: Number) -> Iterator[Case]:
    """The leaves of a row's tree: a decision for an inner node and -1 for a leaf, in preorder."""
    waiting: list[tuple[int, ...]] = [()]
    rest = iter(leaves)
    for node in nodes:
        decisions = waiting.pop()
        if node < 0:
            yield Case(row, decisions, next(rest), target)
        else:
            waiting += [(*decisions, node), (*decisions, node ^ 1)]


def case_bounds(question: Question, whole: Forward, cases: Sequence[Case]) -> list[Number]:
    """Bounds of cases (squared for p = 2), 0 for those without any input; what is not a number proves nothing."""
    found: list[Number] = []
    width = max(question.network.size(k) for k in range(question.network.last + 1))
    step = max(1, _ENTRIES // width**2)
    for i in range(0, len(cases), step):
        found += _bounds(question, whole.bounds, {}, cases[i : i + step], _ROUNDS)
    return found


def _bounds(
    question: Question,
    start: Mapping[int, Interval],
    planes: Mapping[int, Planes],
    cases: Sequence[Case],
    rounds: int,
) -> list[Number]:
    """Of few cases, each of which may be divided ``rounds`` times beyond its decisions."""
    domain, entries = _domain(question, [case.decisions for case in cases])
    first = forward(question, domain, start, planes)
    found = forward(question, domain, first.bounds, first.planes)
    rows = question.rows[[case.row for case in cases]]
    gradient = gradients(question, rows, found.slopes)
    low, high = gradient.intervals[0]
    empty = first.empty | found.empty | _contradicted(question, domain, found.planes, [case.leaf for case in cases])
    empty |= ((entries > 0) & (high < 0) | (entries < 0) & (low > 0)).any(1)
    low = np.where(entries > 0, np.maximum(low, 0 * low), low)
    high = np.where(entries < 0, np.minimum(high, 0 * high), high)
    gradient.intervals[0] = np.minimum(low, high), np.maximum(low, high)
    bounds: list[Number] = list(norm_bound(question, gradient))
    again: list[int] = []
    parts: list[Case] = []
    for i, case in enumerate(cases):
        if empty[i]:
            bounds[i] = 0 * bounds[i]
        elif question.norm != "1" and not bounds[i] <= case.target:
            slopes, intervals = (
                {k: (v[0][i], v[1][i]) for k, v in of.items()} for of in (found.slopes, gradient.intervals)
            )
            at = coordinates(question, rows[i], slopes, {k: v for k, v in intervals.items() if k})
            better = quadratic_bound(question, at, intervals[0], case.leaf.theta, case.leaf.lam)
            bounds[i] = better if better < bounds[i] else bounds[i]
            if not bounds[i] <= case.target and rounds:
                # For whoever wrote the file a gate without multiplier was decided: one side is empty, or bounded with
                # the multipliers that there are. Where there is none, another pass may help.
                missing = [2 * gate for gate in at.gates if case.leaf.theta and gate not in case.leaf.theta][:1]
                more: list[tuple[int, ...]] = [(gate + side,) for gate in missing for side in (0, 1)] or [()]
                again += [i] * len(more)
                parts += [dataclasses.replace(case, decisions=case.decisions + own) for own in more]
    if parts:
        each = {k: (v[0][again], v[1][again]) for k, v in found.bounds.items()}
        own = {k: Planes(p.normal[again], p.offset[again], p.gate[again]) for k, p in found.planes.items()}
        sides = _bounds(question, each, own, parts, rounds - 1)
        for i in set(again):
            bounds[i] = min(bounds[i], largest([bound for j, bound in zip(again, sides, strict=True) if j == i]))
    return bounds


def _contradicted(question: Question, cases: Cases, planes: Mapping[int, Planes], leaves: Sequence[Leaf]) -> Array:
    """Cases whose decisions contradict each other by the weights in the file."""
    if not planes or not any(leaf.conflict for leaf in leaves):
        return np.zeros(len(leaves), bool)
    walls = cutting(question.arithmetic, cases, planes)
    weights = [
        [leaf.conflict.get(g, 0.0) for g in gates] for leaf, gates in zip(leaves, walls.gate.tolist(), strict=True)
    ]
    nothing = question.arithmetic.zeros(1, question.network.inputs), question.arithmetic.zeros(len(leaves), 1)
    top = maximum(question.arithmetic, cases, *nothing, walls, np.array(weights)[:, None])
    return np.asarray(top[:, 0] < 0)


def largest(bounds: Sequence[Number]) -> Number:
    """What is not a number is larger than any."""
    return max(bounds, key=lambda bound: (not bound <= np.inf, bound))


def _domain(question: Question, decisions: Sequence[tuple[int, ...]]) -> tuple[Cases, Array]:
    """The parts of the box that decisions leave, and signs of gradient entries (cases, inputs)."""
    network = question.network
    lower, upper = (np.repeat(end[None], len(decisions), 0) for end in (question.lower, question.upper))
    flat = np.zeros((len(decisions), network.gates + network.inputs), int)
    for i, decision in ((i, decision) for i, made in enumerate(decisions) for decision in made):
        number, side = decision >> 1, 2 * (decision & 1) - 1
        if number < flat.shape[1]:
            flat[i, number] = side
        else:
            j = number - flat.shape[1]
            middle = (lower[i, j] + upper[i, j]) / 2  # both halves contain it, whatever its rounding
            (lower if side > 0 else upper)[i, j] = middle
    return Cases(lower, upper, flat[:, : network.gates]), flat[:, network.gates :]
