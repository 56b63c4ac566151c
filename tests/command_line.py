"""The command line as the tests call it."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from lipcompare.cli.app import app


def run(*arguments: str) -> Result:
    """What a call printed, and its exit code."""
    return CliRunner().invoke(app, list(arguments))


def ok(*arguments: str) -> str:
    """What a call that succeeds printed."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout
