"""The report: nothing is hidden, and the page needs nothing outside itself."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import made_up
import pandas as pd
import pytest
from matplotlib.figure import Figure

from lipcompare import InvalidInput
from lipcompare.display.style import looks
from lipcompare.report import pages
from lipcompare.report.facts import contradictions
from lipcompare.report.figures.store import over_time
from lipcompare.report.pages import PLOTS
from lipcompare.store.database import Store, StoreError
from lipcompare.store.filter import Filter


def write_report(path: Path, out: Path) -> Path:
    with Store(path, read_only=True) as kept:
        return pages.write_report(kept, out)


def plot(path: Path, kind: str, *, wanted: Filter = Filter()) -> Figure:
    with Store(path, read_only=True) as kept:
        return pages.plot(kept, kind, wanted=wanted)


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


def test_what_is_far_above_leaves_the_interval_in_view() -> None:
    """The axis began at 1e-300 where the first curve drawn lay so far above that a linear one would begin below 0."""
    points = [("far", 0.0, 400.0), ("far", 0.0, 399.0), ("near", 13.0, 15.0), ("near", 13.5, 14.0)]
    trace = pd.DataFrame(
        {"study": "s", "task": "t", "series": n, "seconds": 0.1 * (k + 1), "lower": low, "upper": high}
        for k, (n, low, high) in enumerate(points)
    )
    frame = pd.DataFrame({"study": "s", "task": "t", "series": ["far", "near"], "seconds": 1.0, "norm": "inf",
                          "proves": "upper", "status": "exact"})  # fmt: skip
    elsewhere = frame.assign(task="not drawn", seconds=0.0)
    figure = over_time(trace, pd.concat([frame, elsewhere, elsewhere]))
    assert figure.get_suptitle() == "far is exact, in 1 s"
    bottom, top = figure.axes[0].get_ylim()
    assert 5 < bottom < 13 and 14 < top < 60
