"""One row's bound by cases: a binary tree of decisions that covers the box, with a proof at every leaf.

Decision ``2 g + 1`` puts gate ``g`` on its side ``z >= 0``, ``2 g`` on the other. From ``2 gates`` on come the signs of
gradient entries (``2 (gates + j) + 1``: not negative), from ``2 (gates + inputs)`` on the halves of the box along an
input (``+ 1``: the upper half). An inner node with decision ``d`` is followed by the parts ``d ^ 1`` and ``d``, so
together they cover it whatever the numbers say; what is wrong in a leaf weakens that leaf alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from lipverify.backward import gradients, norm_bound
from lipverify.forward import Domain, Interval, forward, maximum
from lipverify.numbers import Array, Number
from lipverify.quadratic import coordinates, quadratic_bound
from lipverify.question import Question


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


def tree_bound(
    question: Question, start: Mapping[int, Interval], nodes: Sequence[int], leaves: Sequence[Leaf], target: Number
) -> Number:
    """Largest bound over the leaves (squared for p = 2).

    Args:
        start: bounds over the whole box.
        nodes: in preorder, a decision for an inner node and -1 for a leaf.
        target: effort beyond a bound of this size is not needed.
    """
    bounds: list[Number | None] = []
    waiting: list[tuple[tuple[int, ...], Mapping[int, Interval]]] = [((), start)]
    rest = iter(leaves)
    for node in nodes:
        decisions, known = waiting.pop()
        domain, entries = _domain(question, decisions)
        if node >= 0:
            # What holds in a case holds in its parts, which see decisions of their own only after it.
            inner = forward(question, domain, known, passes=2).bounds if decisions else known
            waiting += [((*decisions, node), inner), ((*decisions, node ^ 1), inner)]
            continue
        bounds.append(_leaf_bound(question, domain, entries, known, next(rest), target))
    return _largest(bounds)


def _largest(bounds: Sequence[Number | None]) -> Number:
    """Of the cases with inputs; what is not a number is larger than any."""
    some = [bound for bound in bounds if bound is not None]
    return max(some, key=lambda bound: (not bound <= np.inf, bound), default=0)


def _leaf_bound(
    question: Question, domain: Domain, entries: Array, start: Mapping[int, Interval], leaf: Leaf, target: Number,
    depth: int = 3,
) -> Number | None:  # fmt: skip
    """Bound of one case; None where it holds no input. ``depth``: gates that may be decided beyond its decisions."""
    arithmetic = question.arithmetic
    found = forward(question, domain, start, passes=3)
    if found.empty:
        return None
    if leaf.conflict and len(found.planes.offset):
        weights = np.array([[leaf.conflict.get(int(g), 0.0) for g in found.planes.gate]])
        nothing = arithmetic.zeros(1, question.network.inputs), arithmetic.zeros(1)
        if maximum(arithmetic, domain, *nothing, found.planes, weights)[0] < 0:
            return None
    gradient = gradients(question, found.slopes)
    low, high = gradient.intervals[0]
    if bool(((entries > 0) & (high < 0) | (entries < 0) & (low > 0)).any()):
        return None
    low = np.where(entries > 0, np.maximum(low, 0 * low), low)
    high = np.where(entries < 0, np.minimum(high, 0 * high), high)
    gradient.intervals[0] = np.minimum(low, high), np.maximum(low, high)
    bound = norm_bound(question, gradient)
    if question.norm == "1" or bound <= target:
        return bound
    at = coordinates(question, found.slopes, {k: v for k, v in gradient.intervals.items() if k})
    better = quadratic_bound(question, at, gradient.intervals[0], leaf.theta, leaf.lam)
    bound = better if better < bound else bound
    missing = [gate for gate in at.gates if gate not in leaf.theta]
    if bound <= target or not depth or not leaf.theta or not missing:
        return bound
    # For whoever wrote the file this gate was decided: one side is empty, or bounded with the multipliers there.
    parts = []
    for side in (-1, 1):
        signs = domain.signs.copy()
        signs[missing[0]] = side
        part = dataclasses.replace(domain, signs=signs)
        parts.append(_leaf_bound(question, part, entries, found.bounds, leaf, target, depth - 1))
    return _largest(parts)


def _domain(question: Question, decisions: tuple[int, ...]) -> tuple[Domain, Array]:
    """The part of the box that the decisions leave, and signs of gradient entries (inputs,)."""
    network, lower, upper = question.network, question.lower.copy(), question.upper.copy()
    flat = np.zeros(network.gates + network.inputs, int)
    for decision in decisions:
        number, side = decision >> 1, 2 * (decision & 1) - 1
        if number < len(flat):
            flat[number] = side
        else:
            j = number - len(flat)
            middle = (lower[j] + upper[j]) / 2  # both halves contain it, whatever its rounding
            lower[j], upper[j] = (middle, upper[j]) if side > 0 else (lower[j], middle)
    return Domain(lower, upper, flat[: network.gates]), flat[network.gates :]
