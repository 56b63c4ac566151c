"""Signals that come before a command has begun, and in the middle of its imports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import typer
from rich.table import Table

import lipcompare
from lipcompare.cli import errors
from lipcompare.errors import InvalidInput

SENTENCE = "Error: Interrupted before anything was proved.\n"

# An object that sends the signal while it is deleted, where Python drops every exception.
DELETED = """
import os, signal, sys, time, types
from lipcompare.cli.entry import main

class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

def bound(given):
    Last()
    time.sleep(60)

sys.modules["lipcompare.cli.commands.bounds"] = types.SimpleNamespace(bound=bound)
main()
"""

# An importer that sends the signal while it loads a module, and says when it is done.
SCRIPT = """
import importlib.abc, importlib.util, os, signal, sys, time
from lipcompare.cli.entry import main

MODULE, NUMBER = sys.argv[1], getattr(signal, sys.argv[2])

class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        return importlib.util.spec_from_loader(name, self) if name == MODULE else None

    def exec_module(self, module):
        os.kill(os.getpid(), NUMBER)
        time.sleep(0.2)
        print("loaded", flush=True)
        module.bound = lambda given: time.sleep(60)

sys.meta_path.insert(0, Finder())
sys.argv[0:3] = ["lipcompare"]
main()
"""


@pytest.mark.parametrize(
    ("module", "number", "out"),
    [
        ("typer", "SIGTERM", ""),
        ("rich.console", "SIGINT", ""),
        ("lipcompare.cli.commands.bounds", "SIGTERM", "loaded\n"),
        ("lipcompare.cli.commands.bounds", "SIGINT", "loaded\n"),
    ],
)
def test_a_signal_during_imports_is_one_sentence(tmp_path: Path, module: str, number: str, out: str) -> None:
    """Before the command begins it ends at once; an import of the command itself is waited for."""
    model = tmp_path / "net.npz"
    model.touch()
    command = [sys.executable, "-c", SCRIPT, module, number, "bound", str(model), "--center", "0", "--eps", "1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, out, SENTENCE)


def test_a_signal_that_meets_a_deletion_is_not_lost(tmp_path: Path) -> None:
    """The command ran on to its end, below the traceback of an ignored KeyboardInterrupt."""
    model = tmp_path / "net.npz"
    model.touch()
    command = [sys.executable, "-c", DELETED, "bound", str(model), "--center", "0", "--eps", "1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", SENTENCE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_an_error_is_printed_changes_nothing(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slow(text: str) -> str:
        os.kill(os.getpid(), number)
        return text

    before = signal.getsignal(number)
    monkeypatch.setattr(errors, "escape", slow)
    with pytest.raises(typer.Exit) as ended, errors.errors():
        raise InvalidInput("a sentence")
    assert ended.value.exit_code == errors.BAD_INPUT and "Error: a sentence" in capsys.readouterr().err
    assert signal.getsignal(number) is before


def test_an_interrupt_while_an_error_is_put_into_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(error: BaseException) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(errors, "summary", interrupted)
    with pytest.raises(typer.Exit) as ended, errors.errors():
        raise OSError
    assert ended.value.exit_code == errors.INTERRUPTED and capsys.readouterr().err == SENTENCE


def test_names_do_not_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """They may come from whoever sent a file; styles of our own stay."""
    table = Table("name")
    table.add_row("a\x1b[2Jb\x07c")
    errors.console().print(table, "d\x9be\rf\ng")
    errors.note("h\x1b]0;title")
    out, err = capsys.readouterr()
    assert "a?[2Jb" in out and "d?e" in out and "\ng" in out and "h?]0;title" in err
    assert not any(unicodedata.category(c) == "Cc" and c != "\n" for c in out + err)


def test_the_package_is_the_command() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "lipcompare", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert said.stdout.strip() == lipcompare.__version__
