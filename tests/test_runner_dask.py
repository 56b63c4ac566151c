"""The same rows through a real Dask scheduler, although one of its two workers is killed midway."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import runner_methods
from test_runner import QUIET, assert_same_rows, finished, rows

from lipcompare import METHODS
from lipcompare.runner import run
from lipcompare.runner_process import WorkerError

pytest.importorskip("distributed")


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(autouse=True)
def _methods() -> Iterator[None]:
    before = dict(METHODS)
    runner_methods.register()
    yield
    METHODS.clear()
    METHODS.update(before)


def test_a_cluster_that_loses_a_worker_gives_the_same_rows(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path)), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    where = tmp_path / "scheduler.json"

    def start(module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", f"distributed.cli.{module}", "--scheduler-file", str(where), *arguments]
        with open(tmp_path / f"log{len(processes)}", "wb") as log:
            processes.append(subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log))

    start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    for _ in range(2):
        start("dask_worker", "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard")
    study = runner_methods.cheap_study(pause=0.1)
    run([study], tmp_path / "here.sqlite", console=QUIET)
    expected = rows(tmp_path / "here.sqlite")
    path = tmp_path / "cluster.sqlite"
    killed = threading.Thread(target=_kill_midway, args=(processes[1], path))
    killed.start()
    summary = run([study], path, cluster=_address(where, workers=2), console=QUIET)
    killed.join()
    assert processes[1].returncode is not None and summary.cells == summary.ran == len(expected)
    assert_same_rows(path, expected)


def _address(where: Path, workers: int) -> str:
    """The scheduler's address, once it has the workers."""
    distributed = pytest.importorskip("distributed")
    for _ in range(600):
        if where.exists() and where.read_text().strip().endswith("}"):
            address = str(json.loads(where.read_text())["address"])
            with distributed.Client(address, set_as_default=False) as client:
                client.wait_for_workers(workers, timeout=120)
            return address
        time.sleep(0.1)
    raise TimeoutError("no scheduler after a minute")


def _kill_midway(worker: subprocess.Popen[bytes], path: Path) -> None:
    while finished(path) < 8:
        time.sleep(0.02)
    worker.kill()
    worker.wait()


def test_no_scheduler_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lipcompare.runner_dask._CONNECT", 0.5)
    with pytest.raises(WorkerError, match="No Dask scheduler answers at"):
        run([runner_methods.cheap_study(1)], tmp_path / "r.sqlite", cluster="tcp://127.0.0.1:9", console=QUIET)
