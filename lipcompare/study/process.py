"""A worker process seen from the runner: gives it cells, waits, kills it when a cell goes past its limits."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, NamedTuple

from lipcompare.budget import TracePoint
from lipcompare.errors import LipcompareError
from lipcompare.network.graph import Network
from lipcompare.processes.spawning import close, end, last_words, spawn
from lipcompare.result import Status
from lipcompare.store.database import Origin, Record
from lipcompare.study.definition import Cell
from lipcompare.study.record import without_result
from lipcompare.study.worker import Done, Job, Message, Proving, Ready, Running

_START = 180.0
"""Seconds that a process may take to import, or a method to warm up, on a machine under load."""

_TRIES = 3
"""Times that a process is started before its start counts as failed."""

_PAUSE = 1.0
"""Seconds between two tries, times their number: what was short a moment ago may be there again."""

_DYING = 2.0
"""Seconds that a process which has closed its output has to end by itself, so that its exit code can be told."""

_POLL = 0.05
_MEMORY_WORDS = re.compile(
    r"MemoryError|bad_alloc|out of memory|can't allocate memory|memory allocation of|not enough memory", re.I
)


class WorkerError(LipcompareError):
    """Worker processes do not start."""


class Garbled(NamedTuple):
    """The process sent what is no message of its own; nothing that it says from here on can be understood.

    Attributes:
        why: in words.
    """

    why: str


Heard = Message | Garbled | None
"""What comes out of a process; None: its end."""


class CellProcess:
    """Runs cells one after another in a process of their own; a crash loses the running cell's result, nothing else.

    :meth:`stop` may be called from another thread; everything else belongs to one thread.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._messages: queue.Queue[Heard] = queue.Queue()
        self._errors: IO[bytes] | None = None
        self._silence = 0
        """Where in its stderr the present cell begins."""
        self._origin: Origin | None = None
        self._threads = 0
        self._network = ""
        self._idle_memory = 0
        self._stopped = False
        self._worked = False
        """Whether a process has ever started."""

    def run(self, cell: Cell, network: Network, certificate: Path | None = None) -> Record:
        """The cell's row, whatever happens to the process.

        Args:
            certificate: the file for a proof of the result; without a file where that fails, or takes too long.

        Raises:
            WorkerError: no process has ever started, so that the fault is not the cell's.
        """
        if cell.refusal is not None:
            return without_result(cell, *cell.refusal)
        if self._process is None or self._process.poll() is not None or self._threads != cell.limits.threads:
            try:
                self._start(cell.limits.threads)
            except WorkerError as error:
                if not self._worked:
                    raise
                return without_result(cell, Status.UNAVAILABLE, str(error))
        self._idle_memory = max(self._idle_memory, self._memory())
        job = Job(cell, network if self._network != cell.network_hash else None, certificate)
        self._network = cell.network_hash
        assert self._process is not None and self._process.stdin is not None
        self._silence = self._errors.seek(0, os.SEEK_END) if self._errors else 0
        # By a thread, as a process that does not read would keep the writer past every limit.
        threading.Thread(target=_write, args=(job, self._process.stdin), daemon=True).start()
        record = self._wait(cell)
        if record.status == Status.OUT_OF_MEMORY.name.lower():
            self._kill()  # its memory may stay fragmented
        return record

    def _wait(self, cell: Cell) -> Record:
        asked, started, trace = time.perf_counter(), 0.0, list[TracePoint]()
        proving: Record | None = None  # has returned; only its certificate is not written yet
        while True:
            try:
                message = self._messages.get(timeout=_POLL)
            except queue.Empty:
                used = self._memory() - self._idle_memory
                seconds = time.perf_counter() - (started or asked)
                if used > cell.limits.memory * 1.05:
                    self._kill()
                    if proving is not None:
                        return _unproved(proving, "it took more memory than the cell may")
                    detail = f"Killed at its memory limit of {cell.limits.memory / 2**30:.3g} GiB."
                    return without_result(
                        cell, Status.OUT_OF_MEMORY, detail, seconds=seconds, trace=trace, where=self._origin
                    )
                if seconds > (cell.limits.time + cell.limits.grace if started else _START + cell.limits.time):
                    self._kill()
                    if proving is not None:
                        return _unproved(proving, "it took longer than the cell may")
                    detail = f"Killed {cell.limits.grace:g} s after the limit, as the method does not stop midway."
                    return without_result(
                        cell, Status.TIME_LIMIT, detail, seconds=seconds, trace=trace, where=self._origin
                    )
                continue
            if isinstance(message, Done) and message.record.key == cell.key:
                return message.record
            if isinstance(message, Running):
                started = time.perf_counter()
            elif isinstance(message, Proving):
                proving, started = message.record, time.perf_counter()
            elif isinstance(message, TracePoint):
                trace.append(message)
            elif proving is not None:
                said = self._last_words()
                self._kill()
                return _unproved(proving, said or "the process ended")
            elif message is None:
                return self._crashed(cell, time.perf_counter() - (started or asked), trace, "")
            else:
                why = message.why if isinstance(message, Garbled) else "another cell's row"
                said = f"The process sent what is no message ({why}) and was killed."
                return self._crashed(cell, time.perf_counter() - (started or asked), trace, said)

    def _crashed(self, cell: Cell, seconds: float, trace: list[TracePoint], said: str) -> Record:
        """The row of a process that ended, or that can no longer be talked to (``said``: why, if that is known)."""
        assert self._process is not None
        ended = not said and _ends(self._process)
        end(self._process)
        code = self._process.wait()
        text = self._last_words()
        if not said:
            reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            said = f"The process ended with {reason}" if ended else "The process closed its output and was killed"
            said = f"{said}: {text or 'without a word'}"
        if _MEMORY_WORDS.search(text):
            status, detail = Status.OUT_OF_MEMORY, said
        elif self._stopped:
            status, detail = Status.INTERRUPTED, ""
        else:
            status, detail = Status.CRASHED, said
        self._kill()
        return without_result(cell, status, detail, seconds=seconds, trace=trace, where=self._origin)

    def _last_words(self) -> str:
        """What the process said last since the present cell began."""
        return "" if self._errors is None else last_words(self._errors, self._silence)

    def _start(self, threads: int) -> None:
        """Start a process, if need be at the second or third try."""
        for number in range(1, _TRIES + 1):
            try:
                self._launch(threads)
            except WorkerError:
                if number == _TRIES or self._stopped:
                    raise
                time.sleep(number * _PAUSE)
            else:
                self._worked = True
                return

    def _launch(self, threads: int) -> None:
        self._kill()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the process
        try:
            self._process = spawn("lipcompare.study.worker", threads, self._errors)
        except OSError as error:  # no memory or no number for another process
            self._kill()
            raise WorkerError(f"A worker process does not start: {error}.") from error
        self._threads = threads
        self._messages = queue.Queue()
        threading.Thread(target=_read, args=(self._process.stdout, self._messages), daemon=True).start()
        try:
            message: Heard = self._messages.get(timeout=_START)
        except queue.Empty:
            message = None
        if not isinstance(message, Ready):
            words = self._last_words()
            self._kill()
            raise WorkerError(f"A worker process does not start: {words or f'not within {_START:g} s'}.")
        self._origin = message.origin

    def _memory(self) -> int:
        """Bytes that the process holds now; 0 where the system does not tell."""
        if self._process is None:
            return 0
        try:
            pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def _kill(self) -> None:
        if self._process is not None:
            close(self._process)
        if self._errors is not None:
            self._errors.close()
        self._process, self._errors, self._network, self._idle_memory, self._silence = None, None, "", 0, 0

    def stop(self) -> None:
        """End the process now; the cell that it runs is lost. The object may not be used again."""
        self._stopped = True
        process = self._process
        if process is not None:
            end(process)

    def close(self) -> None:
        """End the process."""
        self._kill()


def _unproved(record: Record, why: str) -> Record:
    """A row whose certificate was not written."""
    return dataclasses.replace(record, message=f"{record.message} There is no certificate: {why}.")


def _ends(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process ends by itself within ``_DYING`` seconds.

    Its number stays taken until it is waited for, so that the solvers that it started can still be killed with it.
    """
    until = time.monotonic() + _DYING
    while time.monotonic() < until:
        if sys.platform == "win32":
            if process.poll() is not None:
                return True
        elif os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
            return True
        time.sleep(_POLL)
    return False


def _write(job: Job, stream: IO[bytes]) -> None:
    with contextlib.suppress(OSError, ValueError):  # a process that died, or was killed meanwhile, says so elsewhere
        pickle.dump(job, stream)
        stream.flush()


def _read(stream: IO[bytes], messages: queue.Queue[Heard]) -> None:
    """Hand on what the process says; None when it has ended, even in the middle of a message."""
    while True:
        try:
            message = pickle.load(stream)  # noqa: S301  # from a process that this one started
        except (EOFError, OSError):
            messages.put(None)
            return
        except Exception as error:  # noqa: BLE001  # damaged pickles raise anything; whoever reads makes a row of it
            ended = stream.closed or (isinstance(error, pickle.UnpicklingError) and "truncated" in str(error))
            messages.put(None if ended else Garbled(f"{type(error).__name__}: {error}"))
            return
        if not isinstance(message, (Ready, Running, TracePoint, Proving, Done)):
            messages.put(Garbled(f"a {type(message).__name__}"))
            return
        messages.put(message)
