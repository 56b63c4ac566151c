"""Where cells run: an interface, and its implementation on this machine."""

from __future__ import annotations

import collections
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import final

from lipcompare.network.graph import Network
from lipcompare.result import Status
from lipcompare.store.database import Record, certificate_file
from lipcompare.study.definition import Cell
from lipcompare.study.process import CellProcess

_POLL = 0.2
_LOOK_AROUND = 5.0
"""Seconds after which a runner looks at what others have finished in the same store."""

Finished = tuple[Cell, Record | None]
"""A cell with its row, or without one if another runner wrote it."""


class Lanes(ABC):
    """Runs cells side by side."""

    count: int
    """How many at a time."""

    @abstractmethod
    def results(self, done: Callable[[], set[str]]) -> Iterator[Finished]:
        """Every cell, as it ends; ``done`` tells the keys that another runner has finished meanwhile."""

    @abstractmethod
    def stop(self) -> list[Finished]:
        """End everything now; what has ended but was not handed out yet."""


@final
class Local(Lanes):
    """Worker processes on this machine, each led by a thread.

    ``certificates``: a folder for proofs of the results, if they are wanted.
    """

    def __init__(
        self, cells: Sequence[Cell], networks: Mapping[str, Network], jobs: int, certificates: Path | None = None
    ) -> None:
        self.count = max(1, min(jobs, len(cells)))
        self._networks = networks
        self._certificates = certificates
        self._left = len(cells)
        self._waiting = collections.deque(cells)
        self._finished: queue.Queue[Finished] = queue.Queue()
        self._stopping = threading.Event()
        self._processes = [CellProcess() for _ in range(self.count)]
        self._threads = ThreadPoolExecutor(self.count)
        self._running: list[Future[None]] = []

    def results(self, done: Callable[[], set[str]]) -> Iterator[Finished]:
        self._running = [self._threads.submit(self._lead, process) for process in self._processes]
        looked = time.monotonic()
        while self._left:
            try:
                cell, record = self._finished.get(timeout=_POLL)
            except queue.Empty:
                self._raise()
            else:
                self._left -= 1
                yield cell, record
            if time.monotonic() - looked > _LOOK_AROUND:
                looked = time.monotonic()
                self._drop(done())

    def _lead(self, process: CellProcess) -> None:
        while not self._stopping.is_set():
            try:
                cell = self._waiting.popleft()
            except IndexError:
                break
            proof = None if self._certificates is None else certificate_file(self._certificates, cell.key)
            record = process.run(cell, self._networks[cell.network_hash], proof)
            # A cell that was running when everything was stopped is no result; one that was interrupted by itself is.
            if not (self._stopping.is_set() and record.status == Status.INTERRUPTED.name.lower()):
                self._finished.put((cell, record))
        process.close()

    def _raise(self) -> None:
        """What ended a thread before its time."""
        for thread in self._running:
            if thread.done():
                thread.result()

    def _drop(self, done: set[str]) -> None:
        """Do not start what another runner has finished."""
        for _ in range(len(self._waiting)):
            try:
                cell = self._waiting.popleft()
            except IndexError:
                return
            if cell.key in done:
                self._finished.put((cell, None))
            else:
                self._waiting.append(cell)

    def stop(self) -> list[Finished]:
        self._stopping.set()
        for process in self._processes:
            process.stop()
        self._threads.shutdown(wait=True)
        left = []
        while not self._finished.empty():
            left.append(self._finished.get())
        return left
