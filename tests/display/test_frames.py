"""A comparison is shown with its values in view, and is a plain frame in everything else."""

from __future__ import annotations

import nets
import numpy as np
import pandas as pd
import pytest

from lipcompare import Bound, Status
from lipcompare.display.frames import Comparison, two_digits
from lipcompare.study.tidy import tidy

PROBLEM = nets.problem(nets.dense(0, (2, 3, 1)), 0.1)


def comparison(rows: int = 1) -> Comparison:
    result = Bound(np.array([[1.23456789]]), np.array([[np.inf]]), Status.TIME_LIMIT, "scripted", 0.25)
    return Comparison([record for k in range(rows) for record in tidy(f"net{k} & <b>", result)])


def test_main_columns_are_shown_rounded_to_the_proved_side() -> None:
    text = repr(comparison())
    assert "1.2345" in text and "1.2346" not in text and "time limit" in text
    assert "problem" not in text.split("\n")[0]  # one problem says nothing
    assert "Further columns: proves, message, device, dtype, options." in text


def test_many_rows_are_cut_and_html_is_escaped() -> None:
    frame = comparison(70)
    assert "... 10 more rows." in repr(frame) and "net59" in repr(frame) and "net60" not in repr(frame)
    assert "<b>" not in frame._repr_html_() and "net0 &amp; &lt;b&gt;" in frame._repr_html_()


def test_what_is_made_of_it_is_a_plain_frame() -> None:
    assert type(comparison()[["method"]]) is pd.DataFrame


@pytest.mark.parametrize(("value", "text"), [(0.00123, "0.0012"), (9.96, "10"), (99.4, "99"), (120.6, "121")])
def test_large_numbers_are_no_powers_of_ten(value: float, text: str) -> None:
    assert two_digits(value) == text
