"""What a solver's dual bound may be off by."""

from __future__ import annotations

import numpy as np

import solvers


def solver_error(
    solver: solvers.Solver, program: solvers.MixedIntegerProgram, solution: solvers.Solution | None = None
) -> float:
    """By how much a dual bound that a solver claims may be above the minimum of the program.

    Nothing where it was evaluated at multipliers (:func:`solvers.checks.lp_bound` is rounded). Otherwise a reduced cost
    of the wrong sign within the solver's tolerance costs at most that times the range of its column, a multiplier of
    the wrong sign that times the range of its row, and what is better than the best point by less than
    :attr:`solvers.Capabilities.pruning` has been cut off. Nothing is known where the coefficients of a MILP are above
    :attr:`solvers.Capabilities.largest`.
    """
    if solution is not None and solution.multipliers is not None:
        return 0.0
    columns: np.ndarray = program.upper - program.lower
    can = solver.capabilities
    if program.is_mip and np.abs(np.concatenate([program.A.data, program.cost])).max(initial=0.0) > can.largest:
        return np.inf
    if not np.isfinite(columns).all():
        return np.inf  # a reduced cost of the wrong sign, however small, costs any amount
    ranges = float(columns.sum()) + float(_row_ranges(program).sum())
    return can.dual_tolerance * ranges + (can.pruning if program.is_mip else 0.0)


def _row_ranges(program: solvers.MixedIntegerProgram) -> np.ndarray:
    """How far each row can move between its sides, over the columns' bounds; multipliers of equations have any sign."""
    center, radius = (program.lower + program.upper) / 2, (program.upper - program.lower) / 2
    middle, reach = program.A @ center, abs(program.A) @ radius
    lower, upper = np.maximum(program.row_lower, middle - reach), np.minimum(program.row_upper, middle + reach)
    ranges: np.ndarray = np.maximum(upper - lower, 0.0)
    return ranges
