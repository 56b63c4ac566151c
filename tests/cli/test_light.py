"""What answers without loading torch, numpy or pandas: modules are counted, as time depends on the machine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lipcompare.cli import asked, options
from lipcompare.cli.commands.questions import EXACT
from lipcompare.jacobian import RELAXATIONS
from lipcompare.questions import NAIVE
from lipcompare.report import pages
from lipcompare.store import filter as store_filter

HEAVY = ("torch", "numpy", "pandas", "scipy", "matplotlib", "onnx")
RUN = f"""
import sys
from lipcompare.cli.entry import main
sys.argv = ["lipcompare", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    code = end.code
print("LOADED", code, *(name for name in {HEAVY!r} if name in sys.modules), sep=" ")
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], 0),
        (["--help"], 0),
        (["bound", "--help"], 0),
        (["results", "--help"], 0),
        (["bound", "not_there.onnx", "--center", "0.5", "--eps", "0.1"], 2),
        (["compare", "not_there.npz", "--center", "0.5", "--eps", "0.1"], 2),
        (["bound", "x" * 300 + ".onnx", "--center", "0.5", "--eps", "0.1"], 2),
        (["bound", "--no-such-option"], 2),
    ],
)
def test_what_needs_no_network_loads_nothing_heavy(arguments: list[str], code: int) -> None:
    done = subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1].split() == ["LOADED", str(code)], done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_handlers_of_signals_wait_for_no_module() -> None:
    """A Ctrl-C before they are set is a traceback; ``lipcompare`` loaded typing, contextlib and importlib first."""
    code = (
        "import os, re, sys; before = set(sys.modules); import lipcompare.cli.entry; print(*set(sys.modules) - before)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-S", "-c", code]  # without what packages in the environment load at the start
    loaded = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=True)
    theirs = {name for name in loaded.stdout.split() if not name.startswith("lipcompare")}
    assert "lipcompare.cli.entry" in loaded.stdout and theirs <= {"signal", "collections.abc"}


def test_the_names_in_the_help_are_those_of_the_tables() -> None:
    assert tuple(RELAXATIONS) == asked.RELAXATIONS and NAIVE == "naive" and EXACT == ("bab", "lipbab")
    assert options.STATUSES == store_filter.STATUSES
    assert asked.PLOTS == pages.PLOTS
