"""The one linear program over an activation region: a point deep inside it, or a proof that it meets no input.

Under a fixed pattern the network is affine, and the pattern holds on the polytope ``A x + b >= 0`` (one row per neuron
that may have either sign). The program maximises the depth ``t`` of a point of the box inside it. Its duals are
multipliers ``y >= 0``; if ``y'b + max_box (A'y)'x < 0`` beyond rounding, no input satisfies all rows (Farkas). That is
evaluated here for whatever multipliers are proposed, so that a region is empty by proof only, never by a solver's word.
A region of depth zero is not empty: a point on the kinks counts.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

import solvers
from lipcompare.network.graph import Network
from lipcompare.network.interval import Interval
from lipcompare.regions.pieces import chosen_pieces, piece_errors
from lipcompare.rounding import allowance

_UNSEEN = np.errstate(over="ignore", invalid="ignore", divide="ignore")
"""Numbers out of range are looked for where they matter."""
_COPIES = 6
"""Dense matrices (neurons, inputs) that a linear program takes on its way to the solver."""
_SECONDS = 10.0
"""Time limit of one program, unless there is less."""
_TIGHT = 1e-7
"""Distance at which a row counts as tight: the solver's tolerance. It only decides what is proposed."""
_NOISE = 1e-9
"""Multipliers under this share of the largest are left out where the proof holds without them: fewer gates to name."""


@dataclasses.dataclass(frozen=True, eq=False)
class Region:
    """``matrix x + offset >= 0`` for ``x`` in the box, one row per neuron.

    Attributes:
        matrix: (rows, inputs).
        offset: (rows,).
        error: (rows,) what the exact function may differ by from the one stored, anywhere in the box.
        gate: (rows,) number of the neuron, through all activation nodes from the input on.
        lower, upper: (inputs,) of the box.
    """

    matrix: np.ndarray
    offset: np.ndarray
    error: np.ndarray
    gate: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Deepest:
    """What is known of a region.

    Attributes:
        point: (inputs,) the deepest point that the solver found, in the box; None if it gave none, or it is empty.
        depth: of that point, in units of each row's half range over the box: positive inside, 0 on a kink, negative
            outside (then the region is empty or too thin to tell).
        empty: proved to hold no input.
        conflict: numbers of the gates whose rows contradict each other; empty unless the region is.
        weights: multipliers of these rows, as :class:`Region` states them, which prove that; in the whole space, of
            rows of integers without a common divisor in their place.
    """

    point: np.ndarray | None
    depth: float
    empty: bool = False
    conflict: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def inside(self) -> np.ndarray | None:
        """The point if it is strictly inside, beyond rounding."""
        return self.point if self.depth > INTERIOR else None


INTERIOR = 1e-9
"""Depth from which a point counts as strictly inside: the solver's tolerance on rows is 1e-7 of their scale, and a
witness is checked in exact arithmetic afterwards, so this only spares checks."""


def region_of(
    network: Network,
    box: Interval,
    slopes: Mapping[int, Tensor],
    active: Mapping[int, Tensor],
    rows: Mapping[int, Tensor],
) -> Region:
    """The region of a pattern in a box (inputs,), described by the neurons in ``rows``.

    Args:
        slopes: of the pattern, (neurons,) per activation node.
        active: which side of its kink each neuron is on, boolean.
        rows: neurons whose sign restricts the region, boolean; those of all others are taken for granted.
    """
    matrices, offsets, errors, gates = [], [], [], []
    allowances = piece_errors(network, slopes, box.magnitude)
    first = 0
    chosen = {k: rows[k].nonzero().squeeze(-1) for k in network.activations}
    for k, piece in chosen_pieces(network, slopes, chosen).items():
        sign = np.where(active[k][chosen[k]].cpu().numpy(), 1.0, -1.0)
        matrices.append(piece.matrix.cpu().double().numpy() * sign[:, None])
        offsets.append(piece.offset.cpu().double().numpy() * sign)
        errors.append(allowances[k][chosen[k]].cpu().double().numpy())
        gates.append(chosen[k].cpu().numpy() + first)
        first += network.nodes[k].size
    return Region(
        matrix=np.concatenate(matrices),
        offset=np.concatenate(offsets),
        error=np.concatenate(errors),
        gate=np.concatenate(gates),
        lower=box.lower.cpu().double().numpy(),
        upper=box.upper.cpu().double().numpy(),
    )


def fits(network: Network, rows: int, memory: int) -> bool:
    """Whether the program of a region that so many neurons describe fits in memory on its way to the solver."""
    return _COPIES * 8 * max(rows, network.widest) * network.in_size <= memory


@dataclasses.dataclass(frozen=True, eq=False)
class _Scaled:
    """The rows that cut the box, in coordinates of it: ``A u + b >= 0`` for ``|u| <= 1``, each of half range about 1.

    Attributes:
        A: (rows, inputs).
        b, error: (rows,).
    """

    A: np.ndarray
    b: np.ndarray
    error: np.ndarray

    def contradiction(self, y: np.ndarray) -> bool:
        """Whether multipliers ``y >= 0`` (rows,) prove that no ``u`` satisfies all rows.

        ``y'(A u + b)`` is at most ``y'b + |A'y|_1``. Evaluating that makes at most ``rows + inputs + 4`` roundings on
        any product, and centre, half range and the scaling by them, which made ``A`` and ``b``, are in ``error``.
        """
        size = float(y @ (np.abs(self.b) + np.abs(self.A).sum(1) + self.error))
        rounding = allowance(sum(self.A.shape) + 4, torch.float64) * size
        return bool(y @ self.b + np.abs(y @ self.A).sum() + y @ self.error < -rounding)


@_UNSEEN
def deepest(region: Region, *, time_limit: float = np.inf) -> Deepest:
    """The deepest point of a region within its box, or a proof that there is none.

    Args:
        time_limit: seconds; a program gets no more than ``_SECONDS`` in any case.

    Raises:
        KeyboardInterrupt: the solver was interrupted.
    """
    center, radius = (region.lower + region.upper) / 2, (region.upper - region.lower) / 2
    if not len(region.offset):
        return Deepest(center, np.inf)
    reach = np.abs(region.matrix) @ radius
    middle = region.matrix @ center + region.offset
    # Half ranges, centres and their products round too: relative to the size of all terms.
    size = np.abs(region.matrix) @ np.maximum(np.abs(region.lower), np.abs(region.upper)) + np.abs(region.offset)
    error = region.error + 2 * allowance(len(center) + 4, torch.float64) * size
    if not np.isfinite(center).all():
        return Deepest(None, -np.inf)
    alone = middle + reach < -error
    if alone.any():
        return Deepest(None, -np.inf, True, (int(region.gate[alone.argmax()]),), (1.0,))
    # Rows that hold everywhere need no attention; the others are measured by their range over the box. Of numbers that
    # are out of range nothing is known, and a region with fewer rows is no smaller.
    cutting = (middle - reach < error) & np.isfinite(error)
    if not cutting.any():
        return Deepest(center, np.inf)
    scale = np.maximum(reach, 1e3 * error)[cutting] + np.finfo(float).tiny
    scaled = _Scaled(
        A=region.matrix[cutting] / scale[:, None] * radius, b=middle[cutting] / scale, error=error[cutting] / scale
    )
    solution = solvers.get("highs").solve(
        _program(scaled), solvers.Limits(time_limit=max(min(time_limit, _SECONDS), 0.01))
    )
    if solution.status is solvers.SolveStatus.INTERRUPTED:
        raise KeyboardInterrupt  # the solver made a status of it
    u = None if solution.x is None else solution.x[:-1]
    depth = -np.inf if u is None else float((scaled.A @ u + scaled.b).min())
    for y in _proposals(scaled, solution, u, depth) if depth < 0 else ():
        if scaled.contradiction(y):
            gates, weights = region.gate[cutting][y > 0], (y / scale)[y > 0]
            return Deepest(None, -np.inf, True, tuple(gates.tolist()), tuple(weights.tolist()))
    return Deepest(None if u is None else np.clip(center + radius * u, region.lower, region.upper), depth)


def _proposals(scaled: _Scaled, solution: solvers.Solution, u: np.ndarray | None, depth: float) -> Iterator[np.ndarray]:
    """Multipliers (rows,) that may prove that there is no point: the solver's, then those of the rows that are tight.

    Each is proposed without its noise first: the rows with a multiplier are said to contradict each other alone.
    A solver is content with multipliers that are optimal up to its tolerances. Where the rows contradict each other by
    less than these, the exact solution of the conditions of optimality at its point may still prove it.
    """
    if solution.multipliers is not None:
        y = np.maximum(np.nan_to_num(solution.multipliers, posinf=0.0, neginf=0.0), 0.0)
        yield np.where(y > _NOISE * y.max(), y, 0.0)
        yield y
    if u is not None:
        y = _tight(scaled, u, depth)
        yield np.where(y > _NOISE * y.max(), y, 0.0)
        yield y


def _tight(scaled: _Scaled, u: np.ndarray, depth: float) -> np.ndarray:
    """Multipliers of ``max t : A u + b >= t, |u| <= 1`` from the rows that are tight at ``u``.

    Optimality asks for ``sum y = 1`` and ``A'y`` to vanish in the coordinates that are not at a bound and to point
    outward in those that are: a small problem of non-negative least squares.
    """
    import scipy.optimize  # a quarter of a second, which few runs need

    tight = np.flatnonzero(scaled.A @ u + scaled.b <= depth + _TIGHT)
    high, low = np.flatnonzero(u >= 1 - _TIGHT), np.flatnonzero(u <= -1 + _TIGHT)
    inputs = scaled.A.shape[1]
    system = np.zeros((inputs + 1, len(tight) + len(high) + len(low)))
    system[:inputs, : len(tight)] = scaled.A[tight].T
    system[high, len(tight) + np.arange(len(high))] = -1
    system[low, len(tight) + len(high) + np.arange(len(low))] = 1
    system[inputs, : len(tight)] = 1
    y = np.zeros(len(scaled.b))
    with contextlib.suppress(RuntimeError):  # it met its limit on iterations: no proposal
        y[tight] = scipy.optimize.nnls(system, np.append(np.zeros(inputs), 1.0))[0][: len(tight)]
    return y


def _program(scaled: _Scaled) -> solvers.MixedIntegerProgram:
    """``max t : A u + b >= t, |u| <= 1, t <= 1``."""
    rows, inputs = scaled.A.shape
    return solvers.MixedIntegerProgram(
        cost=np.append(np.zeros(inputs), -1.0),
        A=np.hstack([scaled.A, -np.ones((rows, 1))]),
        row_lower=-scaled.b,
        row_upper=np.full(rows, np.inf),
        lower=np.append(-np.ones(inputs), -1e6),
        upper=np.append(np.ones(inputs), 1.0),
    )
