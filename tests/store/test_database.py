"""The results store: what goes in comes out, whatever happens in between."""

from __future__ import annotations

import dataclasses
import os
import re
import sqlite3
import subprocess
import sys
from functools import partial
from pathlib import Path

import nets
import numpy as np
import pandas as pd
import pytest
import torch
from made_up import member, record

import lipcompare
from lipcompare import InvalidInput, Norm
from lipcompare.fingerprint import Fingerprints
from lipcompare.store import export, repair, schema
from lipcompare.store.database import Store, StoreError
from lipcompare.store.filter import Filter

SMOOTH = (torch.nn.Tanh, torch.nn.Sigmoid, torch.nn.ReLU, torch.nn.LeakyReLU)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "results.sqlite"


def test_what_goes_in_comes_out(path: Path) -> None:
    with Store(path) as store:
        store.declare("study", [member(), member("b", series="ibp")])
        store.put(record())
    with Store(path, read_only=True) as store:
        frame = store.frame("study")
        assert list(frame["series"]) == ["lbp", "ibp"]
        row = frame.iloc[0]
        assert (row["status"], row["label.eps"], row["cpu"]) == ("complete", 0.1, "a processor")
        assert np.isnan([row["lower"], row["upper"]]).all()  # nothing is proved
        assert row["options"] == '{"tightening": "crown"}' and row["versions"] == '{"torch": "2.13"}'
        assert frame.iloc[1]["key"] == "b" and pd.isna(frame.iloc[1]["status"])
        assert store.rows("study")["upper"].fillna(-1).tolist() == [1.5, -1]
        assert store.trace("study")[["step", "seconds", "upper"]].fillna(-1).to_numpy().tolist() == [
            [0, 0.1, -1],
            [1, 0.2, 2],
        ]
        assert store.studies().iloc[0].to_dict() == {"study": "study", "cells": 2, "finished": 1, "seconds": 0.25}
        assert store.frame("other").empty and store.trace("other").empty and store.rows("other").empty


def test_a_finished_cell_stays_and_an_unavailable_one_is_tried_again(path: Path) -> None:
    with Store(path) as store:
        store.put(record(status="unavailable"))
        assert store.done() == set()
        store.put(record(upper=3.0))
        assert store.done() == {"a"}
        store.put(record(upper=4.0, trace=()))
        store.declare("s", [member()])
        assert store.frame()["upper"].tolist() == [3.0] and len(store.trace()) == 2


def test_forget_deletes_cells_with_their_traces(path: Path) -> None:
    with Store(path) as store:
        store.declare("s", [member(), member("b", series="x")])
        for key in "abc":
            store.put(record(key))
        assert store.forget(["b", "b", "not there"]) == 1 and store.done() == {"a", "c"}
        assert store.frame("s")["status"].isna().tolist() == [False, True]  # the study still has its cell
        assert len(store.trace("s")) == 2
        assert store.forget(["a", "c"]) == 2 and store.trace().empty and store.forget([]) == 0


def test_a_filter_selects_rows_and_names_what_is_unknown(path: Path) -> None:
    with Store(path) as store:
        store.declare("s", [member(), member("b", task="eps=0.2", series="x"), member("c", task="eps=0.2")])
        store.put(record())
        store.put(record("b", method="sdp", status="time_limit"))
        frame = store.frame()

    def keys(**fields: tuple[str, ...]) -> list[str]:
        return list(Filter(**fields).select(frame)["key"])

    assert keys() == ["a", "b", "c"]
    assert keys(methods=("sdp",)) == keys(methods=("x",)) == keys(statuses=("time_limit",)) == ["b"]
    assert keys(tasks=("0.2",), studies=("s",)) == ["b", "c"] and keys(tasks=("0.2", "0.1"), methods=("lbp",)) == [
        "a",
        "c",
    ]
    assert keys(statuses=("pending",)) == ["c"] and keys(statuses=("crashed",)) == []
    for fields, says in (
        ({"studies": ("S",)}, "Unknown study 'S'"), ({"methods": ("lpb",)}, "Did you mean 'lbp'"),
        ({"tasks": ("width",)}, "contains 'width'. Such names are: eps=0.1, eps=0.2"),
        ({"statuses": ("timelimit",)}, "Did you mean 'time_limit'"),
    ):  # fmt: skip
        with pytest.raises(InvalidInput, match=re.escape(says)):
            keys(**fields)


def test_members_of_one_name_are_replaced(path: Path) -> None:
    with Store(path) as store:
        store.declare("s", [member("old"), member("other", series="other")])
        store.declare("s", [member("new")])
        assert sorted(store.frame("s")["key"]) == ["new", "other"]
        store.declare("s", [member("newest", problem="another question"), member("b", task="eps=0.2")])
        assert sorted(store.frame("s")["key"]) == ["b", "newest"]


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


def test_two_writers_share_a_file(path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests'); from made_up import *\n"
        "with Store(Path(sys.argv[1])) as store:\n"
        "    for k in range(25): store.put(record(f'{sys.argv[2]}{k}'))\n"
        "    for k in range(25): store.put(record(f'both{k}'))\n"
    )
    root = Path(__file__).resolve().parents[2]
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), name], cwd=root) for name in "xy"]
    assert [w.wait(timeout=120) for w in writers] == [0, 0]
    with Store(path) as store:
        assert len(store.done()) == 75


def test_a_full_disk_is_one_sentence_and_loses_nothing(path: Path) -> None:
    with Store(path) as store:
        store.put(record())
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(StoreError, match=r"make room beside .* every finished row is safe"):
            store.put(record("big", message="x" * 100_000))
        assert store.done() == {"a"}
        store._connection.execute("PRAGMA max_page_count = 100000")
        store.put(record("big", message="x" * 100_000))
    with Store(path) as store:
        assert store.done() == {"a", "big"}


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There is no results store"):
        Store(tmp_path / "missing.sqlite", read_only=True)
    text = tmp_path / "text.sqlite"
    text.write_text("not a database at all, but long enough to be looked at " * 20)
    with pytest.raises(StoreError, match="not a results store"):
        Store(text)
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    for read_only in (True, False):
        with pytest.raises(StoreError, match="another program"):
            Store(foreign, read_only=read_only)
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(text / "below" / "a.sqlite")


def test_a_newer_schema_is_refused(path: Path) -> None:
    with Store(path) as store:
        store._connection.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    with pytest.raises(StoreError, match=r"schema version 3 .* reads up to 2"):
        Store(path)


def test_a_store_that_may_only_be_read(path: Path) -> None:
    with Store(path) as store:
        store.put(record())
    os.chmod(path.parent, 0o555)
    try:
        with Store(path, read_only=True) as store:
            assert store.done() == {"a"}
            with pytest.raises(StoreError, match="cannot be opened or written"):
                store.put(record("b"))
    finally:
        os.chmod(path.parent, 0o755)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_export(path: Path, tmp_path: Path, ending: str) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / "out" / f"rows{ending}"
    with Store(path) as store:
        store.declare("s", [member(), member("pending", series="x")])
        store.put(record())
        assert export.export(store, out) == 2
        read = pd.read_csv(out) if ending == ".csv" else pd.read_parquet(out)
        assert read["series"].tolist() == ["lbp", "x"] and read["upper"].isna().all()
        assert export.export(store, out, trace=True, study="s") == 2


def test_export_says_what_is_wrong(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(path) as store:
        with pytest.raises(InvalidInput, match=r"must be \.csv or \.parquet"):
            export.export(store, tmp_path / "rows.xls")
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreError):
            export.export(store, tmp_path / "file" / "rows.csv")
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(InvalidInput, match=r"pip install 'lipcompare\[experiments\]'"):
            export.export(store, tmp_path / "rows.parquet")


def test_fingerprints_tell_content_not_names() -> None:
    prints = Fingerprints()
    network = nets.dense(0)
    assert prints.of(network) == Fingerprints().of(dataclasses.replace(nets.dense(0), name="other"))
    assert prints.of(network) != prints.of(nets.dense(1))
    assert prints.of(network) != prints.of(nets.dense(0, alpha=0.1))
    assert prints.of(network) != prints.of(network.to("cpu", torch.float32))
    assert len({prints.of(FAMILY(0)) for FAMILY in nets.FAMILIES.values()}) == len(nets.FAMILIES)
    assert prints.of(["ab", "c"]) != prints.of(["a", "bc"]) != prints.of(["a", "b", "c"])
    assert prints.of(1) != prints.of(1.0) != prints.of("1.0") != prints.of(None)
    assert prints.of(Norm.INF) != prints.of(Norm.TWO)
    assert prints.of({"a": 1, "b": 2}) == prints.of({"b": 2, "a": 1}) != prints.of({"a": 2, "b": 1})
    assert prints.of(np.zeros((2, 3))) != prints.of(np.zeros((3, 2)))
    smooth = [lipcompare.load(torch.nn.Sequential(torch.nn.Linear(2, 2), f()), input_shape=(2,)) for f in SMOOTH]
    assert len({prints.of([n.activation(k) for k in n.activations]) for n in smooth}) == len(SMOOTH)
    assert prints.of(partial(max, 1)) != prints.of(partial(max, 2)) != prints.of(partial(min, 2)) != prints.of(max)
    with pytest.raises(TypeError, match="no fingerprint"):
        prints.of(object())


def test_texts_in_csv_files_compute_nothing() -> None:
    cells = {
        "=1+1": "'=1+1", "+x": "'+x", "-x": "'-x", "@a": "'@a", "a\x00b\n": "a?b?", "\t=1": "?=1",
        "-": "-", "-3.5": "-3.5", "+1e5": "+1e5", "x=1": "x=1", "": "",
    }  # fmt: skip
    for text, safe in cells.items():
        assert export.csv_cell(text) == safe
    assert export.csv_cell(1.5) == 1.5 and export.csv_cell(None) is None


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


def test_a_store_of_which_nothing_is_left_is_one_sentence(path: Path) -> None:
    many(path)
    path.write_bytes(path.read_bytes()[:100] + bytes(9000))
    for work in (lambda: Store(path, read_only=True), lambda: Store(path), lambda: repair.repair(path)):
        with pytest.raises(StoreError, match=re.escape(str(path))):
            work()
    assert path.exists()
