"""Every command line of the documentation is one that there is: its options are known, its modules can be found."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.main import get_command

from lipcompare.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *(p for p in (ROOT / "docs").rglob("*.md") if p.parent.name not in ("methods", "_build"))]
LINES = sorted(
    {
        line.partition(" #")[0].removeprefix("$ ").removeprefix(".venv/bin/").strip()
        for page in PAGES
        for block in re.findall(r"^```console\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
        if line.startswith("$ ")
    }
)


def test_there_are_some() -> None:
    assert len([line for line in LINES if line.startswith("lipcompare ")]) > 30
    assert len([line for line in LINES if line.startswith("python -m ")]) > 10


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("lipcompare ")])
def test_the_command_line_takes_it(line: str) -> None:
    group = get_command(app)
    _, name, *arguments = shlex.split(line)
    command = group.commands[name]  # type: ignore[attr-defined]
    command.make_context(name, arguments)  # raises where an option or a value is none


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("python -m ")])
def test_the_module_is_there(line: str) -> None:
    for part in line.split(" && "):
        name = shlex.split(part)[2]
        assert name == "figures" or "." in name
        assert find_spec(name) is not None, name
