"""Semidefinite bounds (docs/quadratic-gates.md, derived in docs/certificates.md): any multipliers prove something.

A gate ``u = a J`` passes ``lo J`` and adds a coordinate ``v`` with ``v (K - v) >= 0``, ``K = (hi - lo) J``. With
``w = (1, v)`` every ``K_i`` and every gradient entry ``g_j' w`` is affine in the coordinates of later gates. Let

    S = theta_0 e_0 e_0' + sum theta_i (k_i e_i' + e_i k_i') - sum lam_j g_j g_j' - C ,    k_i = (e_i - K_i) / 2 ,

for any ``theta`` and any ``lam > 0``. If ``S + delta D`` is positive semidefinite, ``D`` diagonal with
``1 / limit_i^2``, then the norm is at most ``theta_0 + sum 1 / (4 lam_j) + n delta``. (At the maximum every gate is at
an end of its range, so ``w' A_i w = 0`` and theta needs no sign.) ``theta_0`` is whatever makes ``S`` semidefinite.

With cuts the signs of the entries that have a ``lam`` are coordinates too: ``s_j g_j' w`` and
``(1 - s_j^2) / (4 lam_j)`` stand for ``lam_j g_j g_j'``. A cut is a product of two forms that are at least 0, and is
taken from ``S`` with any multiplier that is at least 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lipverify.backward import Gradients
from lipverify.forward import Interval, Intervals
from lipverify.network import Affine, Kink, Leaf, Question
from lipverify.numbers import LARGEST, Array, Number, shift


class Coordinates(NamedTuple):
    """Open gates as coordinates 1, 2, ..., from the output on, then signs; coordinate 0 is the constant 1.

    Attributes:
        gates: their numbers.
        limits: (n,) bounds on the coordinates.
        incoming, totals: (n, n) rows ``K_i`` as maps of the coordinates (zeros first), and (n,) their absolute sums.
        rise, reach: (n,) of the lines ``rise_i K_i + reach_i >= v_i >= (1 - rise_i) K_i - reach_i``.
        entries, sums: (n, inputs) the gradient's entries as such maps, in columns, and (inputs,) their absolute sums.
    """

    gates: list[int]
    limits: Array
    incoming: Array
    totals: Array
    rise: Array
    reach: Array
    entries: Array
    sums: Array


def quadratic_bound(
    question: Question, back: Gradients, slopes: Intervals, case: int, leaf: Leaf
) -> tuple[Number, list[int]]:
    """Upper bound on the l1 norm (p = inf) or the squared l2 norm (p = 2) of one case's gradient, and its open gates.

    Args:
        back, slopes: of all cases.
        leaf: missing ``theta`` count as 0; entries without ``lam`` are taken as linear.
    """
    arithmetic, squared, inputs = question.arithmetic, question.norm == "2", question.network.inputs
    number, (lower, upper) = arithmetic.array, (end[case] for end in back.intervals[0])
    # |J| <= s J + 2 max(-s J, 0): linear with the sign s of the larger end, which rounding may have left open.
    left = 2 * np.maximum(np.minimum(-lower, upper), 0 * upper)
    some = [j for j in range(inputs) if squared or 1 / LARGEST < leaf.lam.get(j, 0.0) < LARGEST]
    linear = [j for j in range(inputs) if j not in set(some)]
    signs, chosen = (some, []) if leaf.cuts and not squared else ([], some)
    at = coordinates(question, back, slopes, case, len(signs))
    n, limit, g, size = len(at.limits), at.limits, at.entries.T, at.sums
    one, sides = number(np.eye(n)), number(np.where((upper >= -lower)[linear], 1.0, -1.0))
    thetas = [np.clip(leaf.theta.get(gate, 0.0), -LARGEST, LARGEST) for gate in at.gates]
    factors = number(thetas + [0.25 / leaf.lam[j] for j in signs])
    weights = number([1.0 if squared else float(leaf.lam[j]) for j in chosen])
    # S, as a sum of products of two linear forms, and how large these are.
    products = (
        (factors[:, None] * one[1:], one[1:] - at.incoming[1:], np.abs(factors) * limit[1:] * (limit + at.totals)[1:]),
        (-sides[:, None] * one[0], g[linear], size[linear]),
        (-one[n - len(signs) :], g[signs], size[signs]),
        (-weights[:, None] * g[chosen], g[chosen], weights * size[chosen] ** 2),
        _cuts(question, at, signs, (lower, upper), leaf.cuts),
    )
    first, second, sizes = map(np.concatenate, zip(*products, strict=True))
    matrix, weight = first.T @ second / 2, np.abs(first.T) @ np.abs(second) / 2
    matrix = (matrix + matrix.T) * limit * limit[:, None]
    bound = 0 if squared else left[linear].sum() + (1 / (4 * weights)).sum() + factors[len(at.gates) :].sum()
    added = number(_repair(arithmetic.floats(matrix)))
    delta = shift(arithmetic, matrix + added)
    # theta_0 counts as it is; any other matrix E that is added takes w'E w <= sum |E|, as |w_i| <= 1 by now.
    cost = added[0, 0] + np.abs(added[1:, 1:]).sum() + n * delta
    error = 3 * sizes.sum() + limit @ weight @ limit * 2 + np.abs(bound) + np.abs(added).sum() + n * abs(delta)
    return bound + cost + arithmetic.error(question.network.length + 2 * n + len(sizes), error), at.gates


def _repair(matrix: Array) -> Array:
    """What makes a matrix about semidefinite at the least cost: ``theta_0`` in its corner, other eigenvalues raised."""
    added, best, middle = np.zeros_like(matrix), np.inf, np.log10(np.abs(matrix).max() + 1e-300)
    if not np.isfinite(matrix).all():
        return added
    values, vectors = np.linalg.eigh(matrix[1:, 1:])
    least, along = values.min(initial=np.inf), (matrix[0, 1:] @ vectors) ** 2
    for steps in (np.arange(-13, 1, 0.5), np.arange(-0.4, 0.5, 0.1), np.arange(-0.08, 0.1, 0.02)):  # ever closer
        for exponent, goal in zip(middle + steps, 10.0 ** (middle + steps), strict=True):
            for raised in (np.maximum(goal - values, 0.0), 0 * values + max(goal - least, 0.0)):  # some of them, or all
                extra = (vectors * raised) @ vectors.T
                corner = (along / (values + raised)).sum() - matrix[0, 0]
                if corner + np.abs(extra).sum() < best:
                    best, middle = corner + np.abs(extra).sum(), exponent
                    added[0, 0], added[1:, 1:] = corner, (extra + extra.T) / 2
    return added


def _cuts(
    question: Question, at: Coordinates, signs: Sequence[int], entries: Interval, cuts: Mapping[int, float]
) -> tuple[Array, Array, Array]:
    """Pairs of forms that are at least 0, the first times minus its multiplier: (cuts, n) twice, and their sizes.

    With ``N`` names the pair ``a N + b`` is that of ``a`` and ``b``. Name 0 is the constant 1, ``1 + 2 g`` the line
    above gate ``g``, ``2 + 2 g`` that below; after the gates come the entries of the gradient, with ``1 - s`` and ``1 +
    s`` of their signs. Forms are of length 1 in units of the limits. What has no coordinate here is left out, which is
    always allowed.
    """
    arithmetic, first = question.arithmetic, 2 * question.network.gates
    one, own = arithmetic.array(np.eye(len(at.limits))), at.incoming[1:]
    line, size = at.rise[1:, None] * own + at.reach[1:, None] * one[0], (at.reach + at.limits + at.totals)[1:]
    forms, sizes = np.concatenate([one[:1], line - one[1:], line - own + one[1:]]), np.concatenate([[1], size, size])
    length = np.sqrt((arithmetic.floats(forms * at.limits) ** 2).sum(1))
    numbers = [*(2 * gate for gate in at.gates), *(first + 2 * j for j in signs)]
    place = {0: 0} | {name: i for i, name in enumerate((side + n for side in (1, 2) for n in numbers), 1)}
    for side, settled in enumerate((entries[1] <= 0, entries[0] >= 0), 1):
        place |= {side + first + 2 * int(j): 0 for j in np.flatnonzero(settled)}
    pairs = [(*divmod(pair, 1 + first + 2 * question.network.inputs), value) for pair, value in cuts.items()]
    pairs = [(place[a], place[b], value) for a, b, value in pairs if a in place and b in place]
    a, b, values = map(list, tuple(zip(*pairs, strict=True)) or ((), (), ()))
    nu = arithmetic.array(np.clip(np.nan_to_num(np.array(values) / (length[a] * length[b])), 0.0, LARGEST))
    return -nu[:, None] * forms[a], forms[b], nu * sizes[a] * sizes[b]


def coordinates(question: Question, back: Gradients, slopes: Intervals, case: int, signs: int) -> Coordinates:
    """Of one case, from its gradients and the ranges of its slopes; last come ``signs`` that are 1 or -1."""
    network, arithmetic, row = question.network, question.arithmetic, back.rows[case]
    gates, found, nothing = list[int](), dict[int, tuple[int, Array]](), arithmetic.zeros(1)
    columns = [(nothing + 1, nothing, nothing)]
    for k in (k for k in reversed(network.kinks) if k in back.intervals):
        size, (lo, hi) = np.maximum(*(np.abs(v[case]) for v in back.intervals[k])), (v[case] for v in slopes[k])
        index = np.flatnonzero((hi > lo) & (size > 0))
        found[k] = len(gates) + 1, index
        gates += (network.first_gate[k] + index).tolist()
        rise, reach = (v[case, index] for v in (back.lines[k].rise, back.lines[k].reach))
        columns.append((arithmetic.up((hi - lo) * size)[index], rise, reach))
    columns.append((arithmetic.zeros(signs) + 1, arithmetic.zeros(signs), arithmetic.zeros(signs) + 1))
    n, (limits, rise, reach) = len(gates) + 1 + signs, map(np.concatenate, zip(*columns, strict=True))
    totals, incoming, start = arithmetic.zeros(n), arithmetic.zeros(n, n), arithmetic.zeros(n, len(row))
    start[0] = row

    def through(k: int, node: Affine | Kink, value: tuple[Array, Array]) -> Iterator[tuple[int, tuple[Array, Array]]]:
        forms, total = value  # a node's gradient as maps of the coordinates, in columns, and their absolute sums
        if isinstance(node, Affine):
            yield from ((parent, (forms @ one, total @ np.abs(one))) for parent, one in node.terms)
            return
        lo, hi = (end[case] for end in slopes[k])
        passed, size, (first, index) = forms * lo, np.abs(lo) * total, found[k]
        own, width = np.arange(first, first + len(index)), (hi - lo)[index]
        incoming[own], totals[own] = (width * forms[:, index]).T, width * total[index]
        passed[own, index] = passed[own, index] + 1
        size[index] = size[index] + limits[own]
        yield node.parent, (passed, size)

    blank = arithmetic.zeros(n, network.inputs), arithmetic.zeros(network.inputs)
    ends = network.backward({network.last: (start, np.abs(row))}, through) or blank
    return Coordinates(gates, limits, incoming, totals, rise, reach, *ends)
