"""The point of a polyhedron nearest to the origin in l_inf, l2 or l1, and a proof of how far it is at least.

``min |u| : G u >= h``. Any multipliers ``y >= 0`` prove ``|u| >= y'h / |G'y|_dual`` (weak duality), so a solver's word
is never taken: what is reported is evaluated at the multipliers that it proposes.
"""

from __future__ import annotations

import contextlib

import numpy as np
import scipy.optimize
import scipy.sparse as sp
import torch

import solvers
from lipcompare.domain import Norm
from lipcompare.rounding import allowance, floor, raised

_SECONDS = 10.0
_PRICE = 1e4
"""Of a unit that the rows lack, in distances: beyond that the polyhedron counts as empty for what a solver is asked."""
_LACKING = 1e-6
"""What the rows may lack at a point that is proposed; whether it is one is checked where it is used."""
_NOISE = 1e-9
"""Multipliers under this share of the largest are left out where the others prove as much."""


def nearest_point(
    G: np.ndarray, h: np.ndarray, error: np.ndarray, norm: Norm, time_limit: float
) -> tuple[float, np.ndarray | None]:
    """A proved lower bound on the distance (inf where there is no point), and the nearest point that was found.

    Args:
        G: (rows, inputs).
        h: (rows,).
        error: (rows,) by which the true ``G u - h`` may be above the stored one.

    Raises:
        KeyboardInterrupt: the solver was interrupted.
    """
    if not len(h):
        return 0.0, np.zeros(G.shape[1])
    size = np.abs(G).max(1) + np.abs(h)
    size = np.where(size > 0, size, 1.0)
    moves, G, h, error = G != 0, G / size[:, None], h / size, error / size
    point, y = _squares(G, h) if norm is Norm.TWO else _program(G, h, norm, time_limit)
    if y is None:
        return 0.0, point
    y = np.maximum(np.nan_to_num(y, posinf=0.0, neginf=0.0), 0.0)
    clean = np.where(y > _NOISE * y.max(initial=0.0), y, 0.0)
    return max(_proved(G, h, error, moves, some, norm) for some in (clean, y)), point


def _proved(G: np.ndarray, h: np.ndarray, error: np.ndarray, moves: np.ndarray, y: np.ndarray, norm: Norm) -> float:
    """What multipliers prove.

    Scaling the rows, the products and their sums make at most ``rows + inputs + 8`` roundings on any term. What
    underflows, in rows of size one and multipliers of at most one, is less than the smallest normal number a row.

    Args:
        moves: (rows, inputs) which entries of ``G`` were not 0 before it was scaled.
    """
    largest = y.max(initial=0.0)
    if not largest > 0:
        return 0.0
    y = np.ldexp(y, -np.frexp(largest)[1])
    rounding, lost = allowance(sum(G.shape) + 8, torch.float64), len(h) * floor(torch.float64)
    height = float(y @ h - y @ error - rounding * (y @ (np.abs(h) + error)) - lost)
    if not height > 0:
        return 0.0
    entries = np.abs(y @ G) + rounding * (y @ np.abs(G)) + lost * ((y > 0) @ moves)
    width = float(raised(norm.dual.of(torch.from_numpy(entries)), G.shape[1]))
    return height / width * (1 - rounding) if width > 0 else np.inf


def _squares(G: np.ndarray, h: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """p = 2: non-negative least squares on the dual (Lawson and Hanson 1974, chapter 23)."""
    system, right = np.vstack([G.T, h]), np.append(np.zeros(G.shape[1]), 1.0)
    y = None
    with contextlib.suppress(RuntimeError):  # it met its limit on iterations: no proposal
        y = scipy.optimize.nnls(system, right)[0]
    if y is None:
        return None, None
    # The last entry is minus the square of what is left, which is 0 up to rounding where there is no point.
    rest = system @ y - right
    return (rest[:-1] / -rest[-1] if rest[-1] < -1e-12 else None), y


def _program(
    G: np.ndarray, h: np.ndarray, norm: Norm, time_limit: float
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """p = inf and p = 1: a linear program over ``u`` and one bound on it, or one for every entry."""
    rows, inputs = G.shape
    bounds = 1 if norm is Norm.INF else inputs
    eye = sp.identity(inputs, format="csr")
    limit = sp.csr_matrix(np.ones((inputs, 1))) if norm is Norm.INF else eye
    # The last variable is what the rows lack, at a price: so there is always a point, and there are multipliers.
    A = sp.vstack([
        sp.hstack([sp.csr_matrix(G), sp.csr_matrix((rows, bounds)), sp.csr_matrix(np.ones((rows, 1)))]),
        sp.hstack([eye, limit, sp.csr_matrix((inputs, 1))]),
        sp.hstack([-eye, limit, sp.csr_matrix((inputs, 1))]),
    ])  # fmt: skip
    program = solvers.MixedIntegerProgram(
        cost=np.concatenate([np.zeros(inputs), np.ones(bounds), [_PRICE]]),
        A=A,
        row_lower=np.concatenate([h, np.zeros(2 * inputs)]),
        row_upper=np.full(rows + 2 * inputs, np.inf),
        lower=np.append(np.full(inputs, -np.inf), np.zeros(bounds + 1)),
        upper=np.full(inputs + bounds + 1, np.inf),
    )
    limits = solvers.Limits(time_limit=max(min(time_limit, _SECONDS), 0.01))
    solution = solvers.get("highs").solve(program, limits)
    if solution.status is solvers.SolveStatus.INTERRUPTED:
        raise KeyboardInterrupt  # the solver made a status of it
    x = None if solution.x is None or solution.x[-1] > _LACKING else solution.x[:inputs].copy()
    return x, None if solution.multipliers is None else solution.multipliers[:rows]
