"""The lists of methods and solvers: what they say comes from the classes themselves."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from lipcompare import METHODS
from lipcompare.cli.printing import registries
from solvers import Capabilities, SolverInfo


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_explained_by_its_docstring(name: str) -> None:
    described = registries.method_json(METHODS[name])
    assert described["name"] == name and described["norms"]
    assert all(option["meaning"] for option in described["options"]), "an option that its docstring does not explain"
    out = io.StringIO()
    registries.print_method(Console(file=out, width=100), METHODS[name])
    text = " ".join(out.getvalue().split())
    assert METHODS[name].summary in text and "``" not in text and ":class:" not in text
    assert all(option["name"] in text for option in described["options"])
    assert ("It has no options." in text) == (not described["options"])


def test_norms_are_those_that_the_method_supports() -> None:
    assert registries.method_json(METHODS["lbp"])["norms"] == ["inf", "2", "1"]
    table = registries.methods_table()
    assert list(table.columns[0].cells) == list(METHODS)
    assert dict(zip(table.columns[0].cells, table.columns[2].cells, strict=True))["lbp"] == "inf, 2, 1"


def test_a_solver_says_what_it_can() -> None:
    able = SolverInfo("one", True, "1.0", "free", Capabilities(lp=True, mip=True, conic=False, dual_bound=True))
    gone = SolverInfo("two", False, "", "none", Capabilities(lp=False, mip=False, conic=True, dual_bound=False))
    rows = list(zip(*(column.cells for column in registries.solvers_table([able, gone]).columns), strict=True))
    assert rows == [("one", "yes", "1.0", "LP, MILP, dual bound", "free"), ("two", "no", "-", "conic", "none")]
