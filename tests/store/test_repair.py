"""Of a damaged store every whole row is saved."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import member, record

from lipcompare.store import repair
from lipcompare.store.database import Store, StoreError


def damage(path: Path, text: bytes, instead: bytes) -> None:
    content = path.read_bytes()
    assert text in content
    path.write_bytes(content.replace(text, instead))


def many(path: Path) -> None:
    """Hundreds of cells on many pages, without a log beside the file."""
    with Store(path) as store:
        store.declare("s", [member(f"k{n:04}", task=f"t{n:04}") for n in range(300)])
        for n in range(300):
            store.put(record(f"k{n:04}", message=f"message {n} " * 20))
        store._connection.execute("PRAGMA journal_mode = DELETE")


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_store_gives_its_whole_rows_and_is_repaired(path: Path, seed: int) -> None:
    """Pages are overwritten here and there; every row that is still given is one that was written."""
    many(path)
    with Store(path, read_only=True) as store:
        expected = store.frame().set_index("key")
    content = bytearray(path.read_bytes())
    dice = np.random.default_rng(seed)
    pages = len(content) // 4096
    for page in dice.choice(np.arange(2, pages), 3, replace=False):
        content[page * 4096 : (page + 1) * 4096] = dice.bytes(4096)
    path.write_bytes(bytes(content))
    with Store(path, read_only=True) as store:
        frame = store.frame().set_index("key")
        store.trace()
    done = frame[frame["status"].notna()]
    assert len(done) > 20  # where an inner page of the studies is gone, rows are saved that no study names
    pd.testing.assert_frame_equal(done, expected.loc[done.index], check_dtype=False)
    kept, saved = repair.repair(path)
    assert kept.exists() and saved.cells >= max(50, len(done))
    with Store(path) as store:
        assert store.saved is None and len(store.done()) == saved.cells
        assert (store._connection.execute("PRAGMA integrity_check").fetchone()[0]) == "ok"
        store.put(record("another"))
    with pytest.raises(StoreError, match="move it away"):
        repair.repair(path)


@pytest.mark.parametrize(
    ("text", "instead"),
    [(b'{"tightening": "crown"}', b'{"tightening": "crown"!'), (b'{"eps": 0.1', b'{"eps": \xff\xfe1')],
)
def test_a_row_whose_text_is_damaged_is_left_out(path: Path, text: bytes, instead: bytes) -> None:
    with Store(path) as store:
        store.declare("s", [member(), dataclasses.replace(member("b", task="other"), labels={"x": 1})])
        store.put(record())
        store.put(record("b", options={}))
        store._connection.execute("PRAGMA journal_mode = DELETE")
    damage(path, text, instead)
    with Store(path, read_only=True) as store:
        frame = store.frame()
        assert store.saved is not None
        assert list(frame[frame["status"].notna()]["key"]) == ["b"]


def test_a_store_that_is_cut_off_is_not_sent_round_in_circles(path: Path) -> None:
    """Its repair told to repair it."""
    many(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(StoreError, match="--repair keeps what is whole"):
        Store(path, read_only=True)
    with pytest.raises(StoreError, match=r"Nothing of .* can be read: take a copy"):
        repair.repair(path)


def test_cells_that_no_study_names_are_said_to_be_found_again() -> None:
    assert str(repair.Saved(3, 2, 3)) == "whole are 3 cells, 2 points of traces and 3 entries of studies"
    assert str(repair.Saved(3, 2, 1)).endswith("(run the studies again: cells that are whole are found, not computed)")


def test_a_store_of_which_nothing_is_left_is_one_sentence(path: Path) -> None:
    many(path)
    path.write_bytes(path.read_bytes()[:100] + bytes(9000))
    for work in (lambda: Store(path, read_only=True), lambda: Store(path), lambda: repair.repair(path)):
        with pytest.raises(StoreError, match=re.escape(str(path))):
            work()
    assert path.exists()
