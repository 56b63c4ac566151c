"""The coverage experiments run on what needs no files, and their figure draws what they write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import monotonicity, zoo
from figures import monotonicity as figure


def test_monotonicity_study_on_the_synthetic_table(tmp_path: Path) -> None:
    out = tmp_path / "shares.csv"
    assert monotonicity.main(["--synthetic", "--examples", "6", "--methods", "ibp,lbp", "--out", str(out)]) == 0
    frame = pd.read_csv(out)
    assert len(frame) == 12
    shares = frame[["increasing", "decreasing", "constant", "neither", "undecided"]].sum(axis=1)
    np.testing.assert_allclose(shares, 1.0)
    lbp = frame[frame["method"] == "lbp"].set_index("feature")
    assert lbp.loc["rising", "increasing"] == 1 and lbp.loc["falling", "decreasing"] == 1
    assert figure.main(["--data", str(out), "--out", str(tmp_path)]) == 0
    assert all((tmp_path / f"monotonicity.{suffix}").stat().st_size > 1000 for suffix in figure.FORMATS)


def test_missing_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo.main(["--data-root", str(tmp_path)]) == 2
    assert "no ONNX files" in capsys.readouterr().err
    assert figure.main(["--data", str(tmp_path / "none.csv")]) == 2
    assert monotonicity.main(["--synthetic", "--methods", "guess"]) == 2
    assert "guess" in capsys.readouterr().err


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
