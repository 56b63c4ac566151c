"""A worker process seen from the runner: gives it cells, waits, kills it when a cell goes past its limits."""

from __future__ import annotations

import contextlib
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
from typing import IO

from lipcompare.budget import TracePoint
from lipcompare.errors import LipcompareError
from lipcompare.network.graph import Network
from lipcompare.result import Status
from lipcompare.store.database import Origin, Record
from lipcompare.study.definition import Cell
from lipcompare.study.record import without_result
from lipcompare.study.worker import Done, Message, Ready, Running

_START = 180.0
"""Seconds that a process may take to import, or a method to warm up, on a machine under load."""

_POLL = 0.05
_MEMORY_WORDS = re.compile(
    r"MemoryError|bad_alloc|out of memory|can't allocate memory|memory allocation of|not enough memory", re.I
)


class WorkerError(LipcompareError):
    """Worker processes do not start."""


class CellProcess:
    """Runs cells one after another in a process of their own; a crash loses the running cell's result, nothing else.

    :meth:`stop` may be called from another thread; everything else belongs to one thread.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._messages: queue.Queue[Message | None] = queue.Queue()
        self._errors: IO[bytes] | None = None
        self._silence = 0
        """Where in its stderr the present cell begins."""
        self._origin: Origin | None = None
        self._threads = 0
        self._network = ""
        self._idle_memory = 0
        self._stopped = False

    def run(self, cell: Cell, network: Network) -> Record:
        """The cell's row, whatever happens to the process.

        Raises:
            WorkerError: the process does not start.
        """
        if cell.refusal is not None:
            return without_result(cell, *cell.refusal)
        if self._process is None or self._process.poll() is not None or self._threads != cell.limits.threads:
            self._start(cell.limits.threads)
        self._idle_memory = max(self._idle_memory, self._memory())
        job = (cell, network if self._network != cell.network_hash else None)
        self._network = cell.network_hash
        assert self._process is not None and self._process.stdin is not None
        self._silence = self._errors.seek(0, os.SEEK_END) if self._errors else 0
        with contextlib.suppress(OSError):  # a process that died says so below
            pickle.dump(job, self._process.stdin)
            self._process.stdin.flush()
        record = self._wait(cell)
        if record.status == Status.OUT_OF_MEMORY.name.lower():
            self._kill()  # its memory may stay fragmented
        return record

    def _wait(self, cell: Cell) -> Record:
        asked, started, trace = time.perf_counter(), 0.0, list[TracePoint]()
        while True:
            try:
                message = self._messages.get(timeout=_POLL)
            except queue.Empty:
                used = self._memory() - self._idle_memory
                seconds = time.perf_counter() - (started or asked)
                if used > cell.limits.memory * 1.05:
                    self._kill()
                    detail = f"Killed at its memory limit of {cell.limits.memory / 2**30:.3g} GiB."
                    return without_result(
                        cell, Status.OUT_OF_MEMORY, detail, seconds=seconds, trace=trace, where=self._origin
                    )
                if seconds > (cell.limits.time + cell.limits.grace if started else _START + cell.limits.time):
                    self._kill()
                    detail = f"Killed {cell.limits.grace:g} s after the limit, as the method does not stop midway."
                    return without_result(
                        cell, Status.TIME_LIMIT, detail, seconds=seconds, trace=trace, where=self._origin
                    )
                continue
            if isinstance(message, Done):
                return message.record
            if isinstance(message, Running):
                started = time.perf_counter()
            elif isinstance(message, TracePoint):
                trace.append(message)
            elif message is None:
                return self._crashed(cell, time.perf_counter() - (started or asked), trace)

    def _crashed(self, cell: Cell, seconds: float, trace: list[TracePoint]) -> Record:
        assert self._process is not None
        if sys.platform != "win32":  # leave its number taken until the solvers that it started are dead as well
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        _end(self._process)
        code = self._process.wait()
        text = self._last_words()
        reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if _MEMORY_WORDS.search(text):
            status, detail = Status.OUT_OF_MEMORY, f"The process ended with {reason}: {text}"
        elif self._stopped:
            status, detail = Status.INTERRUPTED, ""
        else:
            status, detail = Status.CRASHED, f"The process ended with {reason}: {text or 'without a word'}"
        self._kill()
        return without_result(cell, status, detail, seconds=seconds, trace=trace, where=self._origin)

    def _last_words(self) -> str:
        """What the process said last on stderr: an exception's last line, or a solver's complaint before it aborted."""
        if self._errors is None:
            return ""
        self._errors.seek(self._silence)
        lines = self._errors.read()[-20_000:].decode(errors="replace").splitlines()
        fatal = next((k for k, line in enumerate(lines) if line.startswith("Fatal Python error")), len(lines))
        spoken = [line.strip() for line in lines[:fatal] if line.strip() and not line.startswith(" ")]
        return " ".join([*spoken[-1:], *lines[fatal : fatal + 1]])[:500]

    def _start(self, threads: int) -> None:
        self._kill()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the process
        environment = dict(os.environ)
        environment |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        environment["PYTHONPATH"] = os.pathsep.join(p or os.getcwd() for p in sys.path)
        # In a session of its own, so that Ctrl-C reaches the runner alone.
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from lipcompare.study.worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            start_new_session=True,
        )
        self._threads = threads
        self._messages = queue.Queue()
        threading.Thread(target=_read, args=(self._process.stdout, self._messages), daemon=True).start()
        try:
            message = self._messages.get(timeout=_START)
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
            _end(self._process)
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):  # what is buffered for a dead process cannot be written
                        stream.close()
        if self._errors is not None:
            self._errors.close()
        self._process, self._errors, self._network, self._idle_memory, self._silence = None, None, "", 0, 0

    def stop(self) -> None:
        """End the process now; the cell that it runs is lost. The object may not be used again."""
        self._stopped = True
        process = self._process
        if process is not None:
            _end(process)

    def close(self) -> None:
        """End the process."""
        self._kill()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, and the solvers that it started."""
    if process.returncode is not None:
        return  # its number may be another process's by now
    if sys.platform == "win32":
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _read(stream: IO[bytes], messages: queue.Queue[Message | None]) -> None:
    """Hand on what the process says; None when it has ended, even in the middle of a message."""
    try:
        while True:
            messages.put(pickle.load(stream))  # noqa: S301  # from a process that this one started
    except (EOFError, OSError, ValueError, pickle.UnpicklingError):
        messages.put(None)
