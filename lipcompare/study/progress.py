"""How far a study is, and how long it will take: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from lipcompare.budget import duration
from lipcompare.store.database import Record
from lipcompare.study.definition import Cell

_BETWEEN_LINES = 15.0


class StudyProgress:
    """A context manager; :meth:`finished` after each cell."""

    def __init__(self, console: Console, cells: Iterable[Cell], *, lanes: int) -> None:
        self._console = console
        self._waiting = Counter(_series(c) for c in cells)
        self._total = sum(self._waiting.values())
        self._lanes = max(1, lanes)
        self._seconds: dict[tuple[str, float], list[float]] = defaultdict(list)
        self._said = time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}"),
            )
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task("running", total=self._total, left="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def finished(self, cell: Cell, record: Record | None) -> None:
        """One cell more is done, by another runner if there is no record."""
        self._waiting[_series(cell)] -= 1
        if record is None:
            return
        self._seconds[_series(cell)].append(record.seconds)
        left = f"about {duration(self.seconds_left())} left"
        what = f"{record.method} on {record.network}: {record.status}, {duration(record.seconds)}"
        done = self._total - sum(self._waiting.values())
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=escape(what), left=left)
        elif time.monotonic() - self._said > _BETWEEN_LINES:
            self._said = time.monotonic()
            self._console.print(f"{done} of {self._total} cells, {left}; last: {escape(what)}", soft_wrap=True)

    def seconds_left(self) -> float:
        """Each waiting cell takes what the method took so far; without any experience, a third of its limit."""
        known = {series: sum(s) / len(s) for series, s in self._seconds.items()}
        total = sum(count * known.get(series, series[1] / 3) for series, count in self._waiting.items())
        return total / self._lanes


def _series(cell: Cell) -> tuple[str, float]:
    return cell.method_name, cell.limits.time
