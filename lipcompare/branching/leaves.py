"""Does any input have a given activation pattern? A linear program finds one, or the neurons that contradict.

Under a fixed pattern the network is affine, and the pattern holds on the polytope ``A x + b >= 0`` (one row per
undecided neuron). The program maximises the depth ``t`` of a point inside. If the largest depth is negative, some
multipliers ``y >= 0`` with ``y'b + max_box (A'y)'x < 0`` prove that the region is empty (Farkas); they are recovered
from the rows that are tight at the optimum and checked here, so the verdict does not rest on the solver's tolerances. A
region of depth zero is not empty: a point on the kinks counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import scipy.optimize
from torch import Tensor

import solvers
from lipcompare.network.graph import Network
from lipcompare.network.interval import Interval
from lipcompare.regions.pieces import affine_pieces

_COPIES = 6
"""Dense matrices (neurons, inputs) that a linear program takes on its way to the solver."""
_ERROR = 1e-10
"""Relative error allowed for in the coefficients of a region, far above what composing layers in float64 leaves."""


@dataclasses.dataclass(frozen=True, eq=False)
class Region:
    """``matrix x + offset >= 0``, one row per neuron.

    Attributes:
        matrix: (rows, inputs).
        offset: (rows,).
        gate: (rows,) number of the neuron.
    """

    matrix: np.ndarray
    offset: np.ndarray
    gate: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Verdict:
    """What the linear program found.

    Attributes:
        point: (inputs,) the deepest point; None if the solver gave none.
        empty: proved to hold no input.
        conflict: numbers of the gates whose constraints contradict each other; empty unless the region is.
    """

    point: np.ndarray | None
    empty: bool
    conflict: tuple[int, ...] = ()


def region(
    network: Network, start: Mapping[int, int], slopes: Mapping[int, Tensor], active: Mapping[int, Tensor],
    open_: Mapping[int, Tensor],
) -> Region:  # fmt: skip
    """The region of a pattern, described by the neurons in ``open_``; all arguments (neurons,) per activation node.

    ``start``: number of the first gate of each node.
    """
    matrices, offsets, gates = [], [], []
    for k, piece in affine_pieces(network, slopes).items():
        chosen = open_[k].nonzero().squeeze(-1)
        sign = np.where(active[k][chosen].cpu().numpy(), 1.0, -1.0)
        matrices.append(piece.matrix[chosen].cpu().double().numpy() * sign[:, None])
        offsets.append(piece.offset[chosen].cpu().double().numpy() * sign)
        gates.append(chosen.cpu().numpy() + start[k])
    return Region(np.concatenate(matrices), np.concatenate(offsets), np.concatenate(gates))


def fits(network: Network, rows: int, memory: int) -> bool:
    """Whether the program of a region that so many neurons describe fits in memory on its way to the solver."""
    return _COPIES * 8 * max(rows, max(node.size for node in network.nodes)) * network.in_size <= memory


def explore(where: Region, box: Interval, time_limit: float = 10.0) -> Verdict:
    """The deepest point of a region within the box (inputs,), or why there is none."""
    lower, upper = box.lower.cpu().double().numpy(), box.upper.cpu().double().numpy()
    if not len(where.offset):
        return Verdict((lower + upper) / 2, False)
    center, radius = (lower + upper) / 2, (upper - lower) / 2
    size = np.abs(where.matrix) @ np.maximum(np.abs(lower), np.abs(upper)) + np.abs(where.offset)
    reach = np.abs(where.matrix) @ radius
    middle = where.matrix @ center + where.offset
    error = _ERROR * size
    alone = middle + reach < -error
    if alone.any():
        return Verdict(None, True, (int(where.gate[alone.argmax()]),))
    # Rows that hold everywhere need no attention; the others are measured by their range over the box.
    cutting = middle - reach < error
    scale = np.maximum(reach, 1e3 * error) + np.finfo(float).tiny
    A, b, scaled_error = (
        where.matrix[cutting] / scale[cutting, None],
        middle[cutting] / scale[cutting],
        error[cutting] / scale[cutting],
    )
    if not cutting.any():
        return Verdict(center, False)
    # In coordinates u of the box, x = center + radius u.
    A = A * radius
    program = solvers.MixedIntegerProgram(
        cost=np.append(np.zeros(len(lower)), -1.0),
        A=np.hstack([A, -np.ones((len(b), 1))]),
        row_lower=-b,
        row_upper=np.full(len(b), np.inf),
        lower=np.append(-np.ones(len(lower)), -1e6),
        upper=np.append(np.ones(len(lower)), 1.0),
    )
    solution = solvers.get("highs").solve(program, solvers.Limits(time_limit=time_limit))
    if solution.status is solvers.Status.INTERRUPTED:
        raise KeyboardInterrupt  # the solver made a status of it
    if solution.x is None:
        return Verdict(None, False)
    u, depth = solution.x[:-1], float(solution.x[-1])
    point = np.clip(center + radius * u, lower, upper)
    if depth >= -1e-12:
        return Verdict(point, False)
    y = _multipliers(A, b, u, depth)
    proved = y @ b + np.abs(y @ A).sum() < -(y @ scaled_error) - 1e-13 * (y @ (np.abs(b) + np.abs(A).sum(1)))
    if not proved:
        return Verdict(point, False)
    support = np.flatnonzero(y > 1e-9 * y.max())
    return Verdict(None, True, tuple(int(g) for g in where.gate[cutting][support]))


def _multipliers(A: np.ndarray, b: np.ndarray, u: np.ndarray, depth: float) -> np.ndarray:
    """Dual solution of ``max t : A u + b >= t, |u| <= 1`` from the constraints that are tight at its optimum.

    Optimality asks for ``sum y = 1`` and ``A'y`` to vanish in the coordinates that are not at a bound and to point
    outward in those that are: a small problem of non-negative least squares.
    """
    tight = np.flatnonzero(A @ u + b <= depth + 1e-7)
    high, low = np.flatnonzero(u >= 1 - 1e-7), np.flatnonzero(u <= -1 + 1e-7)
    inputs = A.shape[1]
    system = np.zeros((inputs + 1, len(tight) + len(high) + len(low)))
    system[:inputs, : len(tight)] = A[tight].T
    system[high, len(tight) + np.arange(len(high))] = -1
    system[low, len(tight) + len(high) + np.arange(len(low))] = 1
    system[inputs, : len(tight)] = 1
    try:
        solution, _ = scipy.optimize.nnls(system, np.append(np.zeros(inputs), 1.0))
    except RuntimeError:  # it met its limit on iterations: no certificate
        return np.zeros(len(b))
    y = np.zeros(len(b))
    y[tight] = solution[: len(tight)]
    return y
