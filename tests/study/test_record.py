"""Records of cells: what is no number is no bound, and a killed run proves nothing."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import nets
import numpy as np
import pytest
from study.cells import study

from lipcompare import api
from lipcompare.budget import TracePoint
from lipcompare.result import Status
from lipcompare.study.definition import plan
from lipcompare.study.record import _revision, from_bound, without_result
from lipcompare.study.run import Setting

pytestmark = pytest.mark.usefixtures("misbehaving")


@pytest.mark.parametrize("bad", ["nan", "shape"])
def test_a_bound_that_is_no_number_is_a_row(bad: str) -> None:
    (cell,) = plan([study(Setting("naive"))]).cells.values()
    problem = nets.problem(nets.dense(0), 0.1)
    good = api.bound(problem, "naive")
    upper = np.full_like(good.upper, math.nan) if bad == "nan" else good.upper[0]
    record = from_bound(cell, dataclasses.replace(good, upper=upper, trace=(TracePoint(0.1, 0.0, math.nan),)))
    assert (record.status, record.upper, record.trace) == ("crashed", math.inf, ())
    assert ("NaN" if bad == "nan" else "shape") in record.message


def test_a_trace_after_a_kill_proves_no_lower_bound() -> None:
    (cell,) = plan([study(Setting("naive"))]).cells.values()
    record = without_result(cell, Status.TIME_LIMIT, "Killed.")
    assert (record.lower, record.upper, record.proves) == (0.0, float("inf"), "nothing")


def test_the_commit_of_a_checkout_and_of_a_worktree_is_known(tmp_path: Path) -> None:
    git = tmp_path / "main" / ".git"
    part = git / "worktrees" / "other"
    for folder in (git / "refs" / "heads", part, tmp_path / "other", tmp_path / "detached" / ".git"):
        folder.mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "packed-refs").write_text("# pack-refs\nc0ffee refs/heads/main\n")
    (git / "refs" / "heads" / "other").write_text("deadbeef\n")
    (part / "HEAD").write_text("ref: refs/heads/other\n")
    (part / "commondir").write_text("../..\n")
    (tmp_path / "other" / ".git").write_text(f"gitdir: {part}\n")
    (tmp_path / "detached" / ".git" / "HEAD").write_text("f00d\n")
    found = [_revision(tmp_path / name / ".git") for name in ("main", "other", "detached", "nowhere")]
    assert found == ["c0ffee", "deadbeef", "f00d", ""]
    (part / "HEAD").write_text("ref: refs/heads/main\n")  # whose commit is packed
    assert _revision(tmp_path / "other" / ".git") == "c0ffee"
