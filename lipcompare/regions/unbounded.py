"""Activation regions in the whole input space: a point deep inside one, or an exact proof that it is empty.

A pattern holds on the polyhedron ``A x + b >= 0``, which may be unbounded. It is empty exactly if there is ``y >= 0``
with ``A'y = 0`` and ``y'b < 0`` (Farkas). Over a box the equation may be missed by a little, for the box bounds what
that is worth; here nothing does, so it is checked in integers: weights are floats, that is integers times powers of
two, and so are the rows. A solver only names the rows, at most one more than their rank.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import gcd

import numpy as np
import torch
from torch import Tensor

import solvers
from lipcompare.network.exact import whole, whole_matrix
from lipcompare.network.graph import Activate, Affine, Network, Terms, fold_forward
from lipcompare.regions.pieces import affine_pieces
from lipcompare.regions.program import Deepest

_SECONDS = 10.0
_NOISE = 1e-9
"""Multipliers under this share of the largest name no row."""
_BITS = 1000
"""Weights of more bits are divided by a power of two: they count up to a factor, and floats end at 2^1024."""
_FAR = 1e9
"""The solver looks for points with no larger coordinates."""


@dataclasses.dataclass(eq=False)
class WholeSpace:
    """The regions of one network in the whole space; its weights as integers are made once.

    Attributes:
        network: float64, with patterns.
    """

    network: Network

    def __post_init__(self) -> None:
        network = self.network.to("cpu", torch.float64)
        self._matrices: dict[int, tuple[np.ndarray, int]] = {}
        for node, here in zip(self.network.nodes, network.nodes, strict=True):
            if isinstance(node, Affine) and isinstance(here, Affine):
                for m, moved in zip(node.maps, here.maps, strict=True):
                    if id(m) not in self._matrices:
                        self._matrices[id(m)] = whole_matrix(moved)
        # A neuron with one slope everywhere has no sides: its sign restricts no region.
        zeros = {k: torch.zeros(network.nodes[k].size, dtype=torch.float64) for k in network.activations}
        ends = [network.activation(k).slopes_anywhere(zero) for k, zero in zeros.items()]
        self._bent = np.concatenate([(high > low).numpy() for low, high in ends] or [np.zeros(0, dtype=bool)])

    def deepest(
        self, slopes: Mapping[int, Tensor], active: Mapping[int, Tensor], *, time_limit: float = np.inf
    ) -> Deepest:
        """The deepest point of the closed region of a pattern, or a proof that there is none.

        Args:
            slopes: of the pattern, (neurons,) per activation node.
            active: which side of its kink each neuron is on, boolean; not read where there is no kink.

        Raises:
            KeyboardInterrupt: the solver was interrupted.
        """
        matrix, offset = self._rows(slopes, active)
        with np.errstate(all="ignore"):
            size = np.abs(matrix).sum(1)
            scaled = offset / np.where(size > 0, size, 1.0)
        # Of numbers that are out of range nothing is known; a region with fewer rows is no smaller.
        known = np.isfinite(size) & np.isfinite(scaled)
        # A row without inputs holds or does not.
        flat = size == 0
        wrong = np.flatnonzero(self._bent & flat & known & (offset < 0))
        if len(wrong):
            exact = self._exact_rows(slopes, active, wrong[:1])
            if exact[0][0] < 0:
                return Deepest(None, -np.inf, True, (int(wrong[0]),), (1.0,))
        some = np.flatnonzero(self._bent & ~flat & known)
        if not len(some):
            return Deepest(np.zeros(self.network.in_size), np.inf)
        A, b = matrix[some] / size[some, None], scaled[some]
        solution = _solve(A, b, time_limit)
        point = None if solution.x is None else solution.x[:-1].copy()
        depth = -np.inf if point is None else float((A @ point + b).min())
        if depth < 0 and solution.multipliers is not None:
            y = np.maximum(np.nan_to_num(solution.multipliers, posinf=0.0, neginf=0.0), 0.0)
            named = some[y > _NOISE * y.max(initial=0.0)]
            weights = self._contradiction(slopes, active, named)
            if weights is not None:
                proof = [(int(g), w) for g, w in zip(named, weights, strict=True) if w > 0]
                largest = max(w for _, w in proof)
                shift = max(0, largest.numerator.bit_length() - largest.denominator.bit_length() - _BITS)
                return Deepest(
                    None, -np.inf, True, tuple(g for g, _ in proof), tuple(float(w / 2**shift) for _, w in proof)
                )
        return Deepest(point, depth)

    def _rows(self, slopes: Mapping[int, Tensor], active: Mapping[int, Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """``A`` (gates, inputs) and ``b`` (gates,) in floating point."""
        matrices, offsets = [], []
        for k, piece in affine_pieces(self.network, slopes).items():
            sign = np.where(active[k].cpu().numpy(), 1.0, -1.0)
            matrices.append(piece.matrix.cpu().numpy() * sign[:, None])
            offsets.append(piece.offset.cpu().numpy() * sign)
        return np.concatenate(matrices), np.concatenate(offsets)

    def _exact_rows(
        self, slopes: Mapping[int, Tensor], active: Mapping[int, Tensor], chosen: np.ndarray
    ) -> list[list[int]]:
        """Rows ``(b, A)`` of some gates as integers, each up to a positive factor."""
        rows: dict[int, list[int]] = {}
        first, inputs = 0, self.network.in_size
        wanted = set(chosen.tolist())
        start = np.zeros((1 + inputs, inputs), dtype=object)
        start[1:] = np.eye(inputs, dtype=np.int64).astype(object)

        def activation(k: int, node: Activate, z: tuple[np.ndarray, int]) -> tuple[np.ndarray, int]:
            nonlocal first
            values, exponent = z
            for i in range(node.size):
                if first + i in wanted:
                    sign = 1 if bool(active[k][i]) else -1
                    rows[first + i] = [sign * int(v) for v in values[:, i]]
            first += node.size
            factor, power = whole(slopes[k].cpu().double().numpy())
            return values * factor, exponent + power

        def affine(k: int, node: Affine, terms: Terms[tuple[np.ndarray, int]]) -> tuple[np.ndarray, int]:
            parts = []
            for m, (values, exponent) in terms:
                weights, power = self._matrices[id(m)]
                parts.append((values @ weights.T, exponent + power))
            if node.bias is not None:
                bias, power = whole(node.bias.cpu().double().numpy())
                row = np.zeros((1 + inputs, node.size), dtype=object)
                row[0] = bias
                parts.append((row, power))
            most = max(exponent for _, exponent in parts)
            total = parts[0][0] * (1 << (most - parts[0][1]))
            for values, exponent in parts[1:]:
                total = total + values * (1 << (most - exponent))
            return total, most

        fold_forward(self.network, {0: (start, 0)}, activation, affine)
        return [rows[g] for g in chosen.tolist()]

    def _contradiction(
        self, slopes: Mapping[int, Tensor], active: Mapping[int, Tensor], named: np.ndarray
    ) -> list[Fraction] | None:
        """Weights of the named rows that prove that these have no point in common; None if there are no such."""
        rows = self._exact_rows(slopes, active, named)
        # Reduced, so that what follows stays small.
        rows = [[v // (gcd(*row) or 1) for v in row] for row in rows]
        weights = _null_vector([row[1:] for row in rows])
        if weights is None:
            return None
        height = sum((w * row[0] for w, row in zip(weights, rows, strict=True)), Fraction(0))
        if height > 0:
            weights, height = [-w for w in weights], -height
        return weights if height < 0 and all(w >= 0 for w in weights) else None


def _solve(A: np.ndarray, b: np.ndarray, time_limit: float) -> solvers.Solution:
    """``max t : A x + b >= t``, ``t <= 1``."""
    rows, inputs = A.shape
    program = solvers.MixedIntegerProgram(
        cost=np.append(np.zeros(inputs), -1.0),
        A=np.hstack([A, -np.ones((rows, 1))]),
        row_lower=-b,
        row_upper=np.full(rows, np.inf),
        lower=np.append(np.full(inputs, -_FAR), -np.inf),
        upper=np.append(np.full(inputs, _FAR), 1.0),
    )
    solution = solvers.get("highs").solve(program, solvers.Limits(time_limit=max(min(time_limit, _SECONDS), 0.01)))
    if solution.status is solvers.SolveStatus.INTERRUPTED:
        raise KeyboardInterrupt  # the solver made a status of it
    return solution


def _null_vector(rows: Sequence[Sequence[int]]) -> list[Fraction] | None:
    """The weights, up to a factor, with which rows add up to zero; None if there are none, or more than one choice."""
    count = len(rows)
    columns = [[Fraction(row[j]) for row in rows] for j in range(len(rows[0]))]
    pivots: list[int] = []
    reduced: list[list[Fraction]] = []
    for column in columns:
        for pivot, base in zip(pivots, reduced, strict=True):
            if column[pivot]:
                factor = column[pivot]
                column = [a - factor * c for a, c in zip(column, base, strict=True)]
        pivot = next((i for i, v in enumerate(column) if v), -1)
        if pivot < 0:
            continue
        head = column[pivot]
        column = [v / head for v in column]
        for i, base in enumerate(reduced):
            if base[pivot]:
                factor = base[pivot]
                reduced[i] = [a - factor * c for a, c in zip(base, column, strict=True)]
        pivots.append(pivot)
        reduced.append(column)
    free = [i for i in range(count) if i not in pivots]
    if len(free) != 1:
        return None
    weights = [Fraction(0)] * count
    weights[free[0]] = Fraction(1)
    for pivot, base in zip(pivots, reduced, strict=True):
        weights[pivot] = -base[free[0]]
    return weights
