"""Results as files for other programs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from made_up import member, record

from lipcompare import InvalidInput
from lipcompare.store import export
from lipcompare.store.database import Store, StoreError


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


def test_texts_in_csv_files_compute_nothing() -> None:
    cells = {
        "=1+1": "'=1+1", "+x": "'+x", "-x": "'-x", "@a": "'@a", "a\x00b\n": "a?b?", "\t=1": "?=1",
        "-": "-", "-3.5": "-3.5", "+1e5": "+1e5", "x=1": "x=1", "": "",
    }  # fmt: skip
    for text, safe in cells.items():
        assert export.csv_cell(text) == safe
    assert export.csv_cell(1.5) == 1.5 and export.csv_cell(None) is None
