"""The iteration itself: both precisions, batches, and nothing that makes a GPU wait."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from quadratic.programs import small
from waits import Waits

from lipcompare.quadratic.solver.certificate import certify
from lipcompare.quadratic.solver.interior_point import solve


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
