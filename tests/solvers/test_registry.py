"""Solvers by name: in any case, families behind other packages, and what is likeliest for a wrong name."""

from __future__ import annotations

import pytest

import solvers
from solvers import packages, registry
from solvers.cvxpy import Cvxpy
from solvers.pulp import Pulp


def test_names_are_found_in_any_case_and_every_one_can_be_made() -> None:
    assert registry.get("HiGHS").name == "highs"
    for name in registry.names():
        assert registry.get(name.upper()).name == name


@pytest.mark.parametrize("name", ["higs", "pulp:NO_SUCH", "nothing:like it"])
def test_a_wrong_name_is_answered_with_others(name: str) -> None:
    with pytest.raises(ValueError, match=f"No solver called '{name}'") as raised:
        registry.get(name)
    assert ("Did you mean highs" in str(raised.value)) == (name == "higs")


def test_what_makes_no_solver_of_that_name_is_refused() -> None:
    for entry in (3, dict, solvers.get("highs").__class__):
        with pytest.raises(TypeError, match="makes no solver"):
            registry.register("mine", entry)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="highs"):
        registry.register("highs", solvers.get("highs").__class__)


@pytest.mark.parametrize("name", ["pulp:CPLEX_CMD", "pulp:cplex", "cvxpy:MOSEK"])
def test_a_solver_that_a_package_knows_and_does_not_find_is_returned_and_says_so(name: str) -> None:
    family, _, member = name.partition(":")
    if packages.missing(family):
        pytest.skip(f"needs {family}")
    solver = registry.get(name)
    assert not solver.is_available() and solver.name.lower().startswith(name.lower())
    program = solvers.MixedIntegerProgram([1.0], [[1.0]], [0.5], [1], [0], [1], [True])
    solution = solver.solve(program)
    assert solution.status is solvers.SolveStatus.NOT_INSTALLED
    assert f" finds no {member.upper()}" in solution.message and solution.message.endswith("`lipcompare solvers`.")


def test_what_people_call_a_solver_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cbc", "CBC", "pulp:cbc"):
        with pytest.raises(ValueError, match="CBC, as PuLP ships it, is called pulp"):
            registry.get(name)
    families = {"pulp": (Pulp, lambda: ("HiGHS",), lambda: ("HiGHS", "SCIP_CMD")),
                "cvxpy": (Cvxpy, lambda: ("SCS",), lambda: ("SCS", "SCIP", "CPLEX"))}  # fmt: skip
    monkeypatch.setattr(registry, "_FAMILIES", families)
    with pytest.raises(registry.NotHere, match="pulp and cvxpy know a solver called 'scip', but there is none on this"):
        registry.get("scip")
    with pytest.raises(registry.NotHere, match="cvxpy knows a solver called 'cplex'"):
        registry.get("cplex")
    with pytest.raises(ValueError, match="Did you mean cvxpy:SCS") as raised:
        registry.get("scs")
    assert not isinstance(raised.value, registry.NotHere)
