"""Tables mark the best and say what failed."""

from __future__ import annotations

from pathlib import Path

import made_up
import pandas as pd

from lipcompare.display.style import ordered
from lipcompare.report.tables import WIDEST, by_group


def test_tables_mark_the_best_and_say_what_failed(store: Path, tmp_path: Path) -> None:
    frame = made_up.frame(store, "images")
    table = by_group(frame, ["label.model", "label.radius"], "50 % & more_or_less", heading="{}, {}")
    rows = {name: [c.text for c in cells] for name, cells in table.rows}
    best = {name for name, cells in table.rows if cells[0].best}
    assert best == {"bab"}
    assert rows["bab"][0] == "4" and rows["attack"][0] == "≥ 3.959"
    assert rows["LipMIP"] == ["2.400 (1/2)", "0.08†"]  # means over what there is, and not marked as best
    assert list(rows) == ordered(made_up.SERIES)
    paths = table.save(tmp_path, "t")
    assert [p.suffix for p in paths] == [".tex", ".md", ".csv"]
    tex = paths[0].read_text()
    assert r"50 \% \& more\_or\_less" in tex and r"\textbf{4}" in tex and r"$\geq$ 3.959" in tex
    assert r"\toprule" in tex and r"\bottomrule" in tex and tex.count(r"\\") == len(made_up.SERIES) + 2
    assert "**4**" in paths[1].read_text()
    assert pd.read_csv(paths[2]).set_index("method").loc["bab", "digits, 0.1 best"] == "value"


def test_tables_of_cells_without_bounds(store: Path) -> None:
    frame = made_up.frame(store, "unfinished")
    table = by_group(frame.assign(**{"label.model": "net"}), ["label.model"], "c")
    assert [c.text for c in table.rows[0][1]] == ["pending", ""]
    for status, word in {"unsupported": "n/a", "crashed": "crashed", "time_limit": "time out"}.items():
        rows = made_up.frame(store, "ablation_cuts").assign(status=status, lower=0.0, upper=float("inf"))
        assert by_group(rows, ["label.model"], "c").rows[0][1][0].text == word


def test_wide_tables_are_cut_into_blocks(store: Path) -> None:
    frame = pd.concat([made_up.frame(store, study) for study in ("radius", "tiny_width", "tiny_depth")])
    frame = frame.assign(group=frame["task"])
    table = by_group(frame, ["group"], "c")
    assert len(table.groups) * len(table.columns) > WIDEST
    blocks = table.blocks()
    assert [g for block in blocks for g in block.groups] == list(table.groups)
    assert all(len(block.groups) * len(block.columns) <= WIDEST for block in blocks)
    for k, (_, cells) in enumerate(table.rows):
        assert [c for block in blocks for c in block.rows[k][1]] == list(cells)
    assert table.markdown().count("| method |") == table.latex().count(r"\toprule") == len(blocks)
    assert table.html().count("<table>") == len(blocks)


def test_notes_explain_what_is_in_the_table_and_nothing_else(store: Path) -> None:
    frame = made_up.frame(store, "images")
    note = by_group(frame, ["label.model"], "c").note
    assert "means over 2 problems" in note and "Limit per problem and method: 10 s" in note
    assert "≥:" in note and "†:" in note and "(k/n):" in note and "n/a:" not in note and "memory:" not in note
    one = frame[(frame["label.example"] == 0) & (frame["series"] == "bab")]
    note = by_group(one, ["label.model"], "c").note
    assert "means" not in note and "≥:" not in note and "(k/n)" not in note
