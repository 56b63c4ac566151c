"""``auto``: which methods it runs, in what order, and what it keeps of them."""

from __future__ import annotations

import dataclasses
import itertools
import math

import nets

import lipcompare
from lipcompare import Norm, NormBall, Problem, Space, Status
from lipcompare.budget import TracePoint

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
