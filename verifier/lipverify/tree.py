"""One row's bound by cases: a binary tree of decisions that covers the box, with a proof at every leaf.

Decision ``2 g + 1`` puts gate ``g`` on its side ``z >= 0``, ``2 g`` on the other. From ``2 gates`` on come the signs of
gradient entries (``2 (gates + j) + 1``: not negative), from ``2 (gates + inputs)`` on the halves of the box along an
input (``+ 1``: the upper half). An inner node with decision ``d`` is followed by the parts ``d ^ 1`` and ``d``, so
together they cover it whatever the numbers say; what is wrong in a leaf weakens that leaf alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from lipverify.backward import gradients, norm_bound
from lipverify.forward import Domain, Interval, forward, maximum
from lipverify.lower import Refused
from lipverify.network import Network
from lipverify.numbers import Arithmetic, Array
from lipverify.quadratic import quadratic_bound


@dataclasses.dataclass(frozen=True, eq=False)
class Leaf:
    """What proves a case: multipliers of a semidefinite bound (by gate and by entry), or of contradicting decisions."""

    constant: float = 0.0
    theta: Mapping[int, float] = dataclasses.field(default_factory=dict)
    lam: Mapping[int, float] = dataclasses.field(default_factory=dict)
    conflict: Mapping[int, float] = dataclasses.field(default_factory=dict)


def tree_bound(
    network: Network,
    arithmetic: Arithmetic,
    lower: Array,
    upper: Array,
    row: Array,
    norm: str,
    start: Mapping[int, Interval],
    nodes: Array,
    leaf: Callable[[int], Leaf],
    target: Array,
) -> tuple[Array, int]:
    """Largest bound over the leaves (squared for p = 2), and how many there are.

    Args:
        start: bounds over the whole box.
        nodes: in preorder, a decision for an inner node and -1 for a leaf.
        target: effort beyond a bound of this size is not needed.
    """
    largest, leaves = arithmetic.zeros(1)[0], 0
    waiting: list[tuple[tuple[int, ...], Mapping[int, Interval]]] = [((), start)]
    for node in nodes.tolist():
        if not waiting:
            raise Refused("the tree has nodes after its last leaf")
        decisions, known = waiting.pop()
        domain, entries = _domain(network, arithmetic, lower, upper, decisions)
        if node >= 0:
            if node >= 2 * (network.gates + 2 * network.inputs):
                raise Refused(f"decision {node} names nothing")
            # What holds in a case holds in its parts, which see decisions of their own only after it.
            inner = forward(network, arithmetic, domain, known, passes=2).bounds if decisions else known
            waiting += [((*decisions, node), inner), ((*decisions, node ^ 1), inner)]
            continue
        bound = _leaf_bound(network, arithmetic, domain, entries, row, norm, known, leaf(leaves), target)
        if bound is not None:
            largest = max(largest, bound)
        leaves += 1
    if waiting:
        raise Refused(f"the tree ends with {len(waiting)} open branches")
    return largest, leaves


def _leaf_bound(
    network: Network,
    arithmetic: Arithmetic,
    domain: Domain,
    entries: Array,
    row: Array,
    norm: str,
    start: Mapping[int, Interval],
    proof: Leaf,
    target: Array,
) -> Array | None:
    """Bound of one case; None where it holds no input."""
    found = forward(network, arithmetic, domain, start, passes=3)
    if found.empty:
        return None
    if proof.conflict and len(found.planes.offset):
        weights = np.array([[proof.conflict.get(int(g), 0.0) for g in found.planes.gate]])
        nothing = arithmetic.zeros(1, network.inputs), arithmetic.zeros(1)
        if maximum(arithmetic, domain, *nothing, found.planes, weights)[0] < 0:
            return None
    gradient = gradients(network, arithmetic, found.slopes, row, "linear", norm)
    low, high = gradient.intervals[0]
    if bool(((entries > 0) & (high < 0) | (entries < 0) & (low > 0)).any()):
        return None
    low = np.where(entries > 0, np.maximum(low, 0 * low), low)
    high = np.where(entries < 0, np.minimum(high, 0 * high), high)
    gradient.intervals[0] = np.minimum(low, high), np.maximum(low, high)
    bound, _ = norm_bound(network, arithmetic, row, gradient, norm, pushed=True)
    if bound > target and norm != "1":
        better = quadratic_bound(
            network, arithmetic, found.slopes, row, gradient, norm, proof.constant, proof.theta, proof.lam
        )
        if better is not None and better < bound:
            bound = better
    return bound


def _domain(
    network: Network, arithmetic: Arithmetic, lower: Array, upper: Array, decisions: tuple[int, ...]
) -> tuple[Domain, Array]:
    """The part of the box that the decisions leave, and signs of gradient entries (inputs,)."""
    lower, upper = lower.copy(), upper.copy()
    signs = {k: np.zeros(network.size(k), int) for k in network.kinks}
    entries = np.zeros(network.inputs, int)
    flat = np.zeros(network.gates, int)
    for decision in decisions:
        number, side = decision >> 1, 2 * (decision & 1) - 1
        if number < network.gates:
            flat[number] = side
        elif number < network.gates + network.inputs:
            entries[number - network.gates] = side
        else:
            j = number - network.gates - network.inputs
            middle = (lower[j] + upper[j]) / 2  # both halves contain it, whatever its rounding
            lower[j], upper[j] = (middle, upper[j]) if side > 0 else (lower[j], middle)
    for k, first in network.first_gate.items():
        signs[k] = flat[first : first + network.size(k)]
    return Domain(lower, upper, signs), entries
