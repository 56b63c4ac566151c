"""The coverage experiments run on what needs no files, and their figure draws what they write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import measured, monotonicity, zoo
from figures import monotonicity as figure
from figures.style import Results, Settings, main


def test_monotonicity_study_on_the_synthetic_table(tmp_path: Path) -> None:
    arguments = ["--store", str(tmp_path / "r.sqlite"), "--examples", "6", "--methods", "ibp;lbp"]
    assert measured.main(monotonicity.build, "", arguments, check=monotonicity.check) == 0
    settings = Settings(tmp_path / "r.sqlite", tmp_path)
    frame = figure.shares(Results.read(settings, "monotonicity"))
    assert len(frame) == 12 and (frame["examples"] == 6).all()
    shares = frame[["increasing", "decreasing", "constant", "neither", "undecided"]].sum(axis=1)
    np.testing.assert_allclose(shares, 1.0)
    lbp = frame[frame["method"] == "lbp"].set_index("feature")
    assert lbp.loc["rising", "increasing"] == 1 and lbp.loc["falling", "decreasing"] == 1
    assert len(list(figure.draw(settings))) == 6
    assert (tmp_path / "monotonicity.png").stat().st_size > 1000


def test_missing_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo.main(["--data-root", str(tmp_path)]) == 2
    assert "no ONNX files" in capsys.readouterr().err
    assert main(figure.draw, "", ["--store", str(tmp_path / "none.sqlite")]) == 2
    assert "run a study first" in capsys.readouterr().err


DATA = Path(__file__).parents[2] / "shared" / "data"


def test_zoo_on_a_toy_network(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    if not (DATA / "networks").is_dir():
        pytest.skip("the networks are not here")
    out = tmp_path / "zoo.csv"
    code = zoo.main(
        ["--data-root", str(DATA), "--only", "cartpole", "--methods", "lbp", "--attack-limit", "1", "--out", str(out)]
    )
    frame = pd.read_csv(out)
    assert code == 0 and set(frame["precision"]) == {"float32", "float64"} and len(frame) == 4
