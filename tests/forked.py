"""Processes that are forks of the test's own, which has imported already what each would import for seconds."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import IO


class Forked:
    """A child that runs ``main`` as a program would, with pipes at its standard input and output.

    It has what :class:`lipcompare.study.process.CellProcess` and the tests ask of a ``subprocess.Popen``.
    """

    def __init__(self, main: Callable[[], object], errors: IO[bytes]) -> None:
        reads, writes = os.pipe()
        hears, says = os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _become(main, reads, says, errors.fileno())
        os.close(reads)
        os.close(says)
        self.stdin: IO[bytes] | None = os.fdopen(writes, "wb")
        self.stdout: IO[bytes] | None = os.fdopen(hears, "rb")

    def poll(self) -> int | None:
        return self._ended(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(0)
        assert code is not None
        return code

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, 9)

    def close(self) -> None:
        """Close its pipes."""
        for stream in (self.stdin, self.stdout):
            if stream is not None:
                stream.close()

    def _ended(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def _become(main: Callable[[], object], reads: int, says: int, errors: int) -> None:
    """The child: a session, files and warnings of its own, as a new process would have them; never returns."""
    code = 1
    try:
        os.setsid()
        for ours, theirs in ((reads, 0), (says, 1), (errors, 2)):
            os.dup2(ours, theirs)
        os.closerange(3, 4096)  # the ends of other children's pipes, which would never close
        sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
        # By lines, as an interpreter's: a traceback is out before the frames that it shows close their files.
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        warnings.resetwarnings()
        for silent in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", silent)  # an interpreter's defaults
        for logger in (logging.root, *logging.root.manager.loggerDict.values()):
            if isinstance(logger, logging.Logger) and logger.handlers:
                logger.handlers = [logging.StreamHandler(sys.stderr)]
        main()
        code = 0
    except BaseException:  # noqa: BLE001  # what the interpreter does with it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def spawn(module: str, threads: int, errors: IO[bytes]) -> Forked:
    """In place of :func:`lipcompare.processes.spawning.spawn`."""
    return Forked(importlib.import_module(module).main, errors)
