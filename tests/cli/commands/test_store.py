"""The commands that read a results store: what they list, write and draw, and one sentence per mistake."""

from __future__ import annotations

import json
import re
from pathlib import Path

import made_up
import pandas as pd
import pytest
from command_line import ok, run
from made_up import member, record

from lipcompare.report.pages import PLOTS
from lipcompare.store import export
from lipcompare.store.database import Store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli results")
    made_up.fill(folder / "r.sqlite")
    Store(folder / "empty.sqlite").close()
    with Store(folder / "r.sqlite", read_only=True) as store:
        export.export(store, folder / "exported.csv")
    (folder / "text.sqlite").write_text("not a database, but long enough to be read as the header of one, and longer")
    return folder


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def flat(text: str) -> str:
    return " ".join(text.split())


def test_all_of_a_store_is_an_overview_and_the_first_rows() -> None:
    out = ok("results", "r.sqlite")
    assert re.search(r"^ tiny_width +3 +8 +24 +24 +7\.7 s", out, re.MULTILINE), out
    assert re.search(r"^ unfinished +1 +1 +1 +0 ", out, re.MULTILINE)
    with Store("r.sqlite", read_only=True) as store:
        assert f"20 of {len(store.frame())} rows: --limit 0 shows all" in out
    assert "rows: --limit" not in ok("results", "r.sqlite", "--limit", "0")


def test_rows_are_proved_numbers_and_sentences() -> None:
    out = ok("results", "r.sqlite", "--study", "tiny_width", "--task", "net16")
    assert re.search(r"net16 0.1 16 +LipMIP +1\.8000 +2\.4000 +25.00% +80 ms +It ended: time_limit <at once>\.", out), (
        out
    )
    assert re.search(r"net16 0.1 16 +attack +1\.9799 +- +- +1.3 s +complete", out), out
    assert len(re.findall(r"net16 0.1 16", out)) == len(made_up.SERIES)
    pending = ok("results", "r.sqlite", "--status", "pending")
    assert re.search(r"^ t +lbp +- +- +- +- +pending", pending, re.MULTILINE), pending


def test_filters_add_up_and_their_values_are_alternatives() -> None:
    def found(*arguments: str) -> list[tuple[str, str]]:
        rows = json.loads(ok("results", "r.sqlite", "--json", *arguments))["rows"]
        return [(row["study"], row["series"]) for row in rows]

    assert sorted(found("-s", "images", "-m", "sdp", "-m", "bab")) == [("images", "bab")] * 2 + [("images", "sdp")] * 2
    assert found("-s", "images", "-m", "naiveub") == found("-s", "images", "-m", "NaiveUB")
    assert {series for _, series in found("--status", "time limit")} == {"LipMIP"}
    assert found("--status", "crashed") == []
    assert "None of the" in ok("results", "r.sqlite", "--status", "crashed")


def test_json_has_null_where_nothing_is_proved() -> None:
    (row,) = json.loads(ok("results", "r.sqlite", "-s", "images", "-k", "0.1 0", "-m", "attack", "--json"))["rows"]
    assert row["upper"] is None and row["lower"] == pytest.approx(1.98) and row["status"] == "complete"
    assert row["versions"] == {"torch": "2.13"} and row["options"] == {"tightening": "crown"}


def test_exports(tmp_path: Path) -> None:
    rows, points = tmp_path / "new" / "rows.csv", tmp_path / "points.csv"
    out = ok("results", "r.sqlite", "-s", "radius", "-m", "sdp", "--export", str(rows))
    assert flat(out) == f"2 rows written to {rows}."  # and no table
    frame = pd.read_csv(rows)
    assert frame["series"].tolist() == ["sdp", "sdp"] and {"versions", "cpu", "label.eps"} <= set(frame.columns)
    ok("results", "r.sqlite", "-s", "radius", "-m", "sdp", "--export", str(points), "--trace")
    assert pd.read_csv(points)["step"].value_counts().to_dict() == dict.fromkeys(range(4), 2)
    pytest.importorskip("pyarrow")
    ok("results", "r.sqlite", "-m", "sdp", "--export", str(tmp_path / "rows.parquet"))
    assert set(pd.read_parquet(tmp_path / "rows.parquet")["series"]) == {"sdp"}


def test_forgotten_cells_run_again(tmp_path: Path) -> None:
    store = str(made_up.fill(tmp_path / "r.sqlite"))
    assert "1 cell deleted" in flat(ok("results", store, "-s", "images", "-k", "0.1 1", "-m", "bab", "--forget"))
    (row,) = json.loads(ok("results", store, "--status", "pending", "-s", "images", "--json"))["rows"]
    assert row["series"] == "bab" and row["task"].endswith("0.1 1")
    assert "0 cells deleted" in flat(ok("results", store, "-s", "unfinished", "--forget"))


def test_the_report(tmp_path: Path) -> None:
    with Store(tmp_path / "r.sqlite") as store:
        store.declare("s", [member()])
        store.put(record(lower=1.0, upper=2.0))
    out = ok("report", str(tmp_path / "r.sqlite"), "-o", str(tmp_path / "page"))
    assert "index.html" in out and '<h2 id="s">' in (tmp_path / "page" / "index.html").read_text()


@pytest.mark.parametrize("kind", PLOTS)
def test_pictures(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "new" / f"{kind}.png"
    done = run("plot", "r.sqlite", "--kind", kind, "--study", "tiny_width", "-o", str(path))
    said = done.stderr.replace("\n", "")
    assert done.exit_code == 0 and f"Written: {path}" in said and f"Made the folder {path.parent}" in said
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("command", ["results", "report", "plot"])
def test_help_teaches(command: str) -> None:
    out = ok(command, "--help")
    assert out.count(f"lipcompare {command} results.sqlite") >= 2 and "Exit codes" in out and "130" in out
    if command == "plot":
        assert all(re.search(rf"^ {kind} +\w", out, re.MULTILINE) for kind in PLOTS)


MISTAKES = [
    (["results", "missing.sqlite"], "There is no results store missing.sqlite: run a study first"),
    (["results", "empty.sqlite", "-s", "x"], "Unknown study 'x'"),
    (["results", "text.sqlite"], "is not a results store"),
    (["results", "exported.csv"], "lipcompare results NEW.sqlite --import exported.csv makes one of it"),
    (["results", "r.sqlite", "-s", "tiny_wdth"], "Did you mean 'tiny_width'?"),
    (["results", "r.sqlite", "-m", "LipMP"], "Did you mean 'LipMIP'?"),
    (["results", "r.sqlite", "-k", "width=7"], "No task's name contains 'width=7'"),
    (["results", "r.sqlite", "--status", "timelimit"], "Did you mean 'time_limit'?"),
    (["results", "r.sqlite", "--limit", "-1"], "0 shows all rows"),
    (["results", "r.sqlite", "--export", "rows.xlsx"], "must be .csv or .parquet"),
    (["results", "r.sqlite", "--export", "r.sqlite/rows.csv"], "check its folder"),
    (["results", "r.sqlite", "--trace"], "--trace goes with --export"),
    (["results", "r.sqlite", "--forget"], "--forget needs --study"),
    (["results", "r.sqlite", "-m", "bab", "--forget", "--export", "x.csv"], "exclude each other"),
    (["results", "missing.sqlite", "-m", "bab", "--forget"], "There is no results store"),
    (["report", "missing.sqlite"], "There is no results store"),
    (["report", "empty.sqlite"], "has no study to report on"),
    (["report", "r.sqlite", "-o", "r.sqlite/page"], "check its folder"),
    (["plot", "r.sqlite", "--kind", "parteo", "-o", "p.png"], "Did you mean 'pareto'?"),
    (["plot", "r.sqlite", "-o", "p.jpeg"], "must be .png, .pdf or .svg"),
    (["plot", "r.sqlite", "-s", "unfinished", "-o", "p.png"], "no cell has proved anything yet"),
    (["plot", "r.sqlite", "--kind", "sweep", "-s", "images", "-o", "p.png"], "there is no sweep to draw"),
    (["plot", "r.sqlite", "-o", "r.sqlite/p.png"], "name a file in a folder you may write to"),
]


@pytest.mark.parametrize(("arguments", "says"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_a_mistake_gets_one_sentence_that_names_the_fix(arguments: list[str], says: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert says in flat(result.stderr) and result.stderr.startswith("Error: ")
    assert result.stdout == "" and not Path("missing.sqlite").exists()


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    result = run("results", "r.sqlite", "--export", "rows.parquet")
    assert result.exit_code == 2 and "pip install 'lipcompare[experiments]'" in result.stderr


def test_a_damaged_store_is_read_and_repaired(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    with Store(path) as store:
        store.declare("s", [member(), member("b", task="other")])
        store.put(record())
        store.put(record("b", options={"whole": 1}))
        store._connection.execute("PRAGMA journal_mode = DELETE")
    path.write_bytes(path.read_bytes().replace(b'{"tightening": "crown"}', b'{"tightening": "crown"!'))
    for command in (["results", str(path)], ["report", str(path), "-o", str(tmp_path / "out")]):
        result = run(*command)
        assert result.exit_code == 0 and "whole are 1 cells" in flat(result.stderr), result.output
        assert "--repair keeps them" in flat(result.stderr)
    assert "is repaired: whole are 1 cells" in flat(ok("results", str(path), "--repair"))
    result = run("results", str(path), "--json")
    assert result.exit_code == 0 and "damaged" not in result.stderr
    assert run("results", str(path), "--repair", "--forget", "-s", "s").exit_code == 2


def test_exported_rows_make_a_store_again(tmp_path: Path) -> None:
    rows, trace = str(tmp_path / "rows.csv"), str(tmp_path / "trace.csv")
    ok("results", "r.sqlite", "--export", rows)
    ok("results", "r.sqlite", "--trace", "--export", trace)
    out = flat(ok("results", str(tmp_path / "new.sqlite"), "--import", rows, "--import-trace", trace))
    assert re.fullmatch(r"\d+ cells put into .*new\.sqlite, \d+ names of problems .* was there stayed\.", out), out
    assert "tiny_width" in ok("results", str(tmp_path / "new.sqlite"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--import", "rows.csv"), "rows.csv cannot be read"),
        (("--import", "rows.csv", "--json"), "--import goes alone"),
        (("--import", "rows.csv", "--repair"), "--repair goes alone"),
        (("--import-trace", "trace.csv"), "--import-trace goes with --import FILE"),
    ],
)
def test_imports_that_make_no_sense(arguments: tuple[str, ...], sentence: str) -> None:
    result = run("results", "r.sqlite", *arguments)
    assert result.exit_code == 2 and sentence in flat(result.stderr), result.stderr
