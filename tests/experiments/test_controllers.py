"""The published constants come out of the experiment as they were printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from experiments import controllers, measured, study
from lipcompare.store.database import Store

QUIET = Console(quiet=True)


def test_published_constants(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = study.Choices(store=tmp_path / "r.sqlite", data_root=str(shared / "data"))
    known = [t for t in controllers.tasks(shared / "data") if "published" in t.facts]
    monkeypatch.setattr(controllers, "tasks", lambda root: known)
    assert not measured.compute(controllers.build, chosen, QUIET)
    assert controllers.check(chosen, QUIET) == 0
    with Store(chosen.store, read_only=True) as store:
        frame = store.frame("controllers")
    done = frame[frame["status"] == "exact"]
    assert len(done) == 8 and done["label.agrees"].astype(bool).all() and (done["upper"] - done["lower"] < 1e-5).all()
    assert (frame.loc[frame["status"] != "exact", "status"] == "unsupported").all() and len(frame) == 12


def test_a_wrong_constant_is_noticed() -> None:
    assert controllers._agrees(1.23441, 1.23449, 1.2344, 4)
    assert not controllers._agrees(1.23461, 1.23469, 1.2344, 4) and not controllers._agrees(1.2, 1.23, 1.2344, 4)
