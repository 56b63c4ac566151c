"""News of long work: a line on a terminal that goes away, nothing anywhere else."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from lipcompare.budget import TracePoint
from lipcompare.display import progress


def told(*, terminal: bool, after: float) -> str:
    out = io.StringIO()
    with progress.progress(Console(file=out, force_terminal=terminal, width=150), after=after) as announce:
        display = announce("bab [3]")
        display.show(TracePoint(0.1, 1.23456789, 2.0))
        display.note("40 subdomains")
        time.sleep(0.3 if after == 0 else 0.0)
    return out.getvalue()


def test_a_terminal_shows_the_interval_and_what_goes_on() -> None:
    text = told(terminal=True, after=0.0)
    assert "bab [3]: from 1.234 to 2  40 subdomains" in text and "Ctrl-C stops" in text


def test_short_work_and_files_show_nothing() -> None:
    assert "bab" not in told(terminal=True, after=60.0)
    assert told(terminal=False, after=0.0).strip() == ""


def test_nobody_watches_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert not progress.watched()
    monkeypatch.setattr(progress, "_notebook", lambda: print)
    assert progress.watched()


def test_a_notebook_has_one_line_that_is_updated_and_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    class Handle:
        def update(self, line: dict[str, str], *, raw: bool) -> None:
            lines.append(line["text/plain"])

    def publish(line: dict[str, str], *, raw: bool, display_id: bool) -> Handle:
        lines.append(line["text/plain"])
        return Handle()

    monkeypatch.setattr(progress, "_notebook", lambda: publish)
    monkeypatch.setattr(progress, "_BETWEEN", 0.0)
    with progress.progress(after=0.0) as announce:
        announce("sdp").note("row 3")
    assert [line.partition("  (")[0] for line in lines] == ["sdp", "sdp  row 3", ""]
