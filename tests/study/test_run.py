"""The runner: what a cell does to its process, what a kill does to a study, and that neither changes the rows."""

from __future__ import annotations

import dataclasses
import math
import os
import random
import runpy
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import nets
import numpy as np
import pandas as pd
import pytest
import runner_methods
from forked import Forked
from runner_methods import QUIET, assert_same_rows, finished, rows

from lipcompare import METHODS, InvalidInput, api
from lipcompare.budget import TracePoint, duration
from lipcompare.certificates import checked
from lipcompare.methods import register
from lipcompare.report.pages import write_report
from lipcompare.result import Status
from lipcompare.store.database import Store
from lipcompare.study import worker
from lipcompare.study.definition import plan
from lipcompare.study.process import CellProcess, WorkerError
from lipcompare.study.progress import StudyProgress
from lipcompare.study.record import from_bound, origin, without_result
from lipcompare.study.run import CellLimits, Setting, Study, Task, run


@pytest.fixture(autouse=True)
def _methods() -> Iterator[None]:
    before = set(METHODS)
    runner_methods.register()
    yield
    for name in set(METHODS) - before:
        METHODS.unregister(name)


def study(*settings: Setting, limits: CellLimits = CellLimits(time=5.0), radii: tuple[float, ...] = (0.1,)) -> Study:
    problems = {eps: nets.problem(nets.dense(0), eps) for eps in radii}
    return Study("test", [Task(p, {"eps": eps}) for eps, p in problems.items()], settings, limits)


def test_rows_are_what_bound_returns(tmp_path: Path) -> None:
    asked = study(Setting("lbp"), Setting("lbp", {"tightening": "interval"}, series="loose"), radii=(0.1, 0.2))
    summary = run([asked], tmp_path / "r.sqlite", console=QUIET)
    assert (summary.cells, summary.ran, summary.statuses) == (4, 4, {"complete": 4})
    frame = rows(tmp_path / "r.sqlite")
    for row in frame.itertuples():
        task = next(t for t in asked.tasks if t.name == row.task)
        options = {"tightening": "interval"} if row.series == "loose" else {}
        assert row.upper == float(api.bound(task.problem, "lbp", **options).overall_upper[0])
    assert set(frame["cpu"]) == {origin().cpu} and set(frame["threads"]) == {1}
    again = run([asked], tmp_path / "r.sqlite", console=QUIET)
    assert (again.cells, again.ran) == (4, 0)
    wider = dataclasses.replace(asked, limits=CellLimits(time=6.0))
    assert len(set(plan([asked]).cells) & set(plan([wider]).cells)) == 0


def test_everything_that_can_happen_to_a_process_becomes_a_row(tmp_path: Path) -> None:
    # Only the deaf one may meet its limit: on a loaded machine a process takes a while to die.
    limits = CellLimits(time=60.0, grace=0.5, memory=2**29)
    settings = [
        Setting("segfault"), Setting("raises"), Setting("hog"), Setting("hog", {"way": "torch"}),
        Setting("deaf", time=1.0), Setting("absent"), Setting("lbp", {"nonsense": 1}), Setting("naive"),
    ]  # fmt: skip
    summary = run([study(*settings, limits=limits)], tmp_path / "r.sqlite", jobs=2, console=QUIET)
    assert summary.ran == len(settings)
    frame = rows(tmp_path / "r.sqlite").set_index("series")
    expected = {
        "segfault": ("crashed", "SIGSEGV"),
        "raises": ("crashed", "ZeroDivisionError: an error that nobody expected"),
        "hog": ("out_of_memory", ""),
        "hog way=torch": ("out_of_memory", ""),
        "deaf": ("time_limit", "Killed 0.5 s after the limit"),
        "absent": ("unavailable", "No method is called 'absent'"),
        "lbp nonsense=1": ("unsupported", "no option 'nonsense'"),
        "naive": ("complete", ""),
    }
    for series, (status, words) in expected.items():
        assert frame.loc[series, "status"] == status and words in frame.loc[series, "message"], frame.loc[series]
        assert np.isnan(frame.loc[series, "lower"])  # nothing proved
    assert frame.loc["deaf", "upper"] == 1e6 and "last that it reported" in frame.loc["deaf", "message"]
    assert 1.4 < frame.loc["deaf", "seconds"] < 30
    assert run([study(*settings, limits=limits)], tmp_path / "r.sqlite", console=QUIET).ran == 1  # the absent one


def test_what_a_worker_does_to_its_pipe_becomes_a_row(tmp_path: Path) -> None:
    """Each of these made the run wait for ever, past every limit."""
    ways = {
        "interrupted": ("interrupted", "Interrupted."),
        "closed": ("crashed", "closed its output and was killed"),
        "byte": ("crashed", "sent what is no message"),
        "object": ("crashed", "sent what is no message (a dict)"),
        "zero": ("crashed", "exit code 3"),
    }
    settings = [*(Setting("faulty", {"way": way}, series=way) for way in ways), Setting("naive")]
    asked = study(*settings, limits=CellLimits(time=60.0))
    assert run([asked], tmp_path / "r.sqlite", jobs=2, console=QUIET).ran == len(settings)
    frame = rows(tmp_path / "r.sqlite").set_index("series")
    for way, (status, words) in ways.items():
        assert frame.loc[way, "status"] == status and words in frame.loc[way, "message"], frame.loc[way]
        assert np.isnan(frame.loc[way, "upper"]) and frame.loc[way, "seconds"] < 30
    assert frame.loc["naive", "status"] == "complete"
    again = run([asked], tmp_path / "r.sqlite", console=QUIET)
    assert again.statuses == {"interrupted": 1}  # which says nothing about the cell, so that it is tried again


@pytest.mark.parametrize("bad", ["nan", "shape"])
def test_a_bound_that_is_no_number_is_a_row(bad: str) -> None:
    (cell,) = plan([study(Setting("naive"))]).cells.values()
    problem = nets.problem(nets.dense(0), 0.1)
    good = api.bound(problem, "naive")
    upper = np.full_like(good.upper, math.nan) if bad == "nan" else good.upper[0]
    record = from_bound(cell, dataclasses.replace(good, upper=upper, trace=(TracePoint(0.1, 0.0, math.nan),)))
    assert (record.status, record.upper, record.trace) == ("crashed", math.inf, ())
    assert ("NaN" if bad == "nan" else "shape") in record.message


def test_a_process_that_dies_as_it_starts_is_tried_again_and_then_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lipcompare.study.process._PAUSE", 0.0)
    real, tries = CellProcess._launch, []

    def launch(self: CellProcess, threads: int) -> None:
        tries.append(threads)
        if len(tries) in (1, 3, 4, 5):
            raise WorkerError("A worker process does not start: a moment of weakness.")
        real(self, threads)

    monkeypatch.setattr(CellProcess, "_launch", launch)
    work = plan([study(Setting("naive"), Setting("raises"), Setting("segfault"), Setting("lbp"))])
    process = CellProcess()
    try:
        ends = [process.run(cell, work.networks[cell.network_hash]) for cell in work.cells.values()]
    finally:
        process.close()
    assert [record.status for record in ends] == ["complete", "crashed", "crashed", "unavailable"]
    assert "a moment of weakness" in ends[-1].message and len(tries) == 5


def test_a_process_that_does_not_read_its_job_meets_its_limit(tmp_path: Path) -> None:
    """A network larger than the pipe's buffer kept the runner in its write for ever."""
    network = nets.dense(0)
    wide = nets.dense(0, (400, 600, 2))
    work = plan([study(Setting("naive"), limits=CellLimits(time=0.2, grace=0.2))])
    (cell,) = work.cells.values()
    process = CellProcess()
    try:
        assert process.run(cell, network).status == "complete"
        assert process._process is not None
        os.kill(process._process.pid, signal.SIGSTOP)
        monkey = pytest.MonkeyPatch()
        monkey.setattr("lipcompare.study.process._START", 0.5)
        other = dataclasses.replace(cell, network_hash="another", key="another")
        assert process.run(other, wide).status == "time_limit"
        monkey.undo()
    finally:
        process.close()


def test_one_cell_in_two_studies_is_computed_once(tmp_path: Path) -> None:
    one = study(Setting("naive"))
    other = dataclasses.replace(one, name="other", settings=[Setting("naive", series="another name")])
    assert run([one, other], tmp_path / "r.sqlite", console=QUIET).ran == 1
    assert rows(tmp_path / "r.sqlite")["series"].tolist() == ["another name", "naive"]


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    asked = study(Setting("naive"), Setting("steps", {"steps": 1000}), limits=CellLimits(time=60.0))
    path = tmp_path / "r.sqlite"

    def interrupt() -> None:
        while finished(path) < 1:
            time.sleep(0.05)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    summary = run([asked], path, console=QUIET)
    assert summary.interrupted and "run again" in str(summary)
    frame = rows(path).set_index("series")
    assert frame.loc["naive", "status"] == "complete" and frame["status"].notna().sum() == 1


def undisturbed(folder: Path) -> pd.DataFrame:
    run([runner_methods.cheap_study()], folder / "undisturbed.sqlite", console=QUIET)
    return rows(folder / "undisturbed.sqlite")


def test_a_study_killed_three_times_at_random_ends_with_the_same_rows(tmp_path: Path) -> None:
    expected = undisturbed(tmp_path)
    path = tmp_path / "killed.sqlite"
    total = int((expected["status"] != "unavailable").sum())
    dice = random.Random(time.time_ns())
    before = 0
    for kill in range(3):
        target = before + dice.randint(1, max(1, (total - before - 1) // (4 - kill)))
        with tempfile.TemporaryFile() as errors:
            runner = Forked(lambda: run([runner_methods.cheap_study()], path, console=QUIET), errors)
            while finished(path) < target and runner.poll() is None:
                time.sleep(0.01)
            time.sleep(dice.random() * 0.05)
            runner.kill()
            runner.wait()
            runner.close()
            errors.seek(0)
            assert not errors.read()
        after = finished(path)
        assert after >= before
        before = after
    last = run([runner_methods.cheap_study()], path, console=QUIET)
    assert last.cells == len(expected) > last.ran
    assert_same_rows(path, expected)


@pytest.mark.processes
def test_killed_runners_leave_no_workers_behind(tmp_path: Path) -> None:
    process = CellProcess()
    work = plan([study(Setting("naive"))])
    (cell,) = work.cells.values()
    assert process.run(cell, work.networks[cell.network_hash]).status == "complete"
    worker = process._process
    assert worker is not None and worker.stdin is not None
    maps = Path(f"/proc/{worker.pid}/maps")
    if maps.exists():
        assert not any(f"/{heavy}/" in maps.read_text() for heavy in ("pandas", "matplotlib")), "it starts late"
    worker.stdin.close()  # what the system does when the runner is killed
    assert worker.wait(timeout=120) != 0
    worker.stdin = None
    process.close()


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

    monkeypatch.setattr("lipcompare.study.process._spawn", lambda threads, errors: Forked(elsewhere, errors))
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


@pytest.mark.processes
def test_a_worker_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('a broken installation')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WorkerError, match="a broken installation"):
        run([study(Setting("naive"))], tmp_path / "r.sqlite", console=QUIET)


def test_a_trace_after_a_kill_proves_no_lower_bound() -> None:
    (cell,) = plan([study(Setting("naive"))]).cells.values()
    record = without_result(cell, Status.TIME_LIMIT, "Killed.")
    assert (record.lower, record.upper, record.proves) == (0.0, float("inf"), "nothing")


def test_progress_tells_the_time_left() -> None:
    asked = study(Setting("naive"), Setting("lbp"), radii=(0.1, 0.2), limits=CellLimits(time=9.0))
    cells = list(plan([asked]).cells.values())
    progress = StudyProgress(QUIET, cells, lanes=2)
    assert progress.seconds_left() == 4 * 3.0 / 2
    progress.finished(cells[0], without_result(cells[0], Status.COMPLETE, "", seconds=1.0))
    assert progress.seconds_left() == (1 * 1.0 + 2 * 3.0) / 2
    progress.finished(cells[1], None)
    assert progress.seconds_left() == (1 * 1.0 + 1 * 3.0) / 2
    assert [duration(s) for s in (0.31, 42, 420, 12600)] == ["0.3 s", "42 s", "7 min", "3.5 h"]


def test_malformed_studies_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="two settings called 'naive'"):
        study(Setting("naive"), Setting("naive"))
    with pytest.raises(InvalidInput, match="one box"):
        Task(nets.problem(nets.dense(0), 0.1, batch=2))
    with pytest.raises(InvalidInput, match="time limit"):
        CellLimits(time=float("inf"))
    with pytest.raises(InvalidInput, match="at least 1 MiB"):
        CellLimits(memory=5)
    with pytest.raises(InvalidInput, match="jobs"):
        run([], tmp_path / "r.sqlite", jobs=0)


def test_certificates_lie_beside_the_store_and_the_report_says_what_they_prove(tmp_path: Path) -> None:
    store, folder = tmp_path / "r.sqlite", tmp_path / "r.sqlite.certificates"
    run([study(Setting("lbp"), Setting("bab"), Setting("attack"))], store, certificates=True, console=QUIET)
    frame = rows(store).set_index("series")
    files = {name: folder / f"{frame.loc[name, 'key']}.npz" for name in ("lbp", "bab")}
    assert set(folder.iterdir()) == set(files.values())  # an attack proves no upper end
    for name, path in files.items():
        found = checked(path)
        assert found is not None and not found.failures
        assert max(found.upper) == pytest.approx(frame.loc[name, "upper"], rel=1e-5)
    files["lbp"].write_bytes(b"PK")
    with Store(store, read_only=True) as kept:
        page = write_report(kept, tmp_path / "report").read_text()
    cells = [line.strip() for line in page.splitlines()]
    assert sum("verified" in line for line in cells) == 1 and sum("REFUSED" in line for line in cells) == 1
    with pytest.raises(InvalidInput, match="not on a cluster"):
        run([study(Setting("lbp"))], store, certificates=True, cluster="tcp://nowhere:1", console=QUIET)


def test_a_certificate_that_fails_costs_no_row(tmp_path: Path) -> None:
    work = plan([study(Setting("lbp"))])
    (cell,), process = work.cells.values(), CellProcess()
    try:
        record = process.run(cell, work.networks[cell.network_hash], tmp_path / "no folder" / "c.npz")
    finally:
        process.close()
    assert record.status == "complete" and "There is no certificate: FileNotFoundError" in record.message
