"""The clock that runs with the work."""

from __future__ import annotations

import time

import torch

from lipcompare.testing.clock import WorkClock, processor


def test_the_same_work_takes_the_same_time_and_more_takes_longer() -> None:
    matrix = torch.eye(64)

    def took(times: int) -> float:
        with WorkClock():
            began = time.perf_counter()
            for _ in range(times):
                matrix @ matrix
            return time.perf_counter() - began

    assert took(3) == took(3) < took(4)
    # Counted by hand: two reads of the clock, three products of 64^3 multiply-adds.
    assert took(3) >= 3 * 64**3 * 2 * 1e-10


def test_asking_takes_time_so_that_loops_end_and_the_machine_s_clock_comes_back() -> None:
    machine = time.perf_counter
    with WorkClock() as clock:
        while time.perf_counter() < 1e-3:
            pass
        assert 1e-3 <= clock.seconds < 2e-3
    assert time.perf_counter is machine


def test_the_processors_clock_does_not_see_who_waits() -> None:
    machine = time.perf_counter
    with processor():
        began = time.perf_counter()
        time.sleep(0.1)
        assert time.perf_counter() - began < 0.05
    assert time.perf_counter is machine
