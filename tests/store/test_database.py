"""The results store: what goes in comes out, whatever happens in between."""

from __future__ import annotations

import contextlib
import dataclasses
import os
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
from lipcompare import Norm
from lipcompare.fingerprint import Fingerprints
from lipcompare.store import schema
from lipcompare.store.database import Store, StoreError

SMOOTH = (torch.nn.Tanh, torch.nn.Sigmoid, torch.nn.ReLU, torch.nn.LeakyReLU)


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


def test_members_of_one_name_are_replaced(path: Path) -> None:
    with Store(path) as store:
        store.declare("s", [member("old"), member("other", series="other")])
        store.declare("s", [member("new")])
        assert sorted(store.frame("s")["key"]) == ["new", "other"]
        store.declare("s", [member("newest", problem="another question"), member("b", task="eps=0.2")])
        assert sorted(store.frame("s")["key"]) == ["b", "newest"]


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


@pytest.mark.parametrize(("says", "tries"), [("database is locked", 3), ("disk I/O error", 1)])
def test_of_two_that_make_a_file_one_waits(says: str, tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # One of two writers of a new file ended with "locked for 60 s" in the first instant.
    asked: list[str] = []

    class Busy:
        def execute(self, statement: str) -> None:
            asked.append(statement)
            if len(asked) < 3:
                raise sqlite3.OperationalError(says)

    with contextlib.nullcontext() if tries == 3 else pytest.raises(sqlite3.OperationalError):
        schema._log_ahead(Busy())  # type: ignore[arg-type]
    assert len(asked) == tries
    monkeypatch.setattr(schema, "BUSY_SECONDS", -1.0)
    asked.clear()
    with pytest.raises(sqlite3.OperationalError, match=says):
        schema._log_ahead(Busy())  # type: ignore[arg-type]


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
