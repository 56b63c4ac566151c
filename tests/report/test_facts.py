"""What the rows of a store say, in numbers and in words."""

from __future__ import annotations

from pathlib import Path

import made_up
import numpy as np
import pandas as pd
import pytest

from lipcompare.report.facts import best_known, comparable, contradictions, headline, quickest, tightness


def test_tightness_is_measured_against_the_best_lower_bound(store: Path) -> None:
    frame = made_up.frame(store, "tiny_depth")
    assert len(best_known(frame)) == 3
    ratios = tightness(frame).groupby("series")["ratio"].mean()
    assert ratios["paper"] == pytest.approx(1.5 / 0.9999) and "attack" not in ratios
    nobody = frame.assign(lower=0.0)  # then no upper bound counts as tight because no other is smaller
    assert best_known(nobody).isna().all() and tightness(nobody).empty


def test_an_upper_bound_below_what_is_attained_contradicts_it(store: Path) -> None:
    frame = made_up.frame(store, "tiny_depth")
    assert contradictions(frame).empty
    paper = frame["series"] == "paper"
    wrong = contradictions(frame.assign(upper=frame["upper"].where(~paper, 0.9 * frame["lower"].max())))
    assert set(wrong["series"]) == {"paper"}


def test_a_comparison_has_the_columns_of_a_store(store: Path) -> None:
    rows = [{"problem": "a", "example": k, "method": "lbp", "upper": 1.0} for k in (0, 1)]
    frame = comparable(pd.DataFrame(rows))
    assert list(frame["task"]) == ["a #0", "a #1"] and frame["problem_hash"].nunique() == 2
    assert set(frame["series"]) == {"lbp"} and np.isnan(frame["time_limit"]).all()
    stored = made_up.frame(store, "tiny_depth")
    assert comparable(stored) is stored


def test_headlines_say_who_is_tighter_and_at_what_cost() -> None:
    assert headline({"paper": (3.0, 1.0), "sdp": (2.0, 1.1), "bab": (1.0, 4.0)}) == (
        "bab is 3 times tighter than paper, in 4 times the time"
    )
    assert headline({"lp": (3.0, 1.0), "sdp": (2.0, 1.1)}) == "sdp is 1.5 times tighter than lp, in the same time"
    assert headline({"paper": (2.001, 1.0), "sdp": (2.0, 1.1)}) == "sdp and paper prove the same"
    assert headline({"paper": (2.0, 1.0), "sdp": (float("nan"), 1.0)}) == ""


def test_the_quickest_is_who_is_exact_first() -> None:
    """On most problems, then in the least time; with nobody exact it says nothing."""

    def rows(**ends: list[tuple[str, float]]) -> pd.DataFrame:
        return pd.DataFrame(
            [
                ("s", str(t), name, status, seconds)
                for name, each in ends.items()
                for t, (status, seconds) in enumerate(each)
            ],
            columns=["study", "task", "series", "status", "seconds"],
        )

    quick, slow, none = ("exact", 1.0), ("exact", 5.0), ("time_limit", 0.1)
    assert quickest(rows(a=[quick, none], b=[slow, slow])) == "b is exact on 2 of 2 problems, in 10 s together"
    assert quickest(rows(a=[slow, slow], b=[quick, quick])) == "b is exact on 2 of 2 problems, in 2 s together"
    assert quickest(rows(a=[quick], b=[slow])) == "a is exact, in 1 s"
    assert quickest(rows(a=[none], b=[none])) == ""
