"""``auto``: which methods it runs, in what order, and what it keeps of them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math

import nets
import pytest

import lipcompare
from lipcompare import Norm, NormBall, Problem, Space, Status
from lipcompare.budget import Budget, TracePoint
from lipcompare.methods import Attack
from lipcompare.testing.clock import WorkClock

RELU, DEEP = nets.dense(1, (2, 4, 2)), nets.dense(1, (3, 8, 8, 2))


def ran(problem: Problem, **options: float) -> tuple[list[str], lipcompare.Bound, list[TracePoint]]:
    points: list[TracePoint] = []
    result = lipcompare.bound(problem, "auto", on_progress=points.append, **options)  # type: ignore[arg-type]
    names = result.detail.partition("Ran ")[2].partition(".")[0]
    return names.split(", "), result, points


def test_cheap_bounds_come_first_and_a_small_relu_network_is_exact() -> None:
    names, result, points = ran(nets.problem(RELU, 0.5), time_limit=20.0)
    assert names[:2] == ["lbp", "attack"] and result.status is Status.EXACT
    assert math.isinf(points[0].upper) or points[0].lower == 0
    for before, after in itertools.pairwise(points):
        assert after.lower >= before.lower and after.upper <= before.upper


def test_methods_that_do_not_work_there_are_passed_over() -> None:
    problem = nets.problem(DEEP, 0.5)
    names, result, _ = ran(dataclasses.replace(problem, box=Space.of(3)), time_limit=2.0)
    assert names[0] == "lbp" and result.upper.max() < math.inf
    center = problem.box.interval.center
    names, _, _ = ran(dataclasses.replace(problem, box=NormBall.around(center, 0.5, Norm.TWO)), time_limit=5.0)
    assert "sdp" in names and "exact" not in " ".join(names)


def test_no_time_still_has_an_upper_bound() -> None:
    names, result, _ = ran(nets.problem(DEEP, 0.8), time_limit=1e-6)
    assert names[0] == "lbp" and result.status is Status.TIME_LIMIT and result.upper.max() < math.inf


WIDE, LITTLE = nets.problem(nets.dense(0, (8, 24, 24, 6)), 0.5), 0.12
"""Programs of the whole box take most of this time on a clock that goes with the work."""


@functools.cache
def sdp_upper() -> float:
    return float(lipcompare.bound(WIDE, "sdp").overall_upper[0])


def test_little_time_goes_to_the_programs_of_the_whole_box_and_then_to_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was 42 % looser than ``sdp`` alone, as a fifth of the time went to points, and a search came first."""
    limits: list[float] = []
    search = Attack.run

    def run(self: Attack, problem: Problem, budget: Budget) -> lipcompare.Bound:
        limits.append(budget.time_limit + clock.seconds)
        return search(self, problem, budget)

    monkeypatch.setattr(Attack, "run", run)
    with WorkClock() as clock:
        names, result, _ = ran(WIDE, time_limit=LITTLE)
    assert names[:3] == ["lbp", "sdp", "attack"] and result.overall_lower[0] > 0
    assert result.overall_upper[0] <= sdp_upper() * (1 + 1e-3)
    assert len(limits) == 1 and limits[0] > 0.9 * LITTLE


def test_bab_with_little_time_is_not_looser_than_sdp() -> None:
    with WorkClock():
        result = lipcompare.bound(WIDE, "bab", time_limit=LITTLE)
    assert result.overall_lower[0] > 0 and result.overall_upper[0] <= sdp_upper() * (1 + 1e-3)


def test_time_for_a_search_is_none_for_the_programs_first() -> None:
    names, _, _ = ran(nets.problem(RELU, 0.5), time_limit=20.0)
    assert "sdp" not in names
