"""Semidefinite bounds (docs/quadratic-gates.md, derived in docs/certificates.md): any multipliers prove something.

A gate ``u = a J`` passes ``lo J`` and adds a coordinate ``v`` with ``v (K - v) >= 0``, ``K = (hi - lo) J``. With
``w = (1, v)`` every ``K_i`` and every gradient entry ``g_j' w`` is affine in the coordinates of later gates. Let

    S = theta_0 e_0 e_0' + sum theta_i (k_i e_i' + e_i k_i') - sum lam_j g_j g_j' - C ,    k_i = (e_i - K_i) / 2 ,

for any ``theta`` and any ``lam > 0``. If ``S + delta D`` is positive semidefinite, ``D`` diagonal with
``1 / limit_i^2``, then the norm is at most ``theta_0 + sum 1 / (4 lam_j) + n delta``. (At the maximum every gate is at
an end of its range, so ``w' A_i w = 0`` and theta needs no sign.)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lipverify.backward import Gradients
from lipverify.forward import Interval
from lipverify.network import Affine, Network
from lipverify.numbers import Arithmetic, Array, Number


def quadratic_bound(
    network: Network,
    arithmetic: Arithmetic,
    slopes: Mapping[int, Interval],
    row: Array,
    found: Gradients,
    norm: str,
    constant: float,
    theta: Mapping[int, float],
    lam: Mapping[int, float],
) -> Number | None:
    """Upper bound on the l1 norm (p = inf) or the squared l2 norm (p = 2) of the gradient; None where S is indefinite.

    Args:
        constant: ``theta_0``.
        theta: by gate number, missing ones count as 0.
        lam: by entry of the gradient, for p = inf. Entries without one are taken as linear, or by their interval.
    """
    gates, limits, blocks, entries, entry_sums = _coordinates(network, arithmetic, slopes, row, found)
    n = len(gates) + 1
    gamma = arithmetic.gamma(network.length + n)
    limit = np.concatenate([arithmetic.array([1.0]), limits])
    number = arithmetic.array
    matrix = arithmetic.zeros(n, n)
    matrix[0, 0] = number(constant)
    weight = arithmetic.zeros(n, n)  # absolute terms, for the rounding of the sums
    bound, error = number(constant) + 0, 0 * limit[0]
    for i, gate in enumerate(gates, 1):
        factor = number(float(theta.get(gate, 0.0)) if np.isfinite(theta.get(gate, 0.0)) else 0.0)
        incoming, total = blocks[i - 1]
        half = -incoming / 2
        half[i] = half[i] + number(0.5)
        matrix[i] = matrix[i] + factor * half
        matrix[:, i] = matrix[:, i] + factor * half
        weight[i] = weight[i] + np.abs(factor * half)
        weight[:, i] = weight[:, i] + np.abs(factor * half)
        error = error + np.abs(factor) * limit[i] * gamma * total
    lower, upper = found.intervals[0]
    largest = np.maximum(np.abs(lower), np.abs(upper))
    chosen = [j for j in range(network.inputs) if norm == "2" or (j in lam and np.isfinite(lam[j]) and lam[j] > 0)]
    if chosen:
        factors = number([1.0 if norm == "2" else float(lam[j]) for j in chosen])
        g = entries[:, chosen]
        scaled = g * factors
        matrix = matrix - scaled @ g.T
        weight = weight + np.abs(scaled) @ np.abs(g).T
        error = error + (factors * gamma * 3 * entry_sums[chosen] * entry_sums[chosen]).sum()
        if norm == "inf":
            bound = bound + (1 / (4 * factors)).sum()
    if norm == "inf":
        rest = np.setdiff1d(np.arange(network.inputs), chosen)
        for j in rest:
            # |J| <= s J + 2 max(-s J): linear with the sign s of the larger end, which rounding may have left open.
            left = 2 * max(min(-lower[j], upper[j]), 0 * upper[j])
            if left > largest[j]:
                bound = bound + largest[j]
                continue
            half = entries[:, j] / (2 if upper[j] >= -lower[j] else -2)
            matrix[0] = matrix[0] - half
            matrix[:, 0] = matrix[:, 0] - half
            weight[0] = weight[0] + np.abs(half)
            weight[:, 0] = weight[:, 0] + np.abs(half)
            error = error + gamma * entry_sums[j]
            bound = bound + left
    matrix = matrix * limit * limit[:, None]
    rounding = arithmetic.gamma(network.inputs + n + 24) * (limit @ weight @ limit)
    delta = _shift(arithmetic, matrix)
    if delta is None:
        return None
    total = bound + n * delta + error + rounding
    return total + arithmetic.gamma(network.inputs + n + 16) * np.abs(total)


def _coordinates(
    network: Network, arithmetic: Arithmetic, slopes: Mapping[int, Interval], row: Array, found: Gradients
) -> tuple[list[int], Array, list[tuple[Array, Array]], Array, Array]:
    """Open gates, bounds on their ``v``, their ``K`` and its absolute sum; entries (coordinates, inputs) and sums."""
    gates: list[tuple[int, int]] = []
    for k in reversed(network.kinks):
        if k in found.intervals:
            reach = np.maximum(*(np.abs(v) for v in found.intervals[k]))
            gates += [(k, i) for i in np.flatnonzero((slopes[k][1] > slopes[k][0]) & (reach > 0)).tolist()]
    place = {gate: number for number, gate in enumerate(gates, 1)}
    n = len(gates) + 1
    limits = arithmetic.zeros(len(gates))
    blocks: list[tuple[Array, Array]] = [(arithmetic.zeros(0), arithmetic.zeros(1)[0])] * len(gates)
    start = arithmetic.zeros(n, len(row))
    start[0] = row
    maps: dict[int, Array] = {network.last: start}
    sums: dict[int, Array] = {network.last: np.abs(row)}
    for k in range(network.last, 0, -1):
        if k not in maps:
            continue
        node, value, total = network.nodes[k - 1], maps.pop(k), sums.pop(k)
        if isinstance(node, Affine):
            for parent, one in zip(node.parents, node.maps, strict=True):
                maps[parent] = maps[parent] + value @ one.matrix if parent in maps else value @ one.matrix
                own = total @ one.absolute
                sums[parent] = sums[parent] + own if parent in sums else own
            continue
        lo, hi = slopes[k]
        passed, size = value * lo, np.abs(lo) * total
        reach = np.maximum(*(np.abs(v) for v in found.intervals[k]))
        for i in np.flatnonzero(hi > lo).tolist():
            if (k, i) not in place:
                continue
            p = place[k, i]
            width = hi[i] - lo[i]
            limits[p - 1] = arithmetic.up(np.asarray([width * reach[i]]))[0]
            blocks[p - 1] = width * value[:, i], width * total[i]
            passed[p, i] = passed[p, i] + 1
            size[i] = size[i] + limits[p - 1]
        maps[node.parent] = maps[node.parent] + passed if node.parent in maps else passed
        sums[node.parent] = sums[node.parent] + size if node.parent in sums else size
    entries = maps.get(0, arithmetic.zeros(n, network.inputs))
    names = [network.first_gate[k] + int(i) for k, i in gates]
    return names, limits, blocks, entries, sums.get(0, arithmetic.zeros(network.inputs))


def _shift(arithmetic: Arithmetic, matrix: Array) -> Number | None:
    """A small ``delta`` with ``matrix + delta I`` positive semidefinite, proved."""
    floats = arithmetic.floats(matrix)
    if not np.isfinite(floats).all():
        return None
    least = np.linalg.eigvalsh((floats + floats.T) / 2)[0]
    size = np.abs(np.diag(floats)).sum() + len(floats) * abs(least)
    # A Cholesky factorisation that runs through proves positive semidefiniteness up to this shift (Rump, BIT 46, 2006).
    margin = 1.01 * (len(floats) + 6) * 2.0**-53 * size
    for factor in (1.0, 4.0, 64.0, 1e4):
        delta = max(0.0, -least) * (1 + 1e-12 * factor) + 4 * factor * margin
        if arithmetic.exact:
            moved = matrix + arithmetic.array(delta) * arithmetic.array(np.eye(len(floats)))
            if _semidefinite(moved):
                return arithmetic.array([delta])[0]
            continue
        try:
            np.linalg.cholesky(floats + (delta - margin) * np.eye(len(floats)))
        except np.linalg.LinAlgError:
            continue
        return np.float64(delta)
    return None


def _semidefinite(matrix: Array) -> bool:
    """Whether a rational symmetric matrix is positive semidefinite: LDL' by elimination."""
    rest = matrix.copy()
    for i in range(len(rest)):
        pivot = rest[i, i]
        if pivot < 0 or (pivot == 0 and bool((rest[i, i:] != 0).any())):
            return False
        if pivot > 0:
            column = rest[i + 1 :, i]
            rest[i + 1 :, i + 1 :] = rest[i + 1 :, i + 1 :] - np.outer(column / pivot, column)
    return True
