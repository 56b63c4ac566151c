"""Running a method example by example, so that what it does for one does not depend on the others of its batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from lipcompare.budget import Budget, Clock
from lipcompare.combine import side_by_side
from lipcompare.methods.base import Method
from lipcompare.problem import Problem
from lipcompare.result import Bound, Status, Witnesses


def example_by_example(
    method: Method, problem: Problem, budget: Budget, run: Callable[[Problem, Budget], Bound]
) -> Bound:
    """``run`` on every example in turn; each may take an equal share of the time that is left.

    After an interruption the examples still to come prove nothing, and those done keep what they have.
    """
    if problem.batch == 1:
        return run(problem, budget)
    clock = Clock(budget)
    done: list[Bound] = []
    for b in range(problem.batch):
        share = dataclasses.replace(budget, time_limit=clock.left / (problem.batch - b), on_progress=None)
        done.append(run(problem.example(b), share))
        if done[-1].status is Status.INTERRUPTED:
            break
    missing = problem.batch - len(done)
    if missing:
        done.append(_nothing(method, problem.slice(len(done), problem.batch), clock))
    merged = side_by_side(done)
    return method.result(
        problem, clock, lower=merged.lower, upper=merged.upper, status=merged.status, detail=merged.detail,
        witnesses=merged.witnesses,
    )  # fmt: skip


def _nothing(method: Method, problem: Problem, clock: Clock) -> Bound:
    """No bounds, with the box's centre as a witness of the lower bound 0."""
    shape = (problem.batch, problem.rows)
    center = problem.box.interval.center.cpu().double().numpy()
    points = np.broadcast_to(center[:, None], (*shape, center.shape[-1]))
    witnesses = Witnesses(points, np.zeros(shape), np.zeros(shape, dtype=bool))
    return method.result(problem, clock, status=Status.INTERRUPTED, witnesses=witnesses)
