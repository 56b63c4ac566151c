"""What pictures of a store show."""

from __future__ import annotations

from pathlib import Path

import made_up
import numpy as np
import pytest

from lipcompare import InvalidInput
from lipcompare.display.frames import Comparison
from lipcompare.report.figures.store import pareto, profile, sweep


def test_without_a_lower_bound_there_is_nothing_to_draw(store: Path) -> None:
    nobody = made_up.frame(store, "tiny_depth").assign(lower=0.0)
    for draw in (pareto, lambda frame: profile(frame, made_up.trace(store, "tiny_depth"))):
        with pytest.raises(InvalidInput, match="nothing to draw"):
            draw(nobody)


def test_a_sweep_tells_lines_apart_and_marks_who_proved_nothing(store: Path) -> None:
    frame = made_up.frame(store, "tiny_width")
    figure = sweep(frame, "label.width", "hidden width", title="nets")
    value, ratio, seconds = figure.axes
    assert figure.get_suptitle() == "At hidden width 64 bab is 1.5 times tighter than paper, in 4 times the time"
    assert figure.get_supxlabel() == "nets" and value.get_ylabel() == "local Lipschitz constant for l_inf"
    silent = [line for line in value.lines if line.get_marker() == "1" and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in silent] == [[64]]  # LipMIP, which ran out of memory there
    drawn = {tuple(np.round(line.get_ydata(), 6)) for line in ratio.lines}
    assert (1.0, 1.0, 1.0) in drawn and (1.5, 1.5, 1.5) in drawn and (9.0, 9.0, 9.0) in drawn
    assert any(np.allclose(line.get_ydata(), 10.0) and line.get_linestyle() == ":" for line in seconds.lines)


def test_a_comparison_is_drawn_like_a_store() -> None:
    ends = {"lbp": (np.nan, 1.5), "sdp": (np.nan, 1.004), "attack": (1.0, np.nan)}
    rows = [
        {"problem": name, "example": example, "method": method, "lower": low, "upper": high, "seconds": 0.1 * (k + 1),
         "proves": "lower" if method == "attack" else "upper", "status": "complete"}
        for name in ("a", "b") for example in (0, 1) for k, (method, (low, high)) in enumerate(ends.items())
    ]  # fmt: skip
    frame = Comparison(rows)
    figure = profile(frame)
    assert figure.get_suptitle() == "sdp comes within 1% of the best known value on 4 of 4 problems"
    first = {line.get_label(): line for line in figure.legends[0].get_lines()}
    assert set(first) == {"lbp", "sdp"}
    reached = [np.asarray(line.get_ydata()).max() for line in figure.axes[0].lines]
    assert sorted(reached) == [0.0, 100.0]  # within 1 %: sdp everywhere, lbp nowhere
    assert "sdp is 1.49 times tighter than lbp" in pareto(frame).get_suptitle()
    assert figure.axes[0].title.get_fontsize() == 8  # also where nobody has set the style, as in a notebook
