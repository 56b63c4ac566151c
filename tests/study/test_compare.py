"""compare: its frame, contradictions, failures, and the same in processes of their own."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, final

import nets
import numpy as np
import pandas as pd
import pytest

import lipcompare
from lipcompare import Bound, Contradiction, InvalidInput, Method, Problem, Status
from lipcompare.budget import Budget, Clock
from lipcompare.study import compare as module
from lipcompare.witness import make_witnesses


@final
@dataclasses.dataclass(frozen=True)
class Scripted(Method):
    """A method that does what the test tells it to."""

    name: ClassVar[str] = "scripted"
    proves: ClassVar[str] = "exact"
    summary: ClassVar[str] = "for tests"
    reference: ClassVar[str] = "none"

    failure: str = ""
    low: float = 1.0
    high: float = 2.0

    def supports(self, problem: Problem) -> str | None:
        return "Told to refuse." if self.failure == "refuse" else None

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        if self.failure == "memory":
            raise MemoryError
        if self.failure == "torch memory":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")
        if self.failure == "bug":
            raise RuntimeError("index out of range")
        if self.failure == "interrupt":
            raise KeyboardInterrupt
        shape = (problem.batch, problem.rows)
        status = Status.EXACT if self.failure == "exact" else Status.COMPLETE
        witnesses = None
        if self.failure == "witness":
            points = problem.box.interval.center.unsqueeze(1).expand(-1, problem.rows, -1)
            witnesses = make_witnesses(problem, points)
        return self.result(
            problem,
            clock,
            lower=np.full(shape, self.low),
            upper=np.full(shape, self.high),
            status=status,
            witnesses=witnesses,
        )


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
        (lambda: lipcompare.compare(PROBLEM, ["lpb"]), "Did you mean 'lp'"),
        (lambda: lipcompare.compare(PROBLEM, ["ibp"], time_limit=0), "time_limit must be"),
        (lambda: lipcompare.compare(PROBLEM, ["ibp"], jobs=2, on_result=print), "in this process only"),
        (lambda: lipcompare.compare(PROBLEM, ["ibp"], jobs=2, time_limit=float("inf")), "finite time limit"),
    ],
)
def test_wrong_calls_are_sentences(call, says) -> None:
    with pytest.raises(InvalidInput, match=says):
        call()
