"""Every back end that is known here, by the suite that we ship for those of others."""

from __future__ import annotations

import numpy as np
import pytest

import solvers
from lipcompare.testing.suites import SolverConformance
from solvers import SolveStatus

for _name in solvers.names():
    _class = "Test_" + "".join(c if c.isalnum() else "_" for c in _name)
    globals()[_class] = type(_class, (SolverConformance,), {"solver": _name})


def test_small_gurobi_licence() -> None:
    solver = solvers.get("gurobi")
    if not solver.is_available():
        pytest.skip("gurobipy is not importable")
    n = 2500
    program = solvers.MixedIntegerProgram(np.ones(n), np.ones((1, n)), [3], [9], np.zeros(n), np.ones(n), np.ones(n))
    solution = solver.solve(program)
    if solver.licence().startswith("Size-limited"):
        assert solution.status is SolveStatus.LICENCE_TOO_SMALL
        assert solution.dual_bound == -np.inf
        assert "highs" in solution.status.value
    else:
        assert solution.status is SolveStatus.OPTIMAL
