"""Optimisation back ends behind one interface: hand over a program, get a checked Solution. Everything is
minimised.

>>> solution = solvers.get("highs").solve(program, solvers.Limits(time_limit=60))
>>> solution.status, solution.objective, solution.dual_bound
"""

from solvers.interface import Capabilities, Solver
from solvers.program import Cones, ConicProgram, MixedIntegerProgram, Program, smat, svec
from solvers.registry import SOLVERS, NotHere, SolverInfo, all_solvers, get, names, register
from solvers.running import OnProgress
from solvers.solution import Limits, Solution, SolveStatus

__all__ = [
    "SOLVERS",
    "Capabilities",
    "Cones",
    "ConicProgram",
    "Limits",
    "MixedIntegerProgram",
    "NotHere",
    "OnProgress",
    "Program",
    "Solution",
    "SolveStatus",
    "Solver",
    "SolverInfo",
    "all_solvers",
    "get",
    "names",
    "register",
    "smat",
    "svec",
]
