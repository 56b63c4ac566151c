"""Figures of results: what is drawn is what is proved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from lipcompare import InvalidInput
from lipcompare.budget import TracePoint
from lipcompare.display import intervals

TRACE = (TracePoint(0.1, 0.0, 8.0), TracePoint(0.2, 1.0, 4.0), TracePoint(0.5, 2.0, 4.0))


def marks(axes: Axes, label: str) -> list[tuple[float, float]]:
    """The points of the scatter that the legend calls so, without those that are no numbers."""
    (drawn,) = [c for c in axes.collections if c.get_label() == label]
    points = np.ma.filled(drawn.get_offsets(), np.nan)
    return [(float(x), float(y)) for x, y in points if np.isfinite(x)]


def test_one_result_has_a_line_per_row_and_its_course_over_time() -> None:
    lower, upper = np.array([1.0, np.nan, 2.0]), np.array([3.0, 4.0, np.nan])
    figure = intervals.one_result(lower, upper, TRACE, 1.0, title="a $ b")
    left, right = figure.axes
    assert marks(left, "at most") == [(3.0, 0.0), (4.0, 1.0)] and marks(left, "at least") == [(1.0, 0.0), (2.0, 2.0)]
    (top,) = [line for line in right.lines if line.get_label() == "upper bound"]
    assert top.get_xydata().tolist() == [[0.1, 8.0], [0.2, 4.0], [0.5, 4.0], [1.0, 4.0]]
    assert figure._suptitle.get_text() == r"a \$ b"  # type: ignore[union-attr]
    assert len(intervals.one_result(lower, upper, TRACE[:1], 1.0).axes) == 1


def test_a_comparison_averages_and_says_where_nothing_is_proved() -> None:
    frame = pd.DataFrame(
        {
            "method": ["a", "a", "b"],
            "lower": [1.0, 3.0, np.nan],
            "upper": [2.0, 6.0, np.nan],
            "seconds": [0.1, 0.3, 1.0],
        }
    )
    left, right = intervals.comparison(frame).axes
    assert marks(left, "at most") == [(4.0, 0.0)] and marks(left, "at least") == [(2.0, 0.0)]
    assert [t.get_text() for t in left.texts if t.get_text() == "nothing proved"] == ["nothing proved"]
    assert left.get_xlabel().endswith("mean") and [x for x, _ in right.collections[0].get_offsets()] == [0.2]
    with pytest.raises(InvalidInput):
        intervals.comparison(frame.iloc[:0])


def test_a_format_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    figure = intervals.one_result(np.ones(1), np.ones(1), (), 0.0)
    intervals.save(figure, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").stat().st_size
    with pytest.raises(InvalidInput, match="ending must be"):
        intervals.save(figure, tmp_path / "a.docx")
    with pytest.raises(InvalidInput):
        intervals.trace([])
