"""Independent checks of what a solver claims: points against the program, dual vectors against the objective.

Nothing here calls a solver, so a bug in one cannot hide behind itself.
"""

from __future__ import annotations

import math

import numpy as np

from solvers.program import ConicProgram, MixedIntegerProgram, Program, Vector, smat, svec

TOLERANCE = 1e-6
"""Violations up to this much, relative to max(1, |side|, largest coefficient of the row), are a solver's."""

DROPPED = 1e-9
"""Coefficients up to this size may be dropped by a solver: HiGHS's ``small_matrix_value``, the largest of any here."""
NOTICED = 1e-8
"""What rows may change by unnoticed: a tenth of the tolerance, 1e-7, on constraints that solvers are given here."""


def loses_coefficients(program: MixedIntegerProgram) -> bool:
    """Whether a solver that drops tiny coefficients solves another program.

    The bound on a linear program is evaluated for the coefficients that are stored, whatever was solved; that of a
    mixed-integer one is the solver's word.
    """
    small = program.A.copy()
    small.data = np.where(np.abs(small.data) <= DROPPED, np.abs(small.data), 0.0)
    small.eliminate_zeros()
    return bool((small @ np.maximum(np.abs(program.lower), np.abs(program.upper)) > NOTICED).any())


def violation(program: Program, x: Vector) -> str | None:
    """A sentence saying how x (n,) violates the program beyond TOLERANCE, or None if it is feasible."""
    if x.shape != (program.num_variables,):
        return f"the point has shape {x.shape}, the program {program.num_variables} variables"
    if not np.isfinite(x).all():
        return "the point has entries that are not finite"
    if isinstance(program, ConicProgram):
        return _conic_violation(program, x)
    size = abs(program.A)
    largest = size.max(axis=1).toarray().ravel() if program.num_rows else np.zeros(0)
    activity = program.A @ x
    # Of a sum of n products, evaluated here: n + 1 roundings of the sum of their absolute values.
    rounding = (np.diff(program.A.indptr) + 1) * np.finfo(float).eps * (size @ np.abs(x))
    for what, value, low, high, scale, noise in (
        ("row", activity, program.row_lower, program.row_upper, np.maximum(1.0, largest), rounding),
        ("variable", x, program.lower, program.upper, np.ones(len(x)), np.zeros(len(x))),
    ):
        for side, excess in ((low, low - value - noise), (high, value - high - noise)):
            relative = excess / np.maximum(scale, np.where(np.isfinite(side), np.abs(side), 1.0))
            if len(relative) and relative.max() > TOLERANCE:
                worst = int(relative.argmax())
                return f"{what} {worst} is violated by {excess[worst]:.3g} (side {side[worst]:.6g})"
    distance = np.where(program.integrality, np.abs(x - np.round(x)), 0.0)
    if distance.max() > TOLERANCE * max(1.0, float(np.abs(x[program.integrality]).max(initial=0.0))):
        worst = int(distance.argmax())
        return f"variable {worst} must be an integer and is {x[worst]:.9g}"
    return None


def _conic_violation(program: ConicProgram, x: Vector) -> str | None:
    cones = program.cones
    s = program.b - program.A @ x
    scale = max(1.0, float(np.abs(program.b).max(initial=0.0)), float(np.abs(program.A @ x).max(initial=0.0)))
    free, sign = s[: cones.zero], s[cones.zero : cones.zero + cones.nonneg]
    worst = [("zero", float(np.abs(free).max(initial=0.0))), ("nonnegative", float((-sign).max(initial=0.0)))]
    second_order, psd = cones.slices()
    worst += [("second-order", float(np.linalg.norm(s[rows][1:]) - s[rows][0])) for rows in second_order]
    worst += [("psd", float(-np.linalg.eigvalsh(smat(s[rows]))[0])) for rows in psd]
    what, excess = max(worst, key=lambda pair: pair[1])
    return f"a {what} cone is left by {excess:.3g}" if excess > TOLERANCE * scale else None


def lp_bound(program: MixedIntegerProgram, y: Vector) -> float:
    """A lower bound on the program from any row multipliers y (m,), with reduced costs cost - A^T y.

    Weak duality holds for every y, optimal or not, so this bound does not rest on the solver. It is rounded down: every
    sum here is off by at most gamma_n times the same sum of absolute values, n its length. Multipliers on an infinite
    side are dropped; a reduced cost that points at an infinite variable bound gives -inf unless it is rounding noise.
    """
    usable = np.where(y > 0, np.isfinite(program.row_lower), np.isfinite(program.row_upper))
    y = np.where(usable & np.isfinite(y), y, 0.0)
    side = np.where(y > 0, program.row_lower, program.row_upper)
    # 0 * inf is NaN: rows without a multiplier contribute nothing whatever their sides are.
    rows = float(y[y != 0] @ side[y != 0])
    reduced = program.cost - program.A.T @ y
    size = np.abs(program.cost) + abs(program.A).T @ np.abs(y)
    # A thousand times the rounding of the sums. Nothing can pay for it where a column has no bound: here alone the
    # bound holds to rounding only. Columns of the programs of lipcompare are bounded.
    noise = 1e-12 * (1.0 + size)
    at = np.where(reduced > 0, program.lower, program.upper)
    reduced = np.where(~np.isfinite(at) & (np.abs(reduced) <= noise), 0.0, reduced)
    moved = reduced != 0
    far = np.where(np.isfinite(at), np.abs(at), 0.0)
    terms = np.abs(y[y != 0]) @ np.abs(side[y != 0]) + size[moved] @ far[moved] + abs(program.offset)
    # What underflows in a reduced cost is multiplied by the column's range.
    terms += np.finfo(float).tiny * (1 + far.sum())
    operations = len(y) + len(program.cost) + 16
    rounding = 2 * operations * (np.finfo(float).eps / 2) * float(terms)
    return rows + float(reduced[moved] @ at[moved]) + program.offset - rounding


def conic_bound(program: ConicProgram, y: Vector) -> float:
    """offset - b @ y after projecting y (m,) on the dual cone, or -inf if A^T y + cost is not zero to 1e-6,
    scaled.

    Conic variables have no bounds, so the leftover residual cannot be paid for: this bound holds to the
    solver's tolerance, not to rounding.
    """
    if y.shape != program.b.shape or not np.isfinite(y).all():
        return -math.inf
    cones = program.cones
    y = y.copy()
    sign = slice(cones.zero, cones.zero + cones.nonneg)
    y[sign] = np.maximum(y[sign], 0.0)
    second_order, psd = cones.slices()
    for rows in second_order:
        y[rows.start] = max(y[rows.start], float(np.linalg.norm(y[rows][1:])))
    for rows in psd:
        values, vectors = np.linalg.eigh(smat(y[rows]))
        y[rows] = svec((vectors * np.maximum(values, 0.0)) @ vectors.T)
    residual = program.A.T @ y + program.cost
    scale = np.maximum(1.0, np.abs(program.cost) + abs(program.A).T @ np.abs(y))
    if (np.abs(residual) > TOLERANCE * scale).any():
        return -math.inf
    return program.offset - float(program.b @ y)
