"""Solvers by name: in any case, families behind other packages, and what is likeliest for a wrong name."""

from __future__ import annotations

import pytest

import solvers
from solvers import registry


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
