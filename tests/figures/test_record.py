"""The record of a study: a folder made anew, with rows, figures, tables and a page."""

from __future__ import annotations

from pathlib import Path

import made_up
import pandas as pd
import pytest

from figures import everything, record
from lipcompare.store.database import Store
from lipcompare.store.restore import restore


def test_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(record, "DRAWS", {name: everything.DRAWS[name] for name in ("images", "solver_swap")})
    store, out = made_up.fill(tmp_path / "r.sqlite", only=("images",)), tmp_path / "results"
    given = ["--store", str(store), "--out", str(out)]
    assert record.main(given) == 1  # solver_swap was not run
    assert "Missing: solver_swap." in capsys.readouterr().out
    assert {path.name for path in (out / "figures").iterdir()} == {
        f"images.{ending}" for ending in ("svg", "png", "tex", "md", "csv")
    }
    rows = pd.read_csv(out / "rows.csv")
    assert len(rows) == 2 * len(made_up.SERIES) + 1 and {"versions", "cpu", "revision", "status"} <= set(rows.columns)
    page = (out / "index.md").read_text()
    assert "![images](figures/images.svg)" in page and (out / "figures" / "images.md").read_text().strip() in page
    assert "| LipMIP | 0 | 0 | 1 | 1 |" in page  # complete, exact, out of memory, cut short
    assert "python -m experiments.solver_swap" in page and str(tmp_path) not in page
    with Store(tmp_path / "again.sqlite") as again:
        restore(again, out / "rows.csv", out / "trace.csv")
    record.main(["--store", str(tmp_path / "again.sqlite"), "--out", str(tmp_path / "again")])
    for name in ("index.md", "rows.csv", "trace.csv"):  # a reader makes the record from its own rows
        ours, theirs = ((folder / name).read_text().splitlines() for folder in (out, tmp_path / "again"))
        assert sorted(theirs) == sorted(ours)
    (out / "old.txt").write_text("of an earlier record")
    record.main(given)
    assert (out / "index.md").read_text() == page and not (out / "old.txt").exists()
    record.main([*given, "--note", "Two more ran beside it."])
    assert "\n\nTwo more ran beside it.\n\n" in (out / "index.md").read_text()


def test_what_is_no_record_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = made_up.fill(tmp_path / "r.sqlite", only=("images",))
    (tmp_path / "index.md").write_text("# Mine")
    assert record.main(["--store", str(store), "--out", str(tmp_path)]) == 2
    assert "was not made by" in capsys.readouterr().err and (tmp_path / "index.md").read_text() == "# Mine"
    made_up.Store(tmp_path / "empty.sqlite").close()
    assert record.main(["--store", str(tmp_path / "empty.sqlite"), "--out", str(tmp_path / "new")]) == 2
    assert "has no finished cell" in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_nothing_is_lost_by_making_it_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "DRAWS", {"images": everything.DRAWS["images"]})
    store, out = made_up.fill(tmp_path / "r.sqlite", only=("images",)), tmp_path / "results"
    assert record.main(["--store", str(store), "--out", str(out)]) == 0
    page = (out / "index.md").read_text()

    def fails(settings: object) -> list[Path]:
        raise KeyboardInterrupt

    monkeypatch.setattr(record, "DRAWS", {"images": fails})
    with pytest.raises(KeyboardInterrupt):
        record.main(["--store", str(store), "--out", str(out)])
    assert (out / "index.md").read_text() == page and {p.name for p in tmp_path.iterdir()} >= {"r.sqlite", "results"}
    assert not (tmp_path / "results.partial").exists()
    inside = made_up.fill(out / "r.sqlite", only=("images",))
    assert record.main(["--store", str(inside), "--out", str(out)]) == 2
    assert inside.exists() and "keep the store elsewhere" in capsys.readouterr().err
    assert record.main(["--store", str(store), "--out", str(store)]) == 2
    assert "is a file" in capsys.readouterr().err
