"""Methods that a worker cannot import are told of."""

from __future__ import annotations

import dataclasses
import runpy
import sys
from pathlib import Path

import pytest
import runner_methods
from forked import Forked
from runner_methods import QUIET, rows
from study.cells import study

from lipcompare.methods import register
from lipcompare.study import worker
from lipcompare.study.run import Setting, run

pytestmark = pytest.mark.usefixtures("misbehaving")


def test_a_method_that_cannot_travel_is_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass(frozen=True)
    class Local(runner_methods.Steps.__base__):  # type: ignore[misc,name-defined]
        name = "local"

        def run(self, problem: object, budget: object) -> None: ...

    Local.__module__, Local.__qualname__ = "runner_methods", "NotThere"
    runner_methods.NotThere = Local  # type: ignore[attr-defined]
    register(Local)

    def elsewhere() -> None:
        """A process that imports its own ``runner_methods``, in which the class is not."""
        del runner_methods.NotThere  # type: ignore[attr-defined]
        worker.main()

    monkeypatch.setattr("lipcompare.study.process.spawn", lambda module, threads, errors: Forked(elsewhere, errors))
    run([study(Setting("local"))], tmp_path / "r.sqlite", console=QUIET)
    row = rows(tmp_path / "r.sqlite").iloc[0]
    assert row["status"] == "crashed" and "NotThere" in row["message"]


def test_a_method_of_the_script_that_runs_is_told_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "import dataclasses, sys\n"
        "from lipcompare.budget import Clock\n"
        "from lipcompare.methods import Method, register\n"
        "from rich.console import Console\n"
        "import nets\n"
        "from lipcompare.study.run import CellLimits, Setting, Study, Task, run\n"
        "@register\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Mine(Method):\n"
        "    name, proves, summary, reference = 'mine', 'upper', 'of the script', 'none'\n"
        "    def supports(self, problem):\n"
        "        return None\n"
        "    def run(self, problem, budget):\n"
        "        return self.result(problem, Clock(budget))\n"
        "if __name__ == '__main__':\n"
        "    task = Task(nets.problem(nets.dense(0), 0.1), {'model': 'dense'})\n"
        "    asked = Study('s', [task], [Setting('mine')], CellLimits(time=20.0))\n"
        "    run([asked], sys.argv[1], console=Console(quiet=True))\n"
    )
    store = tmp_path / "r.sqlite"
    monkeypatch.setattr(sys, "argv", [str(script), str(store)])
    runpy.run_path(str(script), run_name="__main__")
    row = rows(store).iloc[0]
    assert row["status"] == "unavailable" and "put the class in a module of its own" in row["message"]
