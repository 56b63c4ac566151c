"""Malformed studies are refused."""

from __future__ import annotations

from pathlib import Path

import nets
import pytest
from study.cells import study

from lipcompare import InvalidInput
from lipcompare.study.run import CellLimits, Setting, Task, run


def test_malformed_studies_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="two settings called 'naive'"):
        study(Setting("naive"), Setting("naive"))
    with pytest.raises(InvalidInput, match="one box"):
        Task(nets.problem(nets.dense(0), 0.1, batch=2))
    with pytest.raises(InvalidInput, match="time limit"):
        CellLimits(time=float("inf"))
    with pytest.raises(InvalidInput, match="at least 1 MiB"):
        CellLimits(memory=5)
    with pytest.raises(InvalidInput, match="jobs"):
        run([], tmp_path / "r.sqlite", jobs=0)
