"""Where the command line prints, and how it ends when something goes wrong: one sentence and an exit code."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from typing import IO, NoReturn, TextIO, cast

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment

from lipcompare.errors import Contradiction, LipcompareError, UnsupportedOperation, is_out_of_memory, shown, summary

OK, BUG, BAD_INPUT, UNAVAILABLE, OUT_OF_MEMORY, UNEXPECTED, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
"""The exit codes."""

NOTHING_PROVED = "Interrupted before anything was proved."


class _Piped(io.TextIOBase):
    """A stream that is no terminal: lines without the blanks that fill a table, names in whatever it can encode."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._encoding = stream.encoding or "utf-8"

    @property
    def encoding(self) -> str:  # type: ignore[override]  # of a stream that has one
        return self._encoding

    def write(self, text: str) -> int:
        trimmed = re.sub(r" +(?=\n)", "", text)
        self._stream.write(trimmed.encode(self._encoding, "backslashreplace").decode(self._encoding))
        return len(text)

    def flush(self) -> None:
        if not self._stream.closed:  # the last time when this is collected, which may be later
            self._stream.flush()


_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


class _Plain(Console):
    """Shows control characters as question marks: names may come from whoever sent a file, and terminals obey."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else _CONTROL.sub("?", text), style, control)


def console(*, stderr: bool = False) -> Console:
    """As wide as the terminal, or 120 columns where there is none."""
    stream = sys.stderr if stderr else sys.stdout
    if stream.isatty():
        return _Plain(stderr=stderr, highlight=False, emoji=False)
    return _Plain(file=cast(IO[str], _Piped(stream)), width=120, highlight=False, emoji=False)


def note(sentence: str) -> None:
    """A remark for the user, apart from the output."""
    console(stderr=True).print(f"[bold]Note:[/] {escape(sentence)}", soft_wrap=True)


@contextlib.contextmanager
def errors(interrupted: str = NOTHING_PROVED) -> Iterator[None]:
    """Every expected failure as one sentence on stderr and its exit code; an interrupt while it is made is one too."""
    try:
        with _sentences(interrupted):
            yield
    except KeyboardInterrupt:
        _fail(interrupted, INTERRUPTED)


@contextlib.contextmanager
def _sentences(interrupted: str) -> Iterator[None]:
    try:
        yield
    except Contradiction as error:
        _fail(str(error), BUG)
    except UnsupportedOperation as error:
        _fail(str(error), UNAVAILABLE)
    except LipcompareError as error:
        _fail(str(error), BAD_INPUT)
    except KeyboardInterrupt:
        _fail(interrupted, INTERRUPTED)
    except (typer.Exit, typer.Abort):
        raise
    except OSError as error:
        where = f"{shown(error.filename)}: " if isinstance(error.filename, (str, os.PathLike)) else ""
        _fail(f"{where}{error.strerror or summary(error)}: check the path and its permissions.", BAD_INPUT)
    except Exception as error:  # noqa: BLE001  # a bug, with its traceback, and not the code of a contradiction
        if is_out_of_memory(error):
            _fail("Out of memory: take fewer examples, a smaller model, or another machine.", OUT_OF_MEMORY)
        traceback.print_exception(error)
        _fail("An unexpected error: a bug, please report it with what is printed above.", UNEXPECTED)


def _fail(sentence: str, code: int) -> NoReturn:
    with _deaf():
        console(stderr=True).print(f"[bold red]Error:[/] {escape(sentence)}", soft_wrap=True)
    raise typer.Exit(code)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """No signal interrupts the last words of a command that ends anyway."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals go elsewhere
        return
    heard = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)
