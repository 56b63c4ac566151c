"""The iteration itself: both precisions, batches, and nothing that makes a GPU wait."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from quadratic.programs import small
from waits import Waits

from lipcompare.budget import Deadline
from lipcompare.quadratic.solver.certificate import certify
from lipcompare.quadratic.solver.dual import slack_matrix
from lipcompare.quadratic.solver.interior_point import _Run, solve
from lipcompare.quadratic.solver.start import default_start, first_iterate
from lipcompare.quadratic.solver.stopping import Rules


@pytest.mark.parametrize("competing", [False, True])
@pytest.mark.parametrize("tolerance", [3e-3, 1e-4])
def test_between_reviews_nothing_waits(competing: bool, tolerance: float) -> None:
    data = small()
    options: dict[str, Any] = {"group": torch.zeros_like(data.row)} if competing else {}
    counts = []
    for most in (4, 8):
        with Waits() as waits:
            solution = solve(data, tolerance=tolerance, max_iterations=most, review=100, **options)
        assert solution.iterations.tolist() == [most] * data.problems
        counts.append(waits.count)
    assert counts[0] == counts[1]


def test_reviews_change_no_result_beyond_the_tolerance() -> None:
    data = small()
    every, fourth = (solve(data, tolerance=1e-4, review=review) for review in (1, 4))
    assert bool(fourth.converged.all())
    torch.testing.assert_close(certify(data, fourth.dual), certify(data, every.dual), rtol=2e-4, atol=0)


def test_problems_that_wait_for_double_precision_come_back_in_their_own_places() -> None:
    """In whatever order they left single precision."""
    data = small()
    rules = Rules(1e-4, 40, None, None, None, compete=True, deadline=Deadline(), review=1)
    start = default_start(data)
    run, single = _Run.begin(data, start, rules), first_iterate(data, start, torch.float32)
    for which in ([2], [0, 1]):
        index = torch.tensor(which)
        run.waiting.append((single.select(index), index))
    waiting = run.take_waiting()
    assert waiting is not None and run.take_waiting() is None
    iterate, where = waiting
    assert where.tolist() == [0, 1, 2]
    assert torch.equal(iterate.y, single.y.double()) and torch.equal(iterate.coefficients.k, data.columns)


def test_a_start_that_is_not_feasible_is_made_so() -> None:
    data = small()
    start = default_start(data)
    outside = dataclasses.replace(start, theta=0.01 * start.theta, d=torch.zeros_like(start.d))
    assert bool((torch.linalg.eigvalsh(slack_matrix(data, outside))[:, 0] < 0).all())
    optimum = solve(data, tolerance=1e-9).value
    found = solve(data, tolerance=1e-6, start=outside)
    assert bool(found.converged.all()) and bool((found.history >= optimum * (1 - 1e-9)).all())
    torch.testing.assert_close(found.value, optimum, rtol=2e-6, atol=0)
