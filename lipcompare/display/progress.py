"""News of long work while it runs: a line on a terminal or in a notebook, nothing anywhere else."""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from lipcompare.budget import TracePoint, duration
from lipcompare.rounding import lower_text, upper_text

AFTER = 1.0
"""Seconds after which work counts as long."""

_HINT = "Ctrl-C stops and keeps what is proved"
_BETWEEN = 0.2
"""Seconds between two lines in a notebook, each of which is a message to the browser."""


class Display(NamedTuple):
    """What takes the news of one piece of work: points of its trace, and notes."""

    show: Callable[[TracePoint], None]
    note: Callable[[str], None]


Announce = Callable[[str], Display]
"""Says what the next piece of work is called, and returns what takes the news of it."""


def watched() -> bool:
    """Whether somebody would see the news: a terminal, or a notebook."""
    return sys.stderr.isatty() or _notebook() is not None


@contextlib.contextmanager
def progress(console: Console | None = None, *, after: float = AFTER) -> Iterator[Announce]:
    """A line with the time, the interval so far and what is going on, which goes away in the end.

    Args:
        console: whose terminal to write to (default: that of stderr, or the notebook).
        after: seconds before anything is shown.
    """
    publish = _notebook() if console is None else None
    if publish is not None:
        with _in_notebook(publish, after) as draw:
            yield _announcing(draw)
        return
    console = console or Console(stderr=True, highlight=False)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("Starting")
    starting = threading.Timer(after, bar.start)
    starting.daemon = True
    starting.start()
    try:
        yield _announcing(lambda text: bar.update(task, description=f"{escape(text)}  [dim]{_HINT}[/]"))
    finally:
        starting.cancel()
        starting.join()
        bar.stop()


def _announcing(draw: Callable[[str], None]) -> Announce:
    def announce(work: str) -> Display:
        interval, doing = "", ""

        def redraw() -> None:
            draw("  ".join(part for part in (f"{work}{interval}", doing) if part))

        def show(point: TracePoint) -> None:
            nonlocal interval
            interval = f": from {lower_text(point.lower, 4)} to {upper_text(point.upper, 4)}"
            redraw()

        def note(text: str) -> None:
            nonlocal doing
            doing = text
            redraw()

        redraw()
        return Display(show, note)

    return announce


def _notebook() -> Callable[..., Any] | None:
    """IPython's function that shows something, inside a notebook's kernel; None elsewhere."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    found: Callable[..., Any] = importlib.import_module("IPython.display").display
    return found


@contextlib.contextmanager
def _in_notebook(publish: Callable[..., Any], after: float) -> Iterator[Callable[[str], None]]:
    """A line of text under the cell that is updated in place."""
    began = time.monotonic()
    last = began + after - _BETWEEN
    handle: Any = None

    def draw(text: str) -> None:
        nonlocal last, handle
        now = time.monotonic()
        if now - last < _BETWEEN:
            return
        last = now
        line = {"text/plain": f"{text}  ({duration(now - began)})"}
        if handle is None:
            handle = publish(line, raw=True, display_id=True)
        else:
            handle.update(line, raw=True)

    try:
        yield draw
    finally:
        if handle is not None:
            handle.update({"text/plain": "", "text/html": ""}, raw=True)  # an empty text would leave an empty box
