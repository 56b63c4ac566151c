"""What was exported goes back into a store."""

from __future__ import annotations

import math
from pathlib import Path

import made_up
import pandas as pd
import pytest
from made_up import member, record

from lipcompare import InvalidInput
from lipcompare.store import export
from lipcompare.store.database import Store
from lipcompare.store.restore import Restored, restore


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up.fill(tmp_path_factory.mktemp("restore") / "r.sqlite")


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_store_comes_back_from_its_files(filled: Path, tmp_path: Path, ending: str) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    rows, points = tmp_path / f"rows{ending}", tmp_path / f"trace{ending}"
    with Store(filled, read_only=True) as store:
        export.export(store, rows)
        export.export(store, points, trace=True)
        frame, trace = store.frame(), store.trace()
    finished = frame[frame["status"].notna()]
    assert len(finished) < len(frame)
    with Store(tmp_path / "new.sqlite") as store:
        assert restore(store, rows, points) == Restored(len(frame), finished["key"].nunique())
        order = ["study", "task", "series"]
        again = store.frame().sort_values(order, ignore_index=True)[frame.columns]
        kept = frame.sort_values(order, ignore_index=True)
        numbers = [c for c in kept if str(c).startswith("label.")]  # a label that reads as a number is one
        again[numbers], kept[numbers] = again[numbers].astype(str), kept[numbers].astype(str)
        pd.testing.assert_frame_equal(again.drop(columns=numbers), kept.drop(columns=numbers), check_dtype=False)
        order.append("step")
        traced = store.trace().sort_values(order, ignore_index=True)
        pd.testing.assert_frame_equal(traced, trace.sort_values(order, ignore_index=True))
        assert restore(store, rows, points) == Restored(0, 0)


def test_what_the_store_knows_is_newer(path: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    with Store(path) as store:
        store.declare("s", [member("old"), member("pending", series="x")])
        store.put(record("old", upper=2.0))
        export.export(store, rows)
    with Store(tmp_path / "new.sqlite") as store:
        store.declare("s", [member("new")])
        store.put(record("new", upper=1.0))
        assert restore(store, rows) == Restored(1, 1)  # the cell may serve another study
        frame = store.frame().set_index("series")
        assert frame["key"].to_dict() == {"lbp": "new", "x": "pending"} and frame["upper"]["lbp"] == 1.0
        assert store.done() == {"new", "old"}
    with Store(tmp_path / "other.sqlite") as store:
        store.declare("s", [member("other", series="y", problem="q")])  # another question by the same name
        assert restore(store, rows) == Restored(0, 1)
        assert store.frame()["key"].tolist() == ["other"]


def test_ends_and_texts_survive_a_csv_file(path: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    odd = record("odd", network="=1+1", method="NA", message="-5 of them", rows_upper=(math.inf, 1 / 3))
    with Store(path) as store:
        store.declare("s", [member("odd", task="@task", series="'quoted")])
        store.put(odd)
        export.export(store, rows)
    with Store(tmp_path / "new.sqlite") as store:
        restore(store, rows)
        row = store.frame().iloc[0]
        assert (row["network"], row["method"], row["message"]) == ("=1+1", "NA", "-5 of them")
        assert (row["task"], row["series"]) == ("@task", "'quoted")
        assert math.isnan(row["upper"]) and math.isnan(row["lower"])
        assert store.rows("s")["upper"].dropna().tolist() == [1 / 3]


def test_files_that_are_none_are_named(path: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    with Store(path) as store:
        store.declare("s", [member()])
        export.export(store, rows)
        with pytest.raises(InvalidInput, match="has no finished row"):
            restore(store, rows)
        store.put(record())
        export.export(store, rows)
        text = rows.read_text()
        for name, content, what in (
            ("none.csv", None, "cannot be read"), ("rows.txt", text, "must be .csv or .parquet"),
            ("empty.csv", "", "is not an exported file"), ("other.csv", "a,b\n1,2\n", "has no column study"),
            ("word.csv", text.replace("10.0", "ten"), "is not what was exported"),
            ("torn.csv", text.replace('"{""tightening""', '"{tightening""'), "is not what was exported"),
        ):  # fmt: skip
            if content is not None:
                assert content != text or name == "rows.txt"
                (tmp_path / name).write_text(content)
            with pytest.raises(InvalidInput, match=what):
                restore(store, tmp_path / name)
        with pytest.raises(InvalidInput, match="traces: it has no column step"):
            restore(store, rows, rows)
