"""The end of the process that was started: its streams, and its end when the other one is gone."""

from __future__ import annotations

import faulthandler
import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn


def serve() -> tuple[Callable[[], Any], Callable[[object], None]]:
    """Functions that wait for the next message and that send one.

    Nothing that is printed gets between the messages, nor can anyone else read them. The process ends at once, in the
    middle of its work, when there are no more to come, which is also the case when the other one was killed; it says
    why on its standard error if a message cannot be read, as when a class is not importable here.
    """
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    faulthandler.enable()
    threading.excepthook = _thread_failed
    messages: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_read, args=(incoming, messages), daemon=True).start()

    def send(message: object) -> None:
        pickle.dump(message, outgoing)
        outgoing.flush()

    return messages.get, send


def _read(incoming: BinaryIO, messages: queue.Queue[Any]) -> None:
    while True:
        try:
            messages.put(pickle.load(incoming))  # noqa: S301  # from the process that started this one
        except (EOFError, OSError):
            _end_all()


def _end_all() -> NoReturn:
    """End this process and the solvers that it started."""
    if sys.platform != "win32" and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _thread_failed(what: threading.ExceptHookArgs) -> None:
    """Without the messages there is nothing to do: say why and end."""
    threading.__excepthook__(what)
    sys.stderr.flush()
    os._exit(1)
