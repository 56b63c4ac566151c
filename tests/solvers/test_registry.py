"""Solvers by name: in any case, families behind other packages, and what is likeliest for a wrong name."""

from __future__ import annotations

import sys
from pathlib import Path

import nets
import pytest

import lipcompare
import solvers
from solvers import packages, registry


def test_names_are_found_in_any_case_and_every_one_can_be_made() -> None:
    assert registry.get("HiGHS").name == "highs"
    for name in registry.names():
        assert registry.get(name.upper()).name == name


@pytest.mark.parametrize("name", ["higs", "pulp:NO_SUCH", "nothing:like it"])
def test_a_wrong_name_is_answered_with_others(name: str) -> None:
    with pytest.raises(ValueError, match=f"no solver called '{name}'") as raised:
        registry.get(name)
    assert ("did you mean highs" in str(raised.value)) == (name == "higs")


def test_a_package_that_does_not_import_is_said_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cvxpy without one of the packages that it imports: a solver behind it is not there, and nothing else ends."""
    (tmp_path / "cvxpy").mkdir()
    (tmp_path / "cvxpy" / "__init__.py").write_text("import no_such_package_of_linear_algebra\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] == "cvxpy"]:
        monkeypatch.delitem(sys.modules, name)
    packages.missing.cache_clear()
    try:
        assert not any(name.startswith("cvxpy") for name in registry.names())
        with pytest.raises(ValueError, match=r"cvxpy is installed but cannot be imported .*no_such_package"):
            registry.get("cvxpy:CLARABEL")
        bound = lipcompare.bound(nets.FAMILIES["dense"](0), "lipsdp", center=0.5, eps=0.1)
        assert bound.status is lipcompare.Status.UNAVAILABLE and "no_such_package" in bound.detail
    finally:
        packages.missing.cache_clear()


def test_what_makes_no_solver_of_that_name_is_refused() -> None:
    for entry in (3, dict, solvers.get("highs").__class__):
        with pytest.raises(TypeError, match="makes no solver"):
            registry.register("mine", entry)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="highs"):
        registry.register("highs", solvers.get("highs").__class__)
