"""bound and compare: what they check, what they survive, and what they print."""

from __future__ import annotations

import dataclasses
import json
from typing import ClassVar, final

import nets
import numpy as np
import pandas as pd
import pytest
import torch

import lipcompare
from lipcompare import Bound, Box, Contradiction, InvalidInput, Method, Problem, Status
from lipcompare.budget import Budget, Clock, Kept
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


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        ("refuse", Status.UNSUPPORTED),
        ("memory", Status.OUT_OF_MEMORY),
        ("torch memory", Status.OUT_OF_MEMORY),
        ("interrupt", Status.INTERRUPTED),
    ],
)
def test_failures_become_statuses_that_prove_nothing(failure: str, status: Status) -> None:
    result = lipcompare.bound(PROBLEM, Scripted(failure))
    assert result.status is status and result.proves == "nothing"
    assert (result.lower == 0).all() and np.isinf(result.upper).all()
    assert result.sentence.endswith(".")


def test_a_bug_is_a_status_that_names_it_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    result = lipcompare.bound(PROBLEM, Scripted("bug"))
    assert result.status is Status.CRASHED and result.proves == "nothing"
    assert "RuntimeError: index out of range (run, line" in result.sentence and "Nothing was proved." in result.sentence
    assert "Traceback" in caplog.text


def test_a_wrong_call_is_an_error_still() -> None:
    with pytest.raises(InvalidInput, match="no option"):
        lipcompare.bound(PROBLEM, "lbp", nonsense=1)


@final
@dataclasses.dataclass(frozen=True)
class Teller(Method):
    """Keeps a bound and a witness, and then ends as the test says."""

    name: ClassVar[str] = "teller"
    proves: ClassVar[str] = "interval"
    summary: ClassVar[str] = "for tests"
    reference: ClassVar[str] = "none"

    failure: type[BaseException] = KeyboardInterrupt
    asked: bool = False

    def supports(self, problem: Problem) -> str | None:
        return None

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        last = problem.example(problem.batch - 1)
        points = last.box.interval.center.unsqueeze(1).expand(-1, problem.rows, -1)
        kept = Kept(problem.batch - 1, np.full((1, problem.rows), 1e3), make_witnesses(last, points))
        clock.keep((lambda: kept) if self.asked else kept)
        raise self.failure("at that moment")


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (KeyboardInterrupt, Status.INTERRUPTED),
        (MemoryError, Status.OUT_OF_MEMORY),
        (ZeroDivisionError, Status.CRASHED),
    ],
)
def test_what_was_kept_is_returned_whatever_ends_the_run(
    failure: type[BaseException], status: Status, asked: bool
) -> None:
    result = lipcompare.bound(PROBLEM, Teller(failure, asked))
    assert result.status is status and "The interval so far holds." in result.sentence
    assert np.isinf(result.upper[0]).all() and (result.upper[1] == 1e3).all()
    center = nets.sampled_norms(Problem(PROBLEM.network, Box.ball(PROBLEM.box.interval.center, 0.0)), samples=1)
    np.testing.assert_allclose(result.lower[1], center[1], rtol=1e-9)
    assert (result.lower[0] == 0).all()


def test_a_lower_bound_without_a_witness_is_none() -> None:
    result = lipcompare.bound(PROBLEM, Scripted())
    assert (result.lower == 0).all() and result.proves == "upper"


def test_exact_takes_two_checked_finite_ends() -> None:
    claimed = lipcompare.bound(PROBLEM, Scripted("exact", low=2.0))
    assert claimed.status is Status.NUMERICAL and "leaves a gap" in claimed.sentence
    unbounded = lipcompare.bound(PROBLEM, Scripted("exact", low=0.0, high=float("inf")))
    assert unbounded.status is Status.NUMERICAL and unbounded.proves == "nothing"


def test_nan_is_no_bound() -> None:
    result = lipcompare.bound(PROBLEM, Scripted(low=float("nan"), high=float("nan")))
    assert np.isinf(result.upper).all() and (result.lower == 0).all()


def test_a_result_that_excludes_itself_is_an_error() -> None:
    with pytest.raises(Contradiction, match=r"above upper bound 0\.01"):
        lipcompare.bound(PROBLEM, Scripted("witness", low=100.0, high=0.01))


def test_compare_finds_contradictions_and_still_has_the_rows() -> None:
    with pytest.raises(Contradiction, match="attack proves at least") as caught:
        lipcompare.compare(PROBLEM, ["attack", Scripted(high=0.01), Scripted("witness", high=0.01), "naive"])
    frame = caught.value.results
    assert isinstance(frame, pd.DataFrame)
    assert list(frame["method"].unique()) == ["attack", "scripted", "naive"] and len(frame) == 4 * 2
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


def test_results_print_and_serialise() -> None:
    result = lipcompare.bound(PROBLEM, "lbp")
    assert "at most" in str(result) and "<table>" in result._repr_html_()
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["lower"] == [0.0, 0.0] and len(plain["rows"]["upper"]) == 2
    assert plain["options"]["tightening"] == "alpha-crown"
    nothing = lipcompare.bound(PROBLEM, Scripted("memory"))
    assert nothing.to_dict()["upper"] == [None, None] and "nothing proved" in str(nothing)


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    lipcompare.bound(PROBLEM, "lbp", threads=1)
    assert torch.get_num_threads() == before


def test_the_attack_stops_at_its_time_limit_with_a_witness() -> None:
    problem = nets.problem(nets.dense(0, (16, 64, 64, 10)), 0.3)
    result = lipcompare.bound(problem, "attack", time_limit=0.05)
    assert result.status is Status.TIME_LIMIT and result.proves == "lower"
    assert result.witnesses is not None and (result.lower > 0).all()
