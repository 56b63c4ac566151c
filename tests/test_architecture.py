"""docs/architecture.md names what is there, and the layout keeps to its rules."""

from __future__ import annotations

import re
import tomllib
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
    """Row by row of the picture, what stands on a floor is what the linter has there; and nothing is left out."""
    (contract,) = [
        c for c in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
        if c["id"] == "floors"
    ]  # fmt: skip
    layers = [{m.strip().removeprefix("lipcompare.") for m in re.split("[|:]", layer)} for layer in contract["layers"]]
    table = TEXT.partition("| floor |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [set(re.findall(r"`(\w+)(?:/|\.py)`", row.split("|")[1])) for row in table]
    assert rows == layers
    there = {p.stem for p in (ROOT / "lipcompare").iterdir() if (p / "__init__.py").exists() or p.suffix == ".py"}
    assert there - {"__init__"} <= set().union(*layers)


def test_few_modules_stand_directly_under_the_package() -> None:
    modules = [p.stem for p in (ROOT / "lipcompare").glob("*.py") if p.stem != "__init__"]
    assert len(modules) <= 12, sorted(modules)
