"""Example by example: an equal share of what is left, each at its place in the batch."""

from __future__ import annotations

import nets
import numpy as np
import pytest
from scripted import Scripted

from lipcompare import Bound, Status
from lipcompare.budget import Budget, Clock, Kept
from lipcompare.methods.combine import SoFar
from lipcompare.methods.each import example_by_example
from lipcompare.witness import check_witnesses

PROBLEM = nets.problem(nets.dense(0, (2, 3, 2)), 0.1, batch=3)
UNKNOWN = Scripted().result(PROBLEM, Clock(Budget()))


def test_each_may_take_an_equal_share_and_comes_back_in_its_place() -> None:
    limits: list[float] = []

    def run(example: int, clock: Clock) -> Bound:
        limits.append(clock.budget.time_limit)
        assert example == len(limits) - 1 and clock.budget.on_progress is None
        value = float(len(limits))
        return Scripted(low=value, high=value + 1).run(PROBLEM.example(example), clock.budget)

    result = example_by_example(PROBLEM, UNKNOWN, Clock(Budget(time_limit=30.0)), run)
    assert result.lower[:, 0].tolist() == [1.0, 2.0, 3.0] and result.upper[:, 1].tolist() == [2.0, 3.0, 4.0]
    np.testing.assert_allclose(limits, [10.0, 15.0, 30.0], rtol=0.05)


def test_an_interrupt_starts_no_other_and_what_was_kept_is_at_its_example() -> None:
    so_far = SoFar(3, 2)
    ran: list[int] = []

    def run(example: int, clock: Clock) -> Bound:
        ran.append(example)
        if len(ran) == 2:
            clock.keep(lambda: Kept(0, np.full((1, 2), 7.0)))
            return Scripted().result(PROBLEM.example(example), clock, status=Status.INTERRUPTED)
        clock.keep(Kept(0, np.full((1, 2), 5.0)))
        return Scripted().run(PROBLEM.example(example), clock.budget)

    with pytest.raises(KeyboardInterrupt):
        example_by_example(PROBLEM, UNKNOWN, Clock(Budget(on_kept=so_far.take)), run)
    so_far.ask()
    assert len(ran) == 2 and so_far.upper[:, 0].tolist()[0] <= 5.0
    assert so_far.upper[1].tolist() == [7.0, 7.0] and np.isinf(so_far.upper[2]).all()


def test_the_witnesses_of_some_examples_are_kept_where_the_time_does_not_reach_the_others() -> None:
    """Found by experiments.faults: the lower end of the first was lost with the witnesses that the second had not."""
    clock = Clock(Budget(time_limit=30.0))

    def run(example: int, share: Clock) -> Bound:
        clock.started -= 60.0  # the time is over with the first
        return Scripted("witness").run(PROBLEM.example(example), share.budget)

    result = example_by_example(PROBLEM, UNKNOWN, clock, run)
    assert result.witnesses is not None and (result.witnesses.values[0] > 0).all()
    assert (result.witnesses.values[1:] == 0).all() and (result.lower[1:] == 0).all()
    assert (check_witnesses(PROBLEM, result.witnesses) >= result.witnesses.values * (1 - 1e-9)).all()


def test_where_no_example_has_witnesses_there_are_none() -> None:
    def run(example: int, share: Clock) -> Bound:
        return Scripted().run(PROBLEM.example(example), share.budget)

    assert example_by_example(PROBLEM, UNKNOWN, Clock(Budget()), run).witnesses is None
