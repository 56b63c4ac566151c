"""Every back end that is known here, by the suite that we ship for those of others."""

from __future__ import annotations

import numpy as np
import pytest

import solvers
from lipcompare.testing.suites import SolverConformance
from lipcompare.testing.suites.solvers import hard
from solvers import SolveStatus, highs

for _name in solvers.names():
    _class = "Test_" + "".join(c if c.isalnum() else "_" for c in _name)
    globals()[_class] = type(_class, (SolverConformance,), {"solver": _name})


@pytest.mark.parametrize("name", ["gurobi", "pulp:GUROBI", "cvxpy:GUROBI"])
def test_small_gurobi_licence(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    solver = solvers.get(name)
    if not solver.is_available():
        pytest.skip("it is not installed")
    n = 2500
    program = solvers.MixedIntegerProgram(np.ones(n), np.ones((1, n)), [3], [9], np.zeros(n), np.ones(n), np.ones(n))
    solution = solver.solve(program)
    assert capfd.readouterr().out == ""  # where the command line prints JSON
    if solvers.get("gurobi").licence().startswith("Size-limited"):
        assert solution.status is SolveStatus.LICENCE_TOO_SMALL
        assert solution.dual_bound == -np.inf
        assert "highs" in solution.status.value
    else:
        assert solution.status is SolveStatus.OPTIMAL


@pytest.mark.parametrize("name", ["gurobi", "pulp:GUROBI", "cvxpy:GUROBI"])
def test_an_interruption_that_gurobi_itself_has_seen_is_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Which of the two takes Ctrl-C, Python or Gurobi, is a matter of the moment.
    gurobipy = pytest.importorskip("gurobipy")
    solver = solvers.get(name)
    if not solver.is_available():
        pytest.skip("it is not installed")

    class Interrupted(gurobipy.Model):  # type: ignore[misc]
        def optimize(self, *_: object, **__: object) -> None:
            super().optimize(lambda model, _where: model.terminate())

    monkeypatch.setattr(gurobipy, "Model", Interrupted)
    solution = solver.solve(hard(), solvers.Limits(time_limit=20))
    assert solution.status is SolveStatus.INTERRUPTED


@pytest.mark.parametrize(("limit", "off"), [(5.0, True), (float("inf"), False)])
def test_a_large_program_is_kept_from_what_ignores_the_time_limit(monkeypatch, limit, off):
    # The aggregator took 20 s of a limit of 8.
    given = {}
    inner = highs.highspy._core._Highs

    class Recorded(inner):
        def setOptionValue(self, name, value):  # noqa: N802 - the name is HiGHS's
            given[name] = value
            return super().setOptionValue(name, value)

    monkeypatch.setattr(highs.highspy._core, "_Highs", Recorded)
    monkeypatch.setattr(highs, "_AGGREGATED", 2)
    program = solvers.MixedIntegerProgram(np.ones(3), np.ones((1, 3)), [1], [9], np.zeros(3), np.ones(3))
    solution = solvers.get("highs").solve(program, solvers.Limits(time_limit=limit))
    assert solution.objective == pytest.approx(1.0)
    assert ("presolve_rule_off" in given) == off
