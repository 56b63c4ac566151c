"""Stores of other schemas are brought up to date, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up import member, record

from lipcompare.store import schema
from lipcompare.store.database import Store, StoreError


def test_a_store_of_the_first_schema_is_read_and_brought_up_to_date(path: Path) -> None:
    with Store(path) as store:
        store.put(record())
        store.declare("s", [member(), member("pending", series="x")])
        store._connection.execute("ALTER TABLE members DROP COLUMN problem")
        store._connection.execute("PRAGMA user_version = 1")
    with Store(path, read_only=True) as store:
        assert len(store.frame("s")) == 2
    with Store(path) as store:
        assert store._connection.execute("PRAGMA user_version").fetchone()[0] == schema.SCHEMA_VERSION
        problems = store._connection.execute("SELECT problem FROM members ORDER BY key").fetchall()
        assert [tuple(row) for row in problems] == [("p",), ("",)]


def test_a_newer_schema_is_refused(path: Path) -> None:
    with Store(path) as store:
        store._connection.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    with pytest.raises(StoreError, match=r"schema version 3 .* reads up to 2"):
        Store(path)
