"""Running a method example by example, so that what it does for one does not depend on the others of its batch."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from lipcompare.budget import Budget, Clock, Kept
from lipcompare.combine import side_by_side
from lipcompare.methods.base import Method
from lipcompare.problem import Problem
from lipcompare.result import Bound, Status


def example_by_example(
    method: Method, problem: Problem, budget: Budget, run: Callable[[Problem, Budget], Bound]
) -> Bound:
    """``run`` on every example in turn; each may take an equal share of the time that is left.

    Raises:
        KeyboardInterrupt: the user interrupted one of them; the others do not start, and those done are kept.
    """
    if problem.batch == 1:
        return run(problem, budget)
    clock = Clock(budget)
    done: list[Bound] = []
    for b in range(problem.batch):
        share = dataclasses.replace(
            budget,
            time_limit=clock.left / (problem.batch - b),
            on_progress=None,
            on_kept=functools.partial(_keep, clock, b),
        )
        done.append(run(problem.example(b), share))
        if done[-1].status is Status.INTERRUPTED:
            raise KeyboardInterrupt
    merged = side_by_side(done)
    return method.result(
        problem, clock, lower=merged.lower, upper=merged.upper, status=merged.status, detail=merged.detail,
        witnesses=merged.witnesses,
    )  # fmt: skip


def _keep(clock: Clock, example: int, kept: Kept | Callable[[], Kept]) -> None:
    """Keep what one example's run keeps, at that example's place in the batch."""
    clock.keep((lambda: _at(kept(), example)) if callable(kept) else _at(kept, example))


def _at(kept: Kept, by: int) -> Kept:
    return kept._replace(first=kept.first + by)
