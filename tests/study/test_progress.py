"""The time that is left."""

from __future__ import annotations

from runner_methods import QUIET
from study.cells import study

from lipcompare.budget import duration
from lipcompare.result import Status
from lipcompare.study.definition import plan
from lipcompare.study.progress import StudyProgress
from lipcompare.study.record import without_result
from lipcompare.study.run import CellLimits, Setting


def test_progress_tells_the_time_left() -> None:
    asked = study(Setting("naive"), Setting("lbp"), radii=(0.1, 0.2), limits=CellLimits(time=9.0))
    cells = list(plan([asked]).cells.values())
    progress = StudyProgress(QUIET, cells, lanes=2)
    assert progress.seconds_left() == 4 * 3.0 / 2
    progress.finished(cells[0], without_result(cells[0], Status.COMPLETE, "", seconds=1.0))
    assert progress.seconds_left() == (1 * 1.0 + 2 * 3.0) / 2
    progress.finished(cells[1], None)
    assert progress.seconds_left() == (1 * 1.0 + 1 * 3.0) / 2
    assert [duration(s) for s in (0.31, 42, 420, 12600)] == ["0.3 s", "42 s", "7 min", "3.5 h"]
