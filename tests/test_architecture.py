"""docs/architecture.md names what is there, and the layout keeps to its rules."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "architecture.md").read_text()


def test_every_file_that_is_named_is_there() -> None:
    named = re.findall(r"`([a-z_/]+(?:\.py|/))`", TEXT)
    assert len(named) > 40
    places = [ROOT, ROOT / "lipcompare", ROOT / "lipcompare" / "quadratic", ROOT / "tests" / "network"]
    places += [p for p in (ROOT / "lipcompare").rglob("*") if p.is_dir()]
    assert [n for n in named if not any((place / n).exists() for place in places)] == []


def test_the_floors_are_those_of_the_contract() -> None:
    contract = (ROOT / "pyproject.toml").read_text()
    for package in (p for p in (ROOT / "lipcompare").iterdir() if p.is_dir() and (p / "__init__.py").exists()):
        assert f"lipcompare.{package.name}" in contract, package.name


def test_few_modules_stand_directly_under_the_package() -> None:
    modules = [p.stem for p in (ROOT / "lipcompare").glob("*.py") if p.stem != "__init__"]
    assert len(modules) <= 12, sorted(modules)
