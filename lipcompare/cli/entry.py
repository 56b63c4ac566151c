"""Entry point of the command ``lipcompare``: what signals do is settled before anything else is loaded."""

import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

_AGAIN = 0.05
"""Seconds after which a signal that met an import, or a deletion, is looked at again."""


def main() -> None:
    """Run the command line.

    SIGINT (Ctrl-C) and SIGTERM (as ``timeout`` and batch systems send it) end a command with what was proved.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, _answer)
    sys.unraisablehook = _swallowed
    from lipcompare.cli.app import app

    try:
        app()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)  # it would meet a process without handlers, and kill it


def _answer(number: int, frame: FrameType | None) -> None:
    """End the process, or the command once one runs.

    An exception in the middle of an import becomes whatever the module makes of it, so an import is waited for; what
    the process is doing is read off its stack.
    """
    stack = [(f.f_globals.get("__name__"), f.f_code.co_name) for f in _frames(frame)]
    if ("lipcompare.cli.options", "command") not in stack:
        os.write(2, b"Error: Interrupted before anything was proved.\n")
        os._exit(130)
    if ("importlib._bootstrap", "_find_and_load") in stack:
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        return
    raise KeyboardInterrupt


def _swallowed(ignored: "sys.UnraisableHookArgs") -> None:
    """Answer once more: Python drops what is raised while an object is deleted, and in callbacks from C."""
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)
    else:
        sys.__unraisablehook__(ignored)


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
