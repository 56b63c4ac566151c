"""Keeps Ctrl-C Python's own while solvers run.

Gurobi puts a signal handler of its own in place while it optimises, and each solve restores what it found. Of
two solves that overlap, the second finds the first one's handler and leaves it behind for good: from then on
the process prints "Interrupt request received" at Ctrl-C and goes on. PuLP and cvxpy run Gurobi too.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import threading
from collections.abc import Iterator

# The C API, because signal.signal may be called in the main thread only, and solves run in others.
_get = ctypes.pythonapi.PyOS_getsig
_get.restype, _get.argtypes = ctypes.c_void_p, [ctypes.c_int]
_set = ctypes.pythonapi.PyOS_setsig
_set.restype, _set.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]

_lock = threading.Lock()
_running = 0
_handler: int | None = None


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Restores the handler from before the first of the solves that overlap, whenever one of them ends."""
    global _running, _handler
    with _lock:
        if _running == 0:
            _handler = _get(int(signal.SIGINT))
        _running += 1
    try:
        yield
    finally:
        take_back()
        with _lock:
            _running -= 1


def take_back() -> None:
    """Makes Ctrl-C Python's again while solvers go on; nothing where none runs."""
    with _lock:
        if _running:
            _set(int(signal.SIGINT), _handler)
