"""bound and compare: what they check, what they survive, and what they print."""

from __future__ import annotations

import dataclasses
import json
from typing import ClassVar, final

import nets
import numpy as np
import pytest
import torch

import lipcompare
from lipcompare import Bound, Contradiction, Method, Problem, Status
from lipcompare.budget import Budget, Clock


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
        return self.result(problem, clock, lower=np.full(shape, self.low), upper=np.full(shape, self.high))


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


def test_a_bug_is_not_swallowed() -> None:
    with pytest.raises(RuntimeError, match="index out of range"):
        lipcompare.bound(PROBLEM, Scripted("bug"))


def test_a_result_that_excludes_itself_is_an_error() -> None:
    with pytest.raises(Contradiction, match="lower bound 3"):
        lipcompare.bound(PROBLEM, Scripted(low=3.0))


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
