"""Tables that other packages add to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from solvers.plugins import Registry


def check(name: str, entry: object) -> int:
    if not isinstance(entry, int):
        raise TypeError(f"{entry!r} is no number")
    return entry


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[int]]:
    """A table of one, with a package beside it that declares a good entry, one that breaks, and one of a taken name."""
    (tmp_path / "their_package.py").write_text("seven, word = 7, 'no number'\n")
    information = tmp_path / "their_package-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[numbers]\nseven = their_package:seven\nbroken = their_package:absent\nword = their_package:word\n"
        "one = their_package:seven\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield Registry("numbers", {"one": 1}, check)
    sys.modules.pop("their_package", None)


def test_entry_points_are_entries(table: Registry[int]) -> None:
    assert table["seven"] == 7 and "seven" in table and "eight" not in table
    with pytest.raises(KeyError):
        table["eight"]


def test_our_names_are_ours(table: Registry[int]) -> None:
    assert table["one"] == 1
    with pytest.raises(ValueError, match="take another"):
        table.register("one", 2)


def test_a_broken_package_breaks_nothing_else_and_is_no_secret(table: Registry[int]) -> None:
    table.register("two", 2)
    with pytest.warns(RuntimeWarning, match="does not load"):
        assert list(table) == ["one", "two", "seven"]
    with pytest.raises(AttributeError, match="absent"):
        table["broken"]
    with pytest.raises(TypeError, match="no number"):
        table["word"]
    with pytest.raises(TypeError, match="no number"):
        table.register("text", "text")  # type: ignore[arg-type]
