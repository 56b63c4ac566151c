"""The end of the process that starts another one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import IO


def spawn(module: str, threads: int, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """A process that runs ``main()`` of a module, in a session of its own, so that Ctrl-C reaches this one alone.

    It finds packages where this one does, and does not import this one's script.

    Args:
        threads: of its linear algebra.
        errors: a file for what it says on its standard error.

    Raises:
        OSError: no memory or no number for another process.
    """
    environment = dict(os.environ)
    environment |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    environment["PYTHONPATH"] = os.pathsep.join(p or os.getcwd() for p in sys.path)
    return subprocess.Popen(  # noqa: S603  # its arguments are ours
        [sys.executable, "-c", f"from {module} import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=environment,
        start_new_session=True,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, and the solvers that it started; it has still to be waited for."""
    if process.returncode is not None:
        return  # its number may be another process's by now
    if sys.platform == "win32":
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def close(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, wait for it, and close the pipes to it."""
    end(process)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):  # what is buffered for a dead process cannot be written
                stream.close()


def last_words(errors: IO[bytes], since: int = 0) -> str:
    """What a process said last on its standard error: an exception's last line, or a complaint before it aborted."""
    errors.seek(since)
    lines = errors.read()[-20_000:].decode(errors="replace").splitlines()
    fatal = next((k for k, line in enumerate(lines) if line.startswith("Fatal Python error")), len(lines))
    spoken = [line.strip() for line in lines[:fatal] if line.strip() and not line.startswith(" ")]
    return " ".join([*spoken[-1:], *lines[fatal : fatal + 1]])[:500]
