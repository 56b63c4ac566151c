"""Packages behind solvers that are there, are not, and are there but do not import."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import nets
import pytest

import lipcompare
from solvers import packages, registry


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    packages.missing.cache_clear()
    yield
    packages.missing.cache_clear()


def test_what_is_there_and_what_is_not() -> None:
    assert packages.missing("highspy") == ""
    assert packages.missing("no_such_solver") == "the Python package no_such_solver is not installed"


def test_a_package_that_does_not_import_is_said_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cvxpy without one of the packages that it imports: a solver behind it is not there, and nothing else ends."""
    (tmp_path / "cvxpy").mkdir()
    (tmp_path / "cvxpy" / "__init__.py").write_text("import no_such_package_of_linear_algebra\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] == "cvxpy"]:
        monkeypatch.delitem(sys.modules, name)
    assert not any(name.startswith("cvxpy") for name in registry.names())
    with pytest.raises(ValueError, match=r"cvxpy is installed but cannot be imported .*no_such_package"):
        registry.get("cvxpy:CLARABEL")
    bound = lipcompare.bound(nets.FAMILIES["dense"](0), "lipsdp", center=0.5, eps=0.1)
    assert bound.status is lipcompare.Status.UNAVAILABLE and "no_such_package" in bound.detail
