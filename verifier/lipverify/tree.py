"""One row's bound by cases: a binary tree of decisions that covers the box, with a proof at every leaf.

Decision ``2 g + 1`` puts gate ``g`` on its side ``z >= 0``, ``2 g`` on the other. From ``2 gates`` on come the signs of
gradient entries (``2 (gates + j) + 1``: not negative), from ``2 (gates + inputs)`` on the halves of the box along an
input (``+ 1``: the upper half). An inner node with decision ``d`` is followed by the parts ``d ^ 1`` and ``d``, so
together they cover it whatever the numbers say; what is wrong in a leaf weakens that leaf alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lipverify.backward import gradients, norm_bound
from lipverify.forward import Cases, Forward, Interval, Planes, cutting, forward, maximum
from lipverify.network import Leaf, Question
from lipverify.numbers import Array, Number
from lipverify.quadratic import quadratic_bound

_ENTRIES, _ROUNDS = 2**20, 3
"""Numbers in an array of cases; how often a case is propagated again that needs it."""


class Case(NamedTuple):
    """A leaf of a row's tree; effort beyond a bound of ``target`` is not needed (squared for p = 2)."""

    row: int
    leaf: Leaf
    target: Number


def leaves_of(nodes: Sequence[int], names: int) -> list[tuple[int, ...]]:
    """The decisions on the way to every leaf of a tree in preorder: a decision for an inner node and -1 for a leaf.

    Raises:
        ValueError: it is no tree, or a decision is not below ``names``.
    """
    waiting: list[tuple[int, ...]] = [()]
    found = []
    for number, node in enumerate(nodes):
        if not waiting or not -1 <= node < names:
            raise ValueError(f"tree: node {number}, {node}, names nothing or comes after the last leaf")
        made = waiting.pop()
        if node < 0:
            found.append(made)
        else:
            waiting += [(*made, node), (*made, node ^ 1)]
    if waiting:
        raise ValueError(f"tree: the list ends with {len(waiting)} open branches")
    return found


def case_bounds(question: Question, whole: Forward, cases: Sequence[Case]) -> list[Number]:
    """Bounds of cases (squared for p = 2), 0 for those without any input; what is not a number proves nothing."""
    step = max(1, _ENTRIES // max(question.network.size(k) for k in range(question.network.last + 1)) ** 2)
    parts = (cases[i : i + step] for i in range(0, len(cases), step))
    return [bound for part in parts for bound in _bounds(question, whole.bounds, {}, part, _ROUNDS)]


def _bounds(
    question: Question, start: Mapping[int, Interval], planes: Mapping[int, Planes], cases: Sequence[Case], rounds: int
) -> list[Number]:
    """Of few cases; those that are not at their targets are propagated again, at most ``rounds`` times.

    A gate that is open here and has no multiplier was decided for whoever wrote the file: then both of its sides are,
    one of which is empty, or bounded with the multipliers that there are.
    """
    domain, entries = _domain(question, [case.leaf.decisions for case in cases])
    first = forward(question, domain, start, planes)
    found = forward(question, domain, first.bounds, first.planes)
    back = gradients(question, question.rows[[case.row for case in cases]], found.slopes)
    low, high = back.intervals[0]
    empty = first.empty | found.empty | _contradicted(question, domain, found.planes, [case.leaf for case in cases])
    empty |= ((entries > 0) & (high < 0) | (entries < 0) & (low > 0)).any(1)
    low = np.where(entries > 0, np.maximum(low, 0 * low), low)
    high = np.where(entries < 0, np.minimum(high, 0 * high), high)
    back.intervals[0] = np.minimum(low, high), np.maximum(low, high)
    bounds: list[Number] = list(norm_bound(question, back))
    parts: list[tuple[int, Case]] = []
    for i, case in enumerate(cases):
        decided: list[tuple[int, ...]] = [()]
        if empty[i]:
            bounds[i] = 0 * bounds[i]
        elif question.norm != "1" and not bounds[i] <= case.target:
            better, gates = quadratic_bound(question, back, found.slopes, i, case.leaf)
            bounds[i] = better if better < bounds[i] else bounds[i]
            missing = [2 * gate for gate in gates if case.leaf.theta and gate not in case.leaf.theta][:1]
            decided = [(gate + side,) for gate in missing for side in (0, 1)] or decided
        if rounds and not bounds[i] <= case.target:
            made = case.leaf.decisions
            parts += [(i, case._replace(leaf=case.leaf._replace(decisions=made + more))) for more in decided]
    if parts:
        again = [i for i, _ in parts]
        each = {k: (low[again], high[again]) for k, (low, high) in found.bounds.items()}
        own = {k: Planes(*(part[again] for part in plane)) for k, plane in found.planes.items()}
        sides = _bounds(question, each, own, [case for _, case in parts], rounds - 1)
        for i in set(again):
            bound = largest([bound for j, bound in zip(again, sides, strict=True) if j == i])
            bounds[i] = bound if bound < bounds[i] else bounds[i]
    return bounds


def _contradicted(question: Question, cases: Cases, planes: Mapping[int, Planes], leaves: Sequence[Leaf]) -> Array:
    """Cases whose decisions contradict each other by the weights in the file."""
    if not planes or not any(leaf.conflict for leaf in leaves):
        return np.zeros(len(leaves), bool)
    walls = cutting(question.arithmetic, cases, planes)
    given = zip((leaf.conflict for leaf in leaves), walls.gate.tolist(), strict=True)
    weights = [[conflict.get(gate, 0.0) for gate in gates] for conflict, gates in given]
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
