"""Tables and the report: the best value is marked, nothing is hidden, the page needs nothing outside itself."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import made_up
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from lipcompare import InvalidInput
from lipcompare.display.style import looks, ordered
from lipcompare.report import pages
from lipcompare.report.figures.store import (
    best_known,
    contradictions,
    headline,
    pareto,
    profile,
    sweep,
    tightness,
)
from lipcompare.report.pages import PLOTS
from lipcompare.report.tables import WIDEST, by_group
from lipcompare.store.database import Store, StoreError
from lipcompare.store.filter import Filter


def write_report(path: Path, out: Path) -> Path:
    with Store(path, read_only=True) as kept:
        return pages.write_report(kept, out)


def plot(path: Path, kind: str, *, wanted: Filter = Filter()) -> Figure:
    with Store(path, read_only=True) as kept:
        return pages.plot(kept, kind, wanted=wanted)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up.fill(tmp_path_factory.mktemp("made up") / "r.sqlite")


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


def test_a_contradiction_is_found_and_named(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = made_up.frame(store, "tiny_depth")
    assert contradictions(frame).empty
    without_pictures(monkeypatch)
    monkeypatch.setattr(Store, "frame", lambda *_: frame)
    assert "all upper bounds are above all lower bounds" in write_report(store, tmp_path).read_text()
    first = (frame["series"] == "paper") & (frame["task"] == frame["task"].iloc[0])
    wrong = frame.assign(upper=frame["upper"].where(~first, frame["lower"].max() / 10))
    assert contradictions(wrong)["series"].tolist() == ["paper"]
    monkeypatch.setattr(Store, "frame", lambda *_: wrong)
    assert "1 upper bound contradicts" in write_report(store, tmp_path).read_text()


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


def test_tightness_is_measured_against_the_best_lower_bound(store: Path) -> None:
    frame = made_up.frame(store, "tiny_depth")
    assert len(best_known(frame)) == 3
    ratios = tightness(frame).groupby("series")["ratio"].mean()
    assert ratios["paper"] == pytest.approx(1.5 / 0.9999) and "attack" not in ratios
    nobody = frame.assign(lower=0.0)  # then no upper bound counts as tight because no other is smaller
    assert best_known(nobody).isna().all() and tightness(nobody).empty
    for draw in (pareto, lambda frame: profile(frame, made_up.trace(store, "tiny_depth"))):
        with pytest.raises(InvalidInput, match="nothing to draw"):
            draw(nobody)


def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take long, and some tests are about words."""

    def undrawn(*_: object, **__: object) -> Figure:
        raise InvalidInput("Not drawn.")

    for name in ("over_time", "pareto", "profile", "statuses", "sweep"):
        monkeypatch.setattr(pages, name, undrawn)


class _References(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_one_page_with_its_raw_data(tmp_path: Path) -> None:
    store = made_up.fill(tmp_path / "r.sqlite", only=("tiny_width", "images", "unfinished"))
    page = write_report(store, tmp_path / "report")
    text = page.read_text()
    parser = _References()
    parser.feed(text)
    assert not parser.open
    outside = [ref for ref in parser.found if not ref.startswith(("data:image/svg+xml;base64,", "#"))]
    assert sorted(set(outside)) == ["rows.csv", "trace.csv"]
    assert all((page.parent / ref).is_file() for ref in outside)
    with Store(store, read_only=True) as kept:
        assert len(pd.read_csv(page.parent / "rows.csv")) == len(kept.frame())
        for study in kept.studies()["study"]:
            assert f'<h2 id="{study}">' in text
    assert "a processor" in text and "torch 2.13" in text and "It ended: time_limit &lt;at once&gt;." in text
    assert text.count("<img") == 6  # three of all, two of how bounds fell, a sweep


def test_a_store_without_studies_has_no_report(tmp_path: Path) -> None:
    Store(tmp_path / "r.sqlite").close()
    with pytest.raises(InvalidInput, match="no study"):
        write_report(tmp_path / "r.sqlite", tmp_path / "out")
    (tmp_path / "file").write_text("")
    made_up.fill(tmp_path / "r.sqlite")
    with pytest.raises(StoreError, match="check its folder"):
        write_report(tmp_path / "r.sqlite", tmp_path / "file")


@pytest.mark.parametrize("kind", PLOTS)
def test_single_pictures(store: Path, tmp_path: Path, kind: str) -> None:
    figure = plot(store, kind, wanted=Filter(studies=("tiny_width",)))
    figure.savefig(tmp_path / "p.svg")
    text = (tmp_path / "p.svg").read_text()
    assert len(re.findall("<path", text)) > 20


def test_pictures_that_cannot_be_drawn(store: Path) -> None:
    with pytest.raises(InvalidInput, match="Known: pareto, profile"):
        plot(store, "pie")
    with pytest.raises(InvalidInput, match="Unknown study 'nothing'"):
        plot(store, "pareto", wanted=Filter(studies=("nothing",)))
    with pytest.raises(InvalidInput, match="No cell of"):
        plot(store, "pareto", wanted=Filter(statuses=("numerical",)))
    with pytest.raises(InvalidInput, match="no sweep"):
        plot(store, "sweep", wanted=Filter(studies=("images",)))
    with pytest.raises(InvalidInput, match="nothing to draw"):
        plot(store, "pareto", wanted=Filter(studies=("unfinished",)))


def test_headlines_say_who_is_tighter_and_at_what_cost() -> None:
    assert headline({"paper": (3.0, 1.0), "sdp": (2.0, 1.1), "bab": (1.0, 4.0)}) == (
        "bab is 3 times tighter than paper, in 4 times the time"
    )
    assert headline({"lp": (3.0, 1.0), "sdp": (2.0, 1.1)}) == "sdp is 1.5 times tighter than lp, in the same time"
    assert headline({"paper": (2.001, 1.0), "sdp": (2.0, 1.1)}) == "sdp and paper prove the same"
    assert headline({"paper": (2.0, 1.0), "sdp": (float("nan"), 1.0)}) == ""


def test_a_sweep_tells_lines_apart_and_marks_who_proved_nothing(store: Path) -> None:
    frame = made_up.frame(store, "tiny_width")
    figure = sweep(frame, "label.width", "hidden width", title="nets")
    value, ratio, seconds = figure.axes
    assert figure.get_suptitle() == "At hidden width 64 bab is 1.5 times tighter than paper, in 4 times the time"
    assert figure.get_supxlabel() == "nets" and value.get_ylabel() == "local Lipschitz constant for l_inf"
    silent = [line for line in value.lines if line.get_marker() == "1" and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in silent] == [[64]]  # LipMIP, which ran out of memory there
    drawn = {tuple(np.round(line.get_ydata(), 6)) for line in ratio.lines}
    assert (1.0, 1.0, 1.0) in drawn and (1.5, 1.5, 1.5) in drawn and (9.0, 9.0, 9.0) in drawn
    assert any(np.allclose(line.get_ydata(), 10.0) and line.get_linestyle() == ":" for line in seconds.lines)


def test_every_series_has_its_own_look() -> None:
    many = looks([f"own {k}" for k in range(40)])
    assert len({(look.marker, look.line, look.hollow) for look in many.values()}) == 40
    names = [*made_up.SERIES, "LipLP", "LipSDP", "LipBaB", "paper, BaB", *"abcdefghi"]
    found = looks(names)
    assert len({(look.color, look.marker, look.line) for look in found.values()}) == len(names)
    assert len({(look.marker, look.line, look.hollow) for look in found.values()}) >= len(names) - 2  # in grey
    assert looks(["lbp", "sdp"])["lbp"] == looks(["paper"])["paper"]
    variants = looks([f"{method}, {level}" for method in ("IBP", "lbp", "sdp") for level in "abcdef"])
    assert len({(look.marker, look.line, look.hollow) for look in variants.values()}) == len(variants)
    assert all(look.color == looks([name.split(",")[0]])[name.split(",")[0]].color for name, look in variants.items())


NASTY = "$\\frac{$"


def test_names_are_names_and_no_formulas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither matplotlib's, which ended the report with a traceback, nor a spreadsheet's, nor the page's."""
    for name in (NASTY, "=cmd()|x<b>&\x1b[31m"):
        path = tmp_path / f"{abs(hash(name))}.sqlite"
        labels = {"model": name, "eps": 0.1, "width": 3}
        with Store(path) as store:
            made_up._put(store, name, labels, 2.0, (name, "sdp", "attack"))
            made_up._put(store, name, {**labels, "width": 4}, 3.0, (name, "sdp", "attack"))
        page = write_report(path, tmp_path / "out")
        if name is NASTY:
            plot(path, "values").savefig(tmp_path / "picture.svg")  # the one that no report has
        without_pictures(monkeypatch)  # only matplotlib reads formulas
        assert "<b>&" not in page.read_text()
        rows = pd.read_csv(tmp_path / "out" / "rows.csv", keep_default_na=False)
        for text in (rows["series"][0], rows["study"][0], rows["label.model"][0]):
            assert text[0] not in "=+-@" and "\x1b" not in text
