"""Every figure draws what a store has, in three formats, and says what is missing."""

from __future__ import annotations

from pathlib import Path

import made_up
import pytest
from PIL import Image

from figures import everything, pareto, radius, style
from lipcompare.errors import LipcompareError


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> style.Settings:
    folder = tmp_path_factory.mktemp("figures")
    return style.Settings(made_up.fill(folder / "r.sqlite"), folder / "out")


@pytest.mark.parametrize("name", everything.FROM_STORE)
def test_figures(settings: style.Settings, name: str) -> None:
    paths = list(everything.FROM_STORE[name](settings))
    assert {p.suffix for p in paths} >= {".pdf", ".svg", ".png"} and all(p.stat().st_size > 50 for p in paths)
    for path in paths:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.width <= style.PAGE * 200 + 1 and len(image.convert("L").getcolors(256) or []) > 8


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


def test_everything_draws_what_there_is(
    settings: style.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style, "FORMATS", ("svg",))
    monkeypatch.setattr(everything, "FROM_STORE", {name: everything.FROM_STORE[name] for name in ("images", "radius")})
    arguments = ["--store", str(settings.store), "--csv", str(tmp_path), "--out", str(tmp_path / "out")]
    assert everything.main(arguments) == 1  # the CSV files are missing
    assert (tmp_path / "out" / "radius.svg").exists() and (tmp_path / "out" / "images.tex").exists()
