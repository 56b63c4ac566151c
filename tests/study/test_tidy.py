"""Records of results: what is not proved in them is NaN, and each functional is proved as far as it is."""

from __future__ import annotations

import nets
import numpy as np
import pytest

import lipcompare
from lipcompare.result import proved
from lipcompare.rounding import gap_text, lower_text, signed_lower_text, signed_upper_text, upper_text
from lipcompare.study.tidy import relative_gap, row_proves, tidy, tidy_rows

PROBLEM = nets.problem(nets.dense(0), 0.1, batch=2)


def test_what_is_not_proved_is_one_thing() -> None:
    """NaN in arrays for frames, null in JSON, "-" for people; a constant that is proved to be 0 is a number."""
    lower, upper = proved(np.array([0.0, 0.0, 2.0, 0.0]), np.array([3.0, 0.0, np.inf, np.inf]))
    np.testing.assert_array_equal(lower, [np.nan, 0, 2, np.nan])
    np.testing.assert_array_equal(upper, [3, 0, np.nan, np.nan])
    (record, _) = tidy("p", lipcompare.bound(PROBLEM, "ibp"))
    assert np.isnan(record["lower"]) and np.isnan(record["gap"]) and record["upper"] > 0
    for text in (lower_text, upper_text, signed_lower_text, signed_upper_text, gap_text):
        assert text(float("nan")) == "-"
    assert "<td>-</td>" in lipcompare.bound(PROBLEM, "ibp")._repr_html_()


def test_functionals_have_a_record_each() -> None:
    result = lipcompare.bound(PROBLEM, "ibp")
    records = list(tidy_rows("p", PROBLEM, result, 1e-4))
    assert [(r["example"], r["functional"]) for r in records] == [(0, "0"), (0, "1"), (1, "0"), (1, "1")]
    assert [r["upper"] for r in records] == result.upper.flatten().tolist()
    assert {r["proves"] for r in records} == {"upper"}


@pytest.mark.parametrize(
    ("lower", "upper", "proves"),
    [
        (1.0, 1.0, "exact"), (0.9999, 1.0, "exact"), (0.9, 1.0, "interval"), (np.nan, 1.0, "upper"),
        (1.0, np.nan, "lower"), (np.nan, np.nan, "nothing"), (0.0, 0.0, "exact"),
    ],
)  # fmt: skip
def test_what_two_ends_prove(lower: float, upper: float, proves: str) -> None:
    assert row_proves(lower, upper, 1e-4 + 1e-12) == proves
    gap = float(relative_gap(np.float64(lower), np.float64(upper)))
    assert np.isnan(gap) if np.isnan(lower + upper) else gap == pytest.approx(upper - lower)
