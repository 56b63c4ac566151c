"""Every figure draws what a store has, in three formats, and says what is missing."""

from __future__ import annotations

import dataclasses
import re
import runpy
from pathlib import Path

import made_up
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from figures import (
    ablations,
    branching,
    everything,
    images,
    monotonicity,
    pareto,
    radius,
    relaxation_sweeps,
    solver_swap,
    style,
    tiny_cnn,
)
from lipcompare.errors import LipcompareError


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> style.Settings:
    folder = tmp_path_factory.mktemp("figures")
    return style.Settings(made_up.fill(folder / "r.sqlite"), folder / "out")


OWN = ("branching", "monotonicity", "relaxation_sweeps", "solver_swap")
"""Drawn from what their experiments computed, in tests of their own."""


@pytest.mark.parametrize("name", [name for name in everything.DRAWS if name not in OWN])
def test_figures(settings: style.Settings, name: str) -> None:
    if name != "pareto":  # one of them in all formats
        settings = dataclasses.replace(settings, formats=("png",))
    paths = list(everything.DRAWS[name](settings))
    assert {p.suffix for p in paths} >= {f".{kind}" for kind in settings.formats}
    assert all(p.stat().st_size > 50 for p in paths)
    for path in paths:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.width <= style.PAGE * 200 + 1 and len(image.convert("L").getcolors(256) or []) > 8


def test_means_are_over_the_same_problems() -> None:
    """What is compared on fewer problems would look better, or worse, than it is."""
    rows = pd.DataFrame(
        {"task": ["a", "b", "b"], "series": ["ours", "ours", "theirs"], "ratio": [4.0, 1.0, 2.0],
         "seconds": 1.0, "status": "complete"}
    )  # fmt: skip
    found = ablations.means(rows)
    assert found["ratio"].to_dict() == {"ours": 1.0, "theirs": 2.0} and (found["tasks"] == 1).all()
    apart = ablations.means(rows[~((rows["task"] == "b") & (rows["series"] == "ours"))])
    assert apart["tasks"].tolist() == [1, 1]


def test_every_name_in_the_document_is_drawn() -> None:
    text = (Path(__file__).parents[2] / "docs" / "study.md").read_text()
    listed = text[text.index("| name | question |") : text.index("*Seconds* is the limit")]
    rows = [line.split("|")[1] for line in listed.splitlines()[2:] if "|" in line]
    names = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert names == set(everything.DRAWS)
    for name in names:  # each is a script of its own
        source = (Path(__file__).parents[2] / "figures" / f"{name}.py").read_text()
        assert f"\npython -m figures.{name}\n" in source and "sys.exit(main(draw, __doc__))" in source, name


def test_an_unknown_figure_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert everything.main(["profle"]) == 2 and "Did you mean 'profile'?" in capsys.readouterr().err


def test_equal_results_give_equal_files(settings: style.Settings, tmp_path: Path) -> None:
    again = style.Settings(settings.store, tmp_path)
    for one, other in zip(radius.draw(settings), radius.draw(again), strict=True):
        assert one.read_bytes() == other.read_bytes(), one


def test_a_missing_study_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--store", str(tmp_path / "no.sqlite"), "--out", str(tmp_path / "out")]
    assert style.main(pareto.draw, "about", arguments) == 2
    assert "There is no results store" in capsys.readouterr().err
    store = made_up.Store(tmp_path / "empty.sqlite")
    store.close()
    with pytest.raises(LipcompareError, match=r"python -m experiments\.ablations"):
        style.Results.read(style.Settings(tmp_path / "empty.sqlite"), "ablation_cuts")


def test_a_figure_is_a_script_of_its_own(
    settings: style.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["tiny_cnn", "--store", str(settings.store), "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(tiny_cnn.__file__), run_name="__main__")
    assert {path.stem for path in tmp_path.iterdir()} == {"tiny_cnn"}
    assert "tiny_cnn.svg" in capsys.readouterr().out


def test_everything_draws_what_there_is(
    settings: style.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = {name: everything.DRAWS[name] for name in ("images", "radius", "solver_swap")}
    monkeypatch.setattr(everything, "DRAWS", draws)
    arguments = ["--store", str(settings.store), "--out", str(tmp_path / "out")]
    assert everything.main(arguments) == 1  # the last has no results
    assert (tmp_path / "out" / "radius.svg").exists() and (tmp_path / "out" / "images.tex").exists()


def solves() -> pd.DataFrame:
    """Two solvers on two programs with two kinds of big-Ms; one solver's licence is too small for one program."""
    ends = {
        ("highs", "crown"): [("optimal", 0.5), ("time_limit", 2.0)], ("highs", "lp"): [("optimal", 0.5), ("cutoff", 1)],
        ("gurobi", "crown"): [("optimal", 0.1), ("optimal", 0.2)],
        ("gurobi", "lp"): [("optimal", 0.1), ("licence_too_small", None)],
    }  # fmt: skip
    rows = [
        {"solver": solver, "tightening": level, "problem": f"random_w{k}@0.3", "status": status, "seconds": seconds,
         "binaries": 10 * (k + 1), "time_limit": 2.0}
        for (solver, level), runs in ends.items() for k, (status, seconds) in enumerate(runs)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_solver_table_counts_what_was_proved(tmp_path: Path) -> None:
    table = solver_swap.table(solves())
    rows = {name: [(c.text, c.best) for c in cells] for name, cells in table.rows}
    assert rows["highs"] == [("1/2", False), ("2.5", False), ("2/2", True), ("1.5", False)]
    assert rows["gurobi"] == [("2/2", True), ("0.3", False), ("1/1", False), ("0.1", False)]
    with style.style():
        solver_swap.figure(solves()).savefig(tmp_path / "solver_swap.png")
    assert (tmp_path / "solver_swap.png").stat().st_size > 1000
    style.save_table(table, style.Settings(out=tmp_path), "solver_swap")
    written = pd.read_csv(tmp_path / "solver_swap.csv").set_index("solver")
    assert written.loc["highs", "big-Ms: lp best"] == "proved"


def test_the_branching_table_says_who_was_stopped(tmp_path: Path) -> None:
    ends = {"lbp, area": (12.0, "time_limit", 90), "sdp, moment": (10.0, "exact", 7)}
    points = [
        {"problem": "net@0.1", "variant": name, "seconds": s, "lower": 9.5, "upper": upper * 2 / s, "status": None}
        for name, (upper, _, _) in ends.items() for s in (0.5, 1.0)
    ]  # fmt: skip
    last = [
        {"problem": "net@0.1", "variant": name, "seconds": 2.0, "lower": 9.9, "upper": upper, "status": status,
         "nodes": nodes}
        for name, (upper, status, nodes) in ends.items()
    ]  # fmt: skip
    frame = pd.DataFrame([*points, *last])
    rows = {name: [(c.text, c.best) for c in cells] for name, cells in branching.table(frame).rows}
    assert rows["lbp, area"] == [("12", False), ("2†", False), ("90", False)]
    assert rows["sdp, moment"] == [("10", True), ("2", False), ("7", False)]
    with style.style():
        made = branching.figure(frame)
        made.savefig(tmp_path / "branching.png")
    assert made.get_suptitle() == "sdp, moment is exact, in 2 s"
    assert (tmp_path / "branching.png").stat().st_size > 1000


def test_the_image_table_says_how_many_examples(settings: style.Settings) -> None:
    caption = images.caption(made_up.frame(settings.store, "images"))
    assert caption.endswith("at most 10 s per image and method: digits (2 test images; test accuracy 90.0%)")


def test_the_sweeps_say_which_relaxation_bounded_all_and_is_the_tightest() -> None:
    """Neither one that leaves problems out nor one with cuts counts."""
    ends = {"lbp": [(8.0, 1.0), (2.0, 1.0)], "sdp": [(2.0, 2.0), (2.0, 8.0)], "lipsdp": [(1.0, 1.0), (np.nan, 1.0)],
            "sdp+cuts": [(1.0, 9.0), (1.0, 9.0)]}  # fmt: skip
    rows = [{"method": m, "upper": u, "seconds": s} for m, each in ends.items() for u, s in each]
    assert relaxation_sweeps.message(pd.DataFrame(rows)) == "sdp is 2 times tighter than paper, in 4 times the time"


def test_the_solvers_picture_says_who_is_the_quickest_of_those_that_prove_most() -> None:
    def rows(**ends: list[tuple[str, float]]) -> pd.DataFrame:
        return pd.DataFrame([{"solver": n, "status": s, "seconds": t} for n, each in ends.items() for s, t in each])

    both, one = [("optimal", 2.0), ("optimal", 2.0)], [("optimal", 0.1), ("time_limit", 9.0)]
    four = [("optimal", 8.0), ("cutoff", 8.0)]
    said = "gurobi is 4 times faster than highs and proves as many programs"
    assert solver_swap.message(rows(highs=four, gurobi=both, pulp=one)) == said
    assert solver_swap.message(rows(highs=one, gurobi=both)) == "gurobi proves most programs: 2"
    refused = rows(gurobi=[("no_licence", 0.0)], highs=[("time_limit", 9.0)])
    assert solver_swap.message(refused) == "No solver proved a program"


def test_the_monotonicity_picture_says_who_decides_most() -> None:
    rows = [
        (m, u) for m, each in {"ibp": (0.8, 1.0), "lbp": (0.5, 0.4), "lbp-halved": (0.0, 0.1)}.items() for u in each
    ]
    frame = pd.DataFrame(rows, columns=["method", "undecided"])
    assert monotonicity.message(frame) == "lbp-halved decides 95% of the directions, paper 55%"
    alone = frame[frame["method"] == "lbp"]
    assert monotonicity.message(alone) == "paper decides 55% of the directions"
