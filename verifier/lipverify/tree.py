"""One row's bound by cases: a binary tree of decisions that covers the box, with a proof at every leaf.

Decision ``2 g + 1`` puts gate ``g`` on its side ``z >= 0``, ``2 g`` on the other. From ``2 gates`` on come the signs of
gradient entries (``2 (gates + j) + 1``: not negative), from ``2 (gates + inputs)`` on the halves of the box along an
input (``+ 1``: the upper half). An inner node with decision ``d`` is followed by the parts ``d ^ 1`` and ``d``, so
together they cover it whatever the numbers say; what is wrong in a leaf weakens that leaf alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lipverify.backward import gradients, norm_bound
from lipverify.forward import Below, Cases, Forward, Planes, cutting, decided, everywhere, forward, maximum
from lipverify.network import Leaf, Network, Question
from lipverify.numbers import Array, Number
from lipverify.quadratic import quadratic_bound

_ENTRIES, _ROUNDS = 2**20, 4
"""Numbers in an array of cases; how often a case is propagated again that needs it."""


Lemma = tuple[int, list[int], list[tuple[int, ...]]]
"""A kink node, whose input is to be bounded over the whole box by cases: a tree in preorder, and all its parts."""


class Case(NamedTuple):
    """A leaf of a row's tree; effort beyond a bound of ``target`` is not needed (squared for p = 2)."""

    row: int
    leaf: Leaf
    target: Number


def parts_of(nodes: Sequence[int], names: int) -> list[tuple[int, ...]]:
    """The decisions on the way to every node of a tree in preorder: a decision for an inner node and -1 for a leaf.

    Raises:
        ValueError: it is no tree, or a decision is not below ``names``.
    """
    waiting, parts = list[tuple[int, ...]]([()]), list[tuple[int, ...]]()
    for number, node in enumerate(nodes):
        if not waiting or not -1 <= node < names:
            raise ValueError(f"tree: node {number}, {node}, names nothing or comes after the last leaf")
        parts.append(waiting.pop())
        if node >= 0:
            waiting += [(*parts[-1], node), (*parts[-1], node ^ 1)]
    if waiting:
        raise ValueError(f"tree: the list ends with {len(waiting)} open branches")
    return parts


def settled(question: Question, below: Mapping[int, Below], lemmas: Sequence[Lemma]) -> Forward:
    """The whole box with what lemmas prove, one after another: for every part of a tree holds what propagation through
    it alone says, and what holds for both of its parts."""
    whole = everywhere(question, below)
    for k, nodes, parts in lemmas:
        first = question._replace(network=Network(question.network.inputs, question.network.nodes[:k]))
        found = (forward(first, _domain(question, some)[0], whole).bounds[k] for some in _batches(question, parts))
        lower, upper = map(np.concatenate, zip(*found, strict=True))
        waiting = list[int]()
        for i in reversed(range(len(nodes))):
            if nodes[i] >= 0:
                both = [waiting.pop(), waiting.pop()]
                lower[i], upper[i] = np.maximum(lower[i], lower[both].min(0)), np.minimum(upper[i], upper[both].max(0))
            waiting.append(i)
        whole = whole._replace(bounds={**whole.bounds, k: (lower[:1], upper[:1])})
    return whole


def _batches(question: Question, cases: Sequence[Any]) -> list[Any]:
    step = max(1, _ENTRIES // max(question.network.size(k) for k in range(question.network.last + 1)) ** 2)
    return [cases[i : i + step] for i in range(0, len(cases), step)]


def case_bounds(question: Question, whole: Forward, cases: Sequence[Case]) -> list[Number]:
    """Bounds of cases (squared for p = 2), 0 for those without any input; what is not a number proves nothing."""
    return [bound for some in _batches(question, cases) for bound in _bounds(question, whole, some, _ROUNDS)]


def _bounds(question: Question, known: Forward, cases: Sequence[Case], rounds: int) -> list[Number]:
    """Of few cases; those that are not at their targets are propagated again, at most ``rounds`` times.

    Then both sides are tried of the open gate that is nearest to being decided, first among those without a multiplier,
    which may have been decided for whoever wrote the file: one side is empty, or each is bounded with the multipliers
    that there are.
    """
    domain, entries = _domain(question, [case.leaf.decisions for case in cases])
    first = forward(question, domain, known)
    found = forward(question, domain, first)
    back = gradients(question, question.rows[[case.row for case in cases]], found.slopes)
    gone, back.intervals[0] = decided(entries, *back.intervals[0])
    empty = first.empty | found.empty | gone | _contradicted(question, domain, found.planes, cases)
    near = np.concatenate([entries[:, :0], *(np.minimum(-low, high) for low, high in found.bounds.values())], 1)
    bounds, parts = list[Number](norm_bound(question, back)), list[tuple[int, Case]]()
    for i, case in enumerate(cases):
        sides: list[tuple[int, ...]] = [()]
        if empty[i]:
            bounds[i] = 0 * bounds[i]
        elif question.norm != "1" and not bounds[i] <= case.target:
            better, gates = quadratic_bound(question, back, found.slopes, i, case.leaf)
            bounds[i] = better if better < bounds[i] else bounds[i]
            order = sorted((gate in case.leaf.theta, near[i, gate], gate) for gate in gates)
            sides = [(2 * gate + side,) for *_, gate in order[:1] for side in (0, 1)] or sides
        if rounds and not bounds[i] <= case.target:
            made = case.leaf.decisions
            parts += [(i, case._replace(leaf=case.leaf._replace(decisions=made + side))) for side in sides]
    if parts:
        again = [i for i, _ in parts]
        each = {k: (low[again], high[again]) for k, (low, high) in found.bounds.items()}
        own = {k: Planes(*(part[again] for part in plane)) for k, plane in found.planes.items()}
        better = _bounds(question, found._replace(bounds=each, planes=own), [case for _, case in parts], rounds - 1)
        for i in set(again):
            bound = largest([bound for j, bound in zip(again, better, strict=True) if j == i])
            bounds[i] = bound if bound < bounds[i] else bounds[i]
    return bounds


def _contradicted(question: Question, domain: Cases, planes: Mapping[int, Planes], cases: Sequence[Case]) -> Array:
    """Cases whose decisions contradict each other by the weights in the file."""
    if not planes or not any(case.leaf.conflict for case in cases):
        return np.zeros(len(cases), bool)
    walls = cutting(question.arithmetic, domain, planes)
    weights = [[c.leaf.conflict.get(g, 0.0) for g in own] for c, own in zip(cases, walls.gate.tolist(), strict=True)]
    nothing = question.arithmetic.zeros(1, question.network.inputs), question.arithmetic.zeros(len(cases), 1)
    top = maximum(question.arithmetic, domain, *nothing, walls, np.array(weights)[:, None])
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
