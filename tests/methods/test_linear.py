"""Whatever the time: a method that goes on from another's bounds is not looser. The clock advances when it is asked, so
that the same work takes the same time."""

from __future__ import annotations

import time

import nets
import numpy as np
import pytest
import torch

import lipcompare
from lipcompare import Problem
from lipcompare.result import Status
from lipcompare.testing.clock import WorkClock

MANY = Problem.around(nets.dense(5, (6, 24, 24, 3)), torch.linspace(-1, 1, 48, dtype=torch.float64).reshape(8, 6), 0.3)
PROBLEM = nets.problem(nets.dense(4, (6, 12, 12, 3)), 0.3)


def upper(monkeypatch: pytest.MonkeyPatch, method: str, asks: int) -> float:
    """The upper end of a method that may ask the clock so many times."""
    with monkeypatch.context() as patched:
        now = 0.0

        def tick() -> float:
            nonlocal now
            now += 1.0
            return now

        patched.setattr(time, "perf_counter", tick)
        return float(lipcompare.bound(PROBLEM, method, time_limit=float(asks)).overall_upper[0])


@pytest.mark.parametrize("asks", [2, 8, 15, 25, 40])
def test_linear_bounds_come_first_and_are_the_same(monkeypatch: pytest.MonkeyPatch, asks: int) -> None:
    linear = upper(monkeypatch, "lbp", asks)
    for method in ("sdp", "lp", "milp", "bab", "exact", "auto"):
        assert upper(monkeypatch, method, asks) <= linear, method


def test_what_contains_the_relaxation_has_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the time that it takes and what the search's own questions of the clock add."""
    relaxed = upper(monkeypatch, "sdp", 120)
    assert relaxed < 0.9 * upper(monkeypatch, "lbp", 120)
    for method in ("bab", "exact", "auto"):
        assert upper(monkeypatch, method, 120) <= relaxed * (1 + 3e-3), method


@pytest.mark.parametrize("seconds", [0.006, 0.016])
def test_every_box_of_a_batch_has_its_linear_bound(seconds: float) -> None:
    """The worst boxes of two methods may be different ones, so boxes are compared one by one."""

    def timed(method: str) -> np.ndarray:
        with WorkClock():
            result = lipcompare.bound(MANY, method, time_limit=seconds)
        assert result.status is Status.TIME_LIMIT
        return result.overall_upper

    linear = timed("lbp")
    assert np.isfinite(linear).all()
    for method in ("sdp", "lp", "milp", "bab", "exact", "auto"):
        assert (timed(method) <= linear).all(), method


@pytest.mark.parametrize("method", ["lbp", "sdp", "bab", "auto"])
def test_gradients_that_do_not_fit_are_refused_with_a_sentence_and_a_cheap_bound(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: 8 copies of 3 rows at 6 inputs and 2 x 12 neurons in 8 bytes; a byte less is refused."""
    monkeypatch.setattr("lipcompare.methods.linear._SMALL", 0)
    needed = 8 * 3 * (6 + 24) * 8
    refused = lipcompare.bound(PROBLEM, method, memory=needed - 1)
    assert refused.status is Status.OUT_OF_MEMORY
    assert "memory limit" in refused.detail and "--memory" in refused.detail
    exact = lipcompare.bound(PROBLEM, "bab", time_limit=20.0)
    assert exact.status is Status.EXACT and exact.overall_upper[0] <= refused.overall_upper[0] < float("inf")
    fits = lipcompare.bound(PROBLEM, "lbp", memory=needed)
    assert fits.status is Status.COMPLETE
