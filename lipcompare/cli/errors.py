"""Where the command line prints, and how it ends when something goes wrong: one sentence and an exit code."""

from __future__ import annotations

import contextlib
import signal
import sys
import traceback
from collections.abc import Iterator
from typing import NoReturn

import torch
import typer
from rich.console import Console
from rich.markup import escape

from lipcompare.cli import output as cli_output
from lipcompare.errors import Contradiction, LipcompareError, UnsupportedOperation


def console(*, stderr: bool = False) -> Console:
    """As wide as the terminal, or 120 columns where there is none."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else 120, highlight=False)


def note(sentence: str) -> None:
    """A remark for the user, apart from the output."""
    console(stderr=True).print(f"[bold]Note:[/] {escape(sentence)}", soft_wrap=True)


def terminate_as_interrupt() -> None:
    """Have SIGTERM, as ``timeout`` and batch systems send it, end a run as Ctrl-C does: with what was proved."""

    def interrupt(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


@contextlib.contextmanager
def errors(interrupted: str = "Interrupted before anything was proved.") -> Iterator[None]:
    """Every expected failure as one sentence on stderr and its exit code."""
    try:
        yield
    except Contradiction as error:
        _fail(str(error), cli_output.BUG)
    except UnsupportedOperation as error:
        _fail(str(error), cli_output.UNAVAILABLE)
    except LipcompareError as error:
        _fail(str(error), cli_output.BAD_INPUT)
    except (MemoryError, torch.cuda.OutOfMemoryError):
        _fail("Out of memory: take fewer examples, a smaller model, or another machine.", cli_output.OUT_OF_MEMORY)
    except KeyboardInterrupt:
        _fail(interrupted, cli_output.INTERRUPTED)
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:  # noqa: BLE001  # a bug, with its traceback, and not the code of a contradiction
        traceback.print_exception(error)
        _fail("An unexpected error: a bug, please report it with what is printed above.", cli_output.UNEXPECTED)


def _fail(sentence: str, code: int) -> NoReturn:
    console(stderr=True).print(f"[bold red]Error:[/] {escape(sentence)}", soft_wrap=True)
    raise typer.Exit(code)
