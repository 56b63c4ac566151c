"""What can be read of a damaged results store: every row that is whole, and nothing of the others."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lipcompare.store.schema import DamagedStore, StoreError, connect_raw, create, in_words

_GIVE_UP = 20_000
"""Row numbers in a row that cannot be read, after which there are no more rows."""

JSON = ("options", "versions", "rows_lower", "rows_upper")
REAL = ("lower", "upper", "seconds", "radius", "time_limit", "gap")


@dataclasses.dataclass(frozen=True)
class Saved:
    """How much of a damaged store is whole. Cells that no study names any more are found again by a run of theirs."""

    cells: int
    points: int
    members: int

    def __str__(self) -> str:
        text = f"whole are {self.cells} cells, {self.points} points of traces and {self.members} entries of studies"
        again = " (run the studies again: cells that are whole are found, not computed)"
        return text + (again if self.members < self.cells else "")


def salvage(path: Path) -> tuple[sqlite3.Connection, Saved]:
    """A store in memory with the rows of a damaged one that are whole.

    Raises:
        StoreError: nothing of the file can be read as a results store.
    """
    with in_words(path), contextlib.closing(connect_raw(path)) as damaged:
        made = sqlite3.connect(":memory:", isolation_level=None)
        made.row_factory = sqlite3.Row
        create(made)
        try:
            return made, _copy(damaged, made)
        except BaseException:
            made.close()
            raise


def repair(path: str | Path) -> tuple[Path, Saved]:
    """Put what is whole of a damaged store in its place; where the damaged file is kept, and what was saved.

    Raises:
        StoreError: nothing can be read, the folder cannot be written, or an older damaged file is kept there.
    """
    path = Path(path)
    damaged = path.with_name(f"{path.name}.damaged")
    if damaged.exists():
        raise StoreError(f"{damaged} is there already: move it away first.")
    try:
        made, saved = salvage(path)
    except DamagedStore as error:
        raise StoreError(f"Nothing of {path} can be read: take a copy of it, or run the studies again.") from error
    new = path.with_name(f"{path.name}.{os.getpid()}.repaired")
    with in_words(path), contextlib.closing(made):
        try:
            with contextlib.closing(sqlite3.connect(new)) as target:
                made.backup(target)
            for ending in ("", "-wal", "-shm"):  # the log belongs to the damaged file, not to the new one
                part = path.with_name(f"{path.name}{ending}")
                if part.exists():
                    part.rename(damaged.with_name(f"{damaged.name}{ending}"))
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
    return damaged, saved


def _copy(damaged: sqlite3.Connection, made: sqlite3.Connection) -> Saved:
    cells = points = members = 0
    for row in _numbered(damaged, "cells"):
        if _is_whole(row):
            cells += _insert(made, "cells", row)
            for point in _trace(damaged, str(row["key"])):
                points += _insert(made, "trace", point)
    for row in _from_both_ends(damaged):
        if _parses(row["labels"]):
            members += _insert(made, "members", row)
    return Saved(cells, points, members)


def _numbered(connection: sqlite3.Connection, table: str) -> Iterator[dict[str, Any]]:
    """The rows of a table with row numbers, past those that cannot be read."""
    after, failed = 0, 0
    while failed < _GIVE_UP:
        try:
            query = f"SELECT rowid AS number, * FROM {table} WHERE rowid > ? ORDER BY rowid"  # noqa: S608  # a constant
            for row in connection.execute(query, (after,)):
                found = dict(row)
                after, failed = found.pop("number"), 0
                yield found
        except (sqlite3.Error, UnicodeError):
            after, failed = after + 1, failed + 1
        else:
            return


def _trace(connection: sqlite3.Connection, key: str) -> list[dict[str, Any]]:
    """The trace of a cell, whole or not at all."""
    try:
        rows = [dict(row) for row in connection.execute("SELECT * FROM trace WHERE key = ? ORDER BY step", (key,))]
    except (sqlite3.Error, UnicodeError):
        return []
    numbers = all(isinstance(row[name], (int, float)) for row in rows for name in ("seconds", "lower", "upper"))
    return rows if numbers else []


def _from_both_ends(connection: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    """Members, up to what cannot be read, from the first on and from the last on."""
    for order in ("study, task, series", "study DESC, task DESC, series DESC"):
        with contextlib.suppress(sqlite3.Error, UnicodeError):
            for row in connection.execute(f"SELECT * FROM members ORDER BY {order}"):  # noqa: S608  # a constant
                yield dict(row)


def _is_whole(row: dict[str, Any]) -> bool:
    numbers = all(isinstance(row[name], (int, float)) for name in REAL)
    return numbers and isinstance(row["key"], str) and all(_parses(row[name]) for name in JSON)


def _parses(text: object) -> bool:
    try:
        json.loads(text)  # type: ignore[arg-type]  # what is no text is damaged as well
    except (TypeError, ValueError):
        return False
    return True


def _insert(connection: sqlite3.Connection, table: str, row: dict[str, Any]) -> int:
    """1 if the row was taken; one that is there already, or that breaks the schema, is not."""
    names, slots = ", ".join(row), ", ".join("?" * len(row))
    try:
        query = f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({slots})"  # noqa: S608  # names of the schema
        return connection.execute(query, tuple(row.values())).rowcount
    except (sqlite3.Error, UnicodeError):
        return 0
