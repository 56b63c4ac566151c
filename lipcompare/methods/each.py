"""Going on with a batch example by example, so that what is done for one does not depend on the others."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from lipcompare.budget import Clock, Kept, TracePoint
from lipcompare.methods.combine import side_by_side
from lipcompare.problem import Problem
from lipcompare.result import Attained, Bound, Status, closed
from lipcompare.witness import as_noted


def example_by_example(problem: Problem, known: Bound, clock: Clock, run: Callable[[int, Clock], Bound]) -> Bound:
    """What is ``known`` of a problem, improved by ``run`` for every example in turn.

    Each may take an equal share of the time that is left. Those whose interval is closed are left alone, and those that
    the time does not reach too. Where some have witnesses and others none, the middle of their box with the value 0
    stands in for theirs.

    Raises:
        KeyboardInterrupt: the user interrupted one of them; the others do not start, and those done are kept.
    """
    budget, batch = clock.budget, len(known.upper)
    done: list[Bound] = []
    for b in range(batch):
        part = known.example(b)
        if closed(part.lower, part.upper, budget.gap):
            done.append(dataclasses.replace(part, status=Status.EXACT))
            continue
        if not clock.running():
            done.append(dataclasses.replace(part, status=Status.TIME_LIMIT))
            continue
        share = dataclasses.replace(
            budget,
            time_limit=clock.left / (batch - b),
            on_progress=functools.partial(_take, clock) if batch == 1 else None,
            on_kept=functools.partial(_keep, clock, b),
        )
        done.append(run(b, Clock(share)))
        if done[-1].status is Status.INTERRUPTED:
            raise KeyboardInterrupt
    if any(part.witnesses is not None for part in done):
        none = as_noted(problem, [Attained(problem.rows) for _ in done])
        done = [
            part if part.witnesses is not None else dataclasses.replace(part, witnesses=none.part(slice(b, b + 1)))
            for b, part in enumerate(done)
        ]
    return side_by_side(done)


def within(clock: Clock, seconds: float) -> Clock:
    """A clock that stops earlier, for one of the methods that take part; what it records is taken up."""
    return Clock(dataclasses.replace(clock.budget, time_limit=seconds, on_progress=functools.partial(_take, clock)))


def _take(clock: Clock, point: TracePoint) -> None:
    """A point of the trace from what one of the methods has found, where it adds to what is known."""
    low, high = (clock.trace[-1].lower, clock.trace[-1].upper) if clock.trace else (0.0, float("inf"))
    if point.lower > low or point.upper < high:
        clock.record(max(low, point.lower), min(high, point.upper))


def _keep(clock: Clock, example: int, kept: Kept | Callable[[], Kept]) -> None:
    """Keep what one example's run keeps, at that example's place in the batch."""
    clock.keep((lambda: _at(kept(), example)) if callable(kept) else _at(kept, example))


def _at(kept: Kept, by: int) -> Kept:
    return kept._replace(first=kept.first + by)
