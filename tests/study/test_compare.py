"""compare: its frame, contradictions, failures, and the same in processes of their own."""

from __future__ import annotations

import dataclasses

import nets
import numpy as np
import pandas as pd
import pytest
from scripted import Scripted

import lipcompare
from lipcompare import Contradiction, InvalidInput
from lipcompare.study import compare as module

PROBLEM = nets.problem(nets.dense(0), 0.1, batch=2)


def test_compare_finds_contradictions_and_still_has_the_rows() -> None:
    with pytest.raises(Contradiction, match="attack proves at least") as caught:
        lipcompare.compare(PROBLEM, ["attack", Scripted(high=0.01), Scripted("witness", high=0.01), "naive"])
    frame = caught.value.results
    assert isinstance(frame, pd.DataFrame)
    own = ["scripted(high=0.01)", "scripted(failure=witness, high=0.01)"]
    assert list(frame["method"].unique()) == ["attack", *own, "naive"] and len(frame) == 4 * 2
    assert "crashed" in set(frame["status"])


def test_compare_goes_on_past_failures_and_is_tidy() -> None:
    frame = lipcompare.compare({"a": PROBLEM, "b": PROBLEM}, [Scripted("memory"), "lbp", Scripted("refuse")])
    assert len(frame) == 2 * 3 * 2
    assert set(frame["status"]) == {"out_of_memory", "complete", "unsupported"}
    lbp = frame[frame["method"] == "lbp"]
    assert np.isfinite(lbp["upper"]).all() and (lbp["proves"] == "upper").all()
    assert list(frame["problem"].unique()) == ["a", "b"] and set(frame["example"]) == {0, 1}


def test_an_interrupted_comparison_keeps_what_was_done() -> None:
    frame = lipcompare.compare(PROBLEM, ["naive", Scripted("interrupt"), "lbp"])
    assert list(frame["method"].unique()) == ["naive", "scripted"]


def test_methods_are_compared_with_their_options() -> None:
    frame = lipcompare.compare(PROBLEM, ["ibp", ("lbp", {"tightening": "crown"}), ("lbp", {"tightening": "interval"})])
    assert list(frame["method"].unique()) == ["ibp", "lbp(tightening=crown)", "lbp(tightening=interval)"]
    assert set(lipcompare.compare(PROBLEM, [("lbp", {"tightening": "crown"})])["method"]) == {"lbp"}


def test_processes_of_their_own_give_the_same_rows() -> None:
    here = lipcompare.compare({"a": PROBLEM}, ["ibp", lipcompare.METHODS["lbp"]()])
    there = lipcompare.compare({"a": PROBLEM}, ["ibp", lipcompare.METHODS["lbp"]()], jobs=2)
    assert list(there.columns) == list(here.columns)
    order = ["example", "method"]
    for name in ("problem", "upper", "lower", "gap", "proves", "status", "message", "dtype", "options"):
        pd.testing.assert_series_equal(
            here.set_index(order)[name].sort_index(), there.set_index(order)[name].sort_index(), check_dtype=False
        )


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_row_for_every_functional_with_its_name(jobs) -> None:
    problem = nets.problem(nets.dense(0, (3, 4, 3)), 0.1, batch=2)
    margins = lipcompare.margins([1, 2], 3)  # of another class each
    asked = dataclasses.replace(problem, functionals=margins, classes=("cat", "dog", "eel"))
    result = lipcompare.bound(asked, "ibp")
    frame = lipcompare.compare({"a": asked}, ["ibp", "attack"], rows=True, jobs=jobs)
    assert list(frame.columns)[:4] == ["problem", "example", "functional", "method"]
    ibp = frame[frame["method"] == "ibp"].sort_values("example", kind="stable")
    assert ibp["functional"].tolist() == ["dog-cat", "dog-eel", "eel-cat", "eel-dog"]
    np.testing.assert_allclose(ibp["upper"].to_numpy().reshape(2, 2), result.upper, rtol=1e-9)
    assert set(ibp["proves"]) == {"upper"} and set(frame[frame["method"] == "attack"]["proves"]) == {"lower"}
    assert "dog-cat" in repr(frame)


def test_rows_are_exact_where_their_own_interval_is_closed() -> None:
    one = PROBLEM.example(0)
    frame = lipcompare.compare(one, ["exact"], rows=True)
    closed = (frame["upper"] - frame["lower"] <= 1e-4 * frame["upper"]).to_numpy()
    assert closed.any() and set(frame["status"]) == {"exact"}
    assert frame["proves"].tolist() == ["exact" if each else "interval" for each in closed]


def test_contradictions_between_processes_are_found() -> None:
    frame = lipcompare.compare(PROBLEM, ["attack", "ibp"])
    assert module._contradictions(frame) == []
    wrong = frame.assign(upper=frame["upper"].where(frame["method"] != "ibp", 1e-3))
    assert len(module._contradictions(wrong)) == 2


def test_a_frame_is_shown_with_its_values_in_view() -> None:
    frame = lipcompare.compare(PROBLEM, ["ibp", "attack", Scripted("refuse")])
    for text in (repr(frame), frame._repr_html_()):
        assert "at least" in text and "at most" in text and "unsupported" in text and "problem" not in text
        assert "Further columns: proves, message" in text
    assert max(map(len, repr(frame).splitlines())) < 80
    first = repr(frame).splitlines()[1].split()
    assert first[:3] == ["0", "ibp", "-"]  # nothing proved below
    assert type(frame[frame["method"] == "ibp"]) is pd.DataFrame
    assert frame["lower"].isna().tolist() == [True, True, False, False, True, True]
    assert frame["upper"].isna().tolist() == [False, False, True, True, True, True]
    odd = lipcompare.compare({"<b>": PROBLEM, "c": PROBLEM}, ["ibp"])
    assert "<b>" not in odd._repr_html_()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: lipcompare.compare("net.onnx", ["ibp"]), "compare takes problems, not str"),
        (lambda: lipcompare.compare(PROBLEM, ["lpb"]), "Did you mean 'lbp' or 'lp'"),
        (lambda: lipcompare.compare(PROBLEM, ["ibp"], time_limit=0), "time_limit must be"),
        (lambda: lipcompare.compare(PROBLEM, ["ibp"], jobs=2, on_result=print), "in this process only"),
        (lambda: lipcompare.compare(PROBLEM, ["ibp"], jobs=2, time_limit=float("inf")), "finite time limit"),
    ],
)
def test_wrong_calls_are_sentences(call, says) -> None:
    with pytest.raises(InvalidInput, match=says):
        call()
