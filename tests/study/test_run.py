"""The runner: what a cell does to its process, what a kill does to a study, and that neither changes the rows."""

from __future__ import annotations

import dataclasses
import random
import signal
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import runner_methods
from forked import Forked
from runner_methods import QUIET, assert_same_rows, finished, rows
from study.cells import study

from lipcompare import InvalidInput, api
from lipcompare.certificates import checked
from lipcompare.report.pages import write_report
from lipcompare.store.database import Store
from lipcompare.study.definition import plan
from lipcompare.study.process import CellProcess
from lipcompare.study.record import origin
from lipcompare.study.run import CellLimits, Setting, run

pytestmark = pytest.mark.usefixtures("misbehaving")


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
        Setting("hog", {"way": "unused"}),
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
        "hog way=unused": ("out_of_memory", ""),
        "deaf": ("time_limit", "Killed 0.5 s after the limit"),
        "absent": ("unavailable", "No method is called 'absent'"),
        "lbp nonsense=1": ("unsupported", "no option 'nonsense'"),
        "naive": ("complete", ""),
    }
    for series, (status, words) in expected.items():
        assert frame.loc[series, "status"] == status and words in frame.loc[series, "message"], frame.loc[series]
        assert np.isnan(frame.loc[series, "lower"])  # nothing proved
    # The system refuses it within the method, so that what this had kept is returned; the runner sees what is in use.
    assert frame.loc["hog way=unused", "upper"] == 7.0
    assert frame.loc["deaf", "upper"] == 1e6 and "last that it reported" in frame.loc["deaf", "message"]
    assert 1.4 < frame.loc["deaf", "seconds"] < 30
    assert run([study(*settings, limits=limits)], tmp_path / "r.sqlite", console=QUIET).ran == 1  # the absent one


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
