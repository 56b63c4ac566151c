"""The SQLite file under the results store: tables, schema version, and database errors in words."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from lipcompare.errors import LipcompareError

SCHEMA_VERSION = 2
_READABLE = (1, 2)
_APPLICATION = 0x4C697043
"""``LipC``: says in the file's header whose it is."""

BUSY_SECONDS = 60.0
"""How long a writer waits for another one."""

_TABLES = """
CREATE TABLE cells (
    key TEXT PRIMARY KEY,       -- hash of everything that determines the result
    network TEXT NOT NULL, network_hash TEXT NOT NULL, problem_hash TEXT NOT NULL,
    inputs INTEGER NOT NULL, outputs INTEGER NOT NULL, neurons INTEGER NOT NULL, radius REAL NOT NULL,
    norm TEXT NOT NULL, method TEXT NOT NULL, options TEXT NOT NULL,                     -- options: JSON
    lower REAL NOT NULL, upper REAL NOT NULL, rows_lower TEXT NOT NULL, rows_upper TEXT NOT NULL,  -- rows: JSON
    proves TEXT NOT NULL, status TEXT NOT NULL, message TEXT NOT NULL, seconds REAL NOT NULL,
    time_limit REAL NOT NULL, memory_limit INTEGER NOT NULL, gap REAL NOT NULL, seed INTEGER NOT NULL,
    threads INTEGER NOT NULL, device TEXT NOT NULL, dtype TEXT NOT NULL,
    versions TEXT NOT NULL, revision TEXT NOT NULL, cpu TEXT NOT NULL, gpu TEXT NOT NULL, platform TEXT NOT NULL,
    finished TEXT NOT NULL                                                               -- ISO 8601, UTC
);
CREATE TABLE trace (
    key TEXT NOT NULL REFERENCES cells (key) ON DELETE CASCADE,
    step INTEGER NOT NULL, seconds REAL NOT NULL, lower REAL NOT NULL, upper REAL NOT NULL,
    PRIMARY KEY (key, step)
) WITHOUT ROWID;
CREATE TABLE members (          -- which cells a study is made of, under which names
    study TEXT NOT NULL, task TEXT NOT NULL, series TEXT NOT NULL,
    position INTEGER NOT NULL, key TEXT NOT NULL, labels TEXT NOT NULL,                  -- labels: JSON
    problem TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (study, task, series)
) WITHOUT ROWID;
CREATE INDEX members_by_key ON members (key);
"""

_FROM_1_TO_2 = (
    "ALTER TABLE members ADD COLUMN problem TEXT NOT NULL DEFAULT ''",
    "UPDATE members SET problem = coalesce((SELECT problem_hash FROM cells WHERE cells.key = members.key), '')",
)


class StoreError(LipcompareError):
    """The results store cannot be read or written."""


class DamagedStore(StoreError):
    """Parts of the file are no longer what was written."""


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Open a store; a writer makes it if it is missing.

    Raises:
        StoreError: no such file, not a results store, or one of a newer version.
    """
    if read_only and not path.is_file():
        raise StoreError(f"There is no results store {path}: run a study first.")
    with in_words(path):
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        mode = "ro" if read_only else "rwc"
        if read_only and not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists():
            mode = "ro&immutable=1"  # a reader of a write-ahead log needs a file beside it, except where nobody writes
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=BUSY_SECONDS, isolation_level=None
        )
        try:
            _initialise(connection, path, read_only=read_only)
        except (sqlite3.Error, StoreError):
            connection.close()
            raise
    return connection


def _initialise(connection: sqlite3.Connection, path: Path, *, read_only: bool) -> None:
    connection.row_factory = sqlite3.Row
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if read_only and empty:
        raise StoreError(f"The results store {path} is empty: run a study first.")
    if not empty:
        _check(connection, path)  # before anything is written to what may be another program's
    if read_only:
        return
    _log_ahead(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    with transaction(connection):
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables == 0:
            _make_tables(connection)
        elif _check(connection, path) == 1:
            for statement in _FROM_1_TO_2:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _log_ahead(connection: sqlite3.Connection) -> None:
    """A write-ahead log lets readers and a writer work at once, and survives a kill at any instant.

    Of two programs that make the same file one may find it locked, at once, whatever its timeout: SQLite waits for no
    lock that both could wait for.
    """
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
        time.sleep(0.01)


def create(connection: sqlite3.Connection) -> None:
    """Make an empty store of the present version."""
    _make_tables(connection)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _make_tables(connection: sqlite3.Connection) -> None:
    for statement in filter(str.strip, _TABLES.split(";")):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {_APPLICATION}")


def connect_raw(path: Path) -> sqlite3.Connection:
    """Open a store as it is, to read what can be read.

    Raises:
        StoreError: no such file, or another program's.
    """
    if not path.is_file():
        raise StoreError(f"There is no results store {path}: run a study first.")
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    connection.row_factory = sqlite3.Row
    try:
        _check(connection, path)
    except (sqlite3.Error, StoreError):
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> int:
    """The schema version of a store that this program can work with."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != _APPLICATION:
        raise StoreError(f"{path} is a database of another program: name another file.")
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version not in _READABLE:
        raise StoreError(
            f"{path} has schema version {version} and this lipcompare reads up to {SCHEMA_VERSION}: use the lipcompare "
            "that wrote it, or name another file."
        )
    return version


_DAMAGE = ("malformed", "could not decode", "corrupt")


def damage_sentence(path: Path, what: str) -> str:
    """What is wrong and what to do."""
    return f"{path} is damaged ({what}): lipcompare results {path} --repair keeps what is whole."


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; waits for other writers."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself rolls back when the disk is full
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def in_words(path: Path) -> Iterator[None]:
    """Database and file errors as a StoreError that says what to do."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        damaged = any(word in str(error).lower() for word in _DAMAGE)
        raise (DamagedStore if damaged else StoreError)(_sentence(path, error)) from error


def _sentence(path: Path, error: Exception) -> str:
    text = str(error).lower()
    if "is full" in text or "no space" in text or "disk i/o" in text:
        return (
            f"The disk is full or failing ({error}): make room beside {path} and run again; every finished row is safe."
        )
    if "locked" in text:
        return f"Another program kept {path} locked for {BUSY_SECONDS:g} s: end it and run again."
    if any(word in text for word in _DAMAGE):
        return damage_sentence(path, str(error))
    if "not a database" in text:
        if path.suffix in (".csv", ".parquet"):  # what --export writes
            return f"{path} is not a results store: lipcompare results NEW.sqlite --import {path} makes one of it."
        return f"{path} is not a results store ({error}): name another file."
    if (
        isinstance(error, OSError)
        or "readonly" in text
        or "read-only" in text
        or "permission" in text
        or "unable to open" in text
    ):
        return f"{path} cannot be opened or written ({error}): check its folder and its permissions."
    return f"The results store {path} failed: {error}."
