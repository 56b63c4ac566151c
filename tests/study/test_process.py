"""Processes of cells: whatever one does to its pipe, or does not do, becomes a row."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import nets
import numpy as np
import pytest
from runner_methods import QUIET, rows
from study.cells import study

from lipcompare.study.definition import plan
from lipcompare.study.process import CellProcess, WorkerError
from lipcompare.study.run import CellLimits, Setting, run

pytestmark = pytest.mark.usefixtures("misbehaving")


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


@pytest.mark.processes
def test_a_worker_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('a broken installation')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WorkerError, match="a broken installation"):
        run([study(Setting("naive"))], tmp_path / "r.sqlite", console=QUIET)
