"""The published constants come out of the experiment as they were printed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from experiments import controllers


def test_published_constants(shared: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    assert controllers.main(["--data-root", str(shared / "data"), "--only", "published", "--out", str(out)]) == 0
    frame = pd.read_csv(out)
    assert len(frame) == 8 and frame["agrees"].all() and (frame["upper"] - frame["lower"] < 1e-5).all()


def test_a_wrong_constant_is_noticed() -> None:
    assert controllers._agrees(1.23441, 1.23449, 1.2344, 4)
    assert not controllers._agrees(1.23461, 1.23469, 1.2344, 4) and not controllers._agrees(1.2, 1.23, 1.2344, 4)
