"""Semidefinite bounds (docs/quadratic-gates.md, derived in docs/certificates.md): any multipliers prove something.

A gate ``u = a J`` passes ``lo J`` and adds a coordinate ``v`` with ``v (K - v) >= 0``, ``K = (hi - lo) J``. With
``w = (1, v)`` every ``K_i`` and every gradient entry ``g_j' w`` is affine in the coordinates of later gates. Let

    S = theta_0 e_0 e_0' + sum theta_i (k_i e_i' + e_i k_i') - sum lam_j g_j g_j' - C ,    k_i = (e_i - K_i) / 2 ,

for any ``theta`` and any ``lam > 0``. If ``S + delta D`` is positive semidefinite, ``D`` diagonal with
``1 / limit_i^2``, then the norm is at most ``theta_0 + sum 1 / (4 lam_j) + n delta``. (At the maximum every gate is at
an end of its range, so ``w' A_i w = 0`` and theta needs no sign.) ``theta_0`` is whatever makes ``S`` semidefinite.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from lipverify.forward import Interval
from lipverify.network import Affine, Kink, Question
from lipverify.numbers import LARGEST, Array, Number, shift


class Coordinates(NamedTuple):
    """Open gates as coordinates 1, 2, ..., from the output on; coordinate 0 is the constant 1.

    Attributes:
        gates: (n - 1,) their numbers.
        limits: (n,) bounds on the coordinates.
        incoming, totals: (n, n) rows ``K_i`` as maps of the coordinates (zeros first), and (n,) their absolute sums.
        entries, sums: (n, inputs) the gradient's entries as such maps, in columns, and (inputs,) their absolute sums.
    """

    gates: list[int]
    limits: Array
    incoming: Array
    totals: Array
    entries: Array
    sums: Array


def quadratic_bound(
    question: Question, at: Coordinates, entries: Interval, theta: Mapping[int, float], lam: Mapping[int, float]
) -> Number:
    """Upper bound on the l1 norm (p = inf) or the squared l2 norm (p = 2) of the gradient.

    Args:
        entries: (inputs,) what is known of the gradient.
        theta: by gate number, missing ones count as 0.
        lam: by entry of the gradient, for p = inf. Entries without one are taken as linear, or by their interval.
    """
    arithmetic, squared, inputs = question.arithmetic, question.norm == "2", question.network.inputs
    n, number, limit = len(at.limits), arithmetic.array, at.limits
    count = question.network.length + inputs + n + 24
    factors = number([np.clip(theta.get(gate, 0.0), -LARGEST, LARGEST) for gate in at.gates])
    half = factors[:, None] * (number(np.eye(n)[1:]) - at.incoming[1:]) / 2
    matrix = arithmetic.zeros(n, n)
    matrix[1:] = half
    weight, bound = np.abs(matrix), 0 * limit[0]  # absolute terms, for the rounding of the sums
    error = np.abs(factors) @ (limit[1:] * at.totals[1:])
    lower, upper = entries
    largest = np.maximum(np.abs(lower), np.abs(upper))
    # |J| <= s J + 2 max(-s J, 0): linear with the sign s of the larger end, which rounding may have left open.
    left = 2 * np.maximum(np.minimum(-lower, upper), 0 * upper)
    chosen = [j for j in range(inputs) if squared or 1 / LARGEST < lam.get(j, 0.0) < LARGEST]
    linear = [j for j in range(inputs) if j not in set(chosen) and left[j] <= largest[j]]
    sides = number(np.where((upper >= -lower)[linear], 0.5, -0.5).tolist())
    matrix[0] = matrix[0] - at.entries[:, linear] @ sides
    weight[0] = weight[0] + np.abs(at.entries[:, linear]) @ np.abs(sides)
    matrix, weight = matrix + matrix.T, weight + weight.T
    weights = number([1.0 if squared else float(lam[j]) for j in chosen])
    g, size = at.entries[:, chosen], at.sums[chosen]
    matrix = matrix - (g * weights) @ g.T
    weight = weight + np.abs(g * weights) @ np.abs(g).T
    error = error + at.sums[linear].sum() + 3 * (weights * size * size).sum()
    if not squared:
        skipped = [j for j in range(inputs) if j not in {*chosen, *linear}]
        bound = bound + left[linear].sum() + largest[skipped].sum() + (1 / (4 * weights)).sum()
    matrix = matrix * limit * limit[:, None]
    added = number(_repair(arithmetic.floats(matrix)))
    delta = shift(arithmetic, matrix + added)
    # theta_0 counts as it is; any other matrix E that is added takes w'E w <= sum |E|, as |w_i| <= 1 by now.
    cost = added[0, 0] + np.abs(added[1:, 1:]).sum() + n * delta
    error = error + limit @ weight @ limit + np.abs(bound) + np.abs(added).sum() + n * abs(delta)
    return bound + cost + arithmetic.error(count, error)


def _repair(matrix: Array) -> Array:
    """What makes a matrix about semidefinite at the least cost: ``theta_0`` in its corner, other eigenvalues raised."""
    added, best = np.zeros_like(matrix), np.inf
    if not np.isfinite(matrix).all():
        return added
    values, vectors = np.linalg.eigh(matrix[1:, 1:])
    least, along = values.min(initial=np.inf), (matrix[0, 1:] @ vectors) ** 2
    for goal in (np.abs(matrix).max() + 1e-300) * 10.0 ** np.arange(-13, 1, 0.5):
        for raised in (np.maximum(goal - values, 0.0), 0 * values + max(goal - least, 0.0)):  # some of them, or all
            extra = (vectors * raised) @ vectors.T
            corner = (along / (values + raised)).sum() - matrix[0, 0]
            if corner + np.abs(extra).sum() < best:
                best = corner + np.abs(extra).sum()
                added[0, 0], added[1:, 1:] = corner, (extra + extra.T) / 2
    return added


def coordinates(
    question: Question, row: Array, slopes: Mapping[int, Interval], intervals: Mapping[int, Interval]
) -> Coordinates:
    """Of one case. ``intervals`` are of the gradient of ``row`` at the kinks whose gates may be open."""
    network, arithmetic = question.network, question.arithmetic
    gates, reaches, found = list[int](), [arithmetic.array([1.0])], dict[int, tuple[int, Array]]()
    for k in (k for k in reversed(network.kinks) if k in intervals):
        (lo, hi), size = slopes[k], np.maximum(*(np.abs(v) for v in intervals[k]))
        index = np.flatnonzero((hi > lo) & (size > 0))
        found[k] = len(gates) + 1, index
        gates += (network.first_gate[k] + index).tolist()
        reaches.append(arithmetic.up((hi - lo) * size)[index])
    n, limits = len(gates) + 1, np.concatenate(reaches)
    totals, incoming, start = arithmetic.zeros(n), arithmetic.zeros(n, n), arithmetic.zeros(n, len(row))
    start[0] = row

    def through(k: int, node: Affine | Kink, value: Map) -> Iterator[tuple[int, Map]]:
        forms, total = value
        if isinstance(node, Affine):
            yield from ((parent, (forms @ one.matrix, total @ one.absolute)) for parent, one in node.terms)
            return
        lo, hi = slopes[k]
        passed, size, (first, index) = forms * lo, np.abs(lo) * total, found[k]
        own, width = np.arange(first, first + len(index)), (hi - lo)[index]
        incoming[own], totals[own] = (width * forms[:, index]).T, width * total[index]
        passed[own, index] = passed[own, index] + 1
        size[index] = size[index] + limits[own]
        yield node.parent, (passed, size)

    nothing = arithmetic.zeros(n, network.inputs), arithmetic.zeros(network.inputs)
    ends = network.backward({network.last: (start, np.abs(row))}, through) or nothing
    return Coordinates(gates, limits, incoming, totals, *ends)


Map = tuple[Array, Array]
"""A node's gradient as maps of the coordinates, in columns, and their absolute sums."""
