"""The same rows through a real Dask scheduler, although one of its two workers is killed midway."""

from __future__ import annotations

import importlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import runner_methods
from forked import Forked
from runner_methods import QUIET, assert_same_rows, finished, rows

from lipcompare import METHODS, Status
from lipcompare.store.database import Record
from lipcompare.study.definition import Cell
from lipcompare.study.process import WorkerError
from lipcompare.study.record import without_result
from lipcompare.study.run import run

pytest.importorskip("distributed")

TIDIES = 0.25
"""Seconds after which the scheduler throws away copies that it has no use for, again and again."""


@pytest.fixture
def processes() -> Iterator[list[Forked]]:
    started: list[Forked] = []
    yield started
    for process in started:
        process.kill()
        process.wait()
        process.close()


@pytest.fixture(autouse=True)
def _methods() -> Iterator[None]:
    before = set(METHODS)
    runner_methods.register()
    yield
    for name in set(METHODS) - before:
        METHODS.unregister(name)


def test_a_cluster_that_loses_a_worker_gives_the_same_rows(
    tmp_path: Path, processes: list[Forked], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    where = tmp_path / "scheduler.json"

    dask = pytest.importorskip("dask")

    def start(module: str, *arguments: str) -> None:
        main = importlib.import_module(f"distributed.cli.{module}").main
        tidying = {"distributed.scheduler.active-memory-manager.interval": f"{TIDIES}s"}
        with open(tmp_path / f"log{len(processes)}", "wb") as log, dask.config.set(tidying):
            processes.append(Forked(lambda: main(["--scheduler-file", str(where), *arguments]), log))

    monkeypatch.setenv("STEPS_PAUSE", "0.2")
    start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    for _ in range(2):
        start("dask_worker", "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard")
    monkeypatch.delenv("STEPS_PAUSE")
    study = runner_methods.cheap_study(10)
    run([study], tmp_path / "here.sqlite", console=QUIET)
    expected = rows(tmp_path / "here.sqlite")
    store = tmp_path / "cluster.sqlite"
    address = _address(where, processes[0], workers=2)
    killed = threading.Thread(target=_kill_midway, args=(processes[1], store), daemon=True)
    killed.start()
    summary = run([study], store, cluster=address, console=QUIET)
    killed.join(timeout=120)
    assert processes[1].returncode is not None and summary.cells == summary.ran == len(expected)
    assert_same_rows(store, expected)


def _address(where: Path, scheduler: Forked, workers: int) -> str:
    """The scheduler's address, once it has the workers."""
    distributed = pytest.importorskip("distributed")
    while not (where.exists() and where.read_text().strip().endswith("}")):
        assert scheduler.poll() is None, "the scheduler does not start"
        time.sleep(0.05)
    address = str(json.loads(where.read_text())["address"])
    with distributed.Client(address, timeout=120, set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=300)
    return address


def _kill_midway(worker: Forked, path: Path) -> None:
    """Only after the scheduler has thrown away all copies of a network but one."""
    while finished(path) < 8:
        time.sleep(0.02)
    time.sleep(4 * TIDIES)
    worker.kill()
    worker.wait()


class _Future:
    """A future whose worker went after it had finished: Dask computes it again, or forgets it."""

    def __init__(self, key: str, record: Record, forgotten: bool) -> None:
        self.key, self.record, self.status = key, record, "cancelled" if forgotten else "lost"

    def exception(self) -> None:
        self.status = "finished" if self.status == "lost" else self.status

    def result(self) -> Record:
        assert self.status == "finished"
        return self.record


class _Client:
    """A scheduler with one worker that forgets the first futures that it gives out."""

    loop = None
    forgets = 0

    def __init__(self, address: str, **options: object) -> None:
        self.networks: list[object] = []

    def nthreads(self) -> dict[str, int]:
        return {"worker": 1}

    def submit(self, function: object, what: object, *others: object, key: str, **options: object) -> object:
        if not isinstance(what, Cell):
            self.networks.append(what)
            return len(self.networks)
        forgotten, _Client.forgets = _Client.forgets > 0, _Client.forgets - 1
        return _Future(key, without_result(what, Status.COMPLETE, ""), forgotten)

    def cancel(self, futures: object, *, force: bool) -> None: ...

    def close(self) -> None: ...


class _Completed:
    def __init__(self, futures: list[_Future], loop: None) -> None:
        self.futures = list(futures)

    def add(self, future: _Future) -> None:
        self.futures.append(future)

    def __iter__(self) -> Iterator[_Future]:
        while self.futures:
            yield self.futures.pop(0)


@pytest.mark.parametrize("forgets", [0, 3, 100])
def test_a_result_that_went_with_its_worker_is_awaited_or_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgets: int
) -> None:
    monkeypatch.setattr("distributed.Client", _Client)
    monkeypatch.setattr("distributed.as_completed", _Completed)
    monkeypatch.setattr(_Client, "forgets", forgets)
    study = runner_methods.cheap_study(1)
    if forgets == 100:
        with pytest.raises(WorkerError, match="gave cells up 5 times"):
            run([study], tmp_path / "r.sqlite", cluster="tcp://nobody", console=QUIET)
        return
    run([study], tmp_path / "r.sqlite", cluster="tcp://nobody", console=QUIET)
    assert set(rows(tmp_path / "r.sqlite")["status"]) == {"complete"}


def test_no_scheduler_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lipcompare.study.cluster._CONNECT", 0.5)
    with pytest.raises(WorkerError, match="No Dask scheduler answers at"):
        run([runner_methods.cheap_study(1)], tmp_path / "r.sqlite", cluster="tcp://127.0.0.1:9", console=QUIET)
