"""What a solver's dual bound may be off by."""

from __future__ import annotations

import numpy as np

import solvers


def solver_error(
    solver: solvers.Solver, program: solvers.MixedIntegerProgram, solution: solvers.Solution | None = None
) -> float:
    """By how much a dual bound that a solver claims may be above the minimum of the program.

    Nothing where it was evaluated at multipliers (:func:`solvers.checks.lp_bound` is rounded). Otherwise a reduced cost
    of the wrong sign within the solver's tolerance costs at most that times the range of its column, and what is better
    than the best point by less than :attr:`solvers.Capabilities.pruning` has been cut off.
    """
    if solution is not None and solution.multipliers is not None:
        return 0.0
    ranges: np.ndarray = program.upper - program.lower
    can = solver.capabilities
    return can.dual_tolerance * float(ranges.sum()) + (can.pruning if program.is_mip else 0.0)
