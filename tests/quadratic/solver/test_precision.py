"""Single precision first: it loses nothing that shows, and double precision goes on where it stopped."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from quadratic.programs import small

from lipcompare.quadratic.program import Cuts
from lipcompare.quadratic.solver import precision
from lipcompare.quadratic.solver.advance import advance
from lipcompare.quadratic.solver.certificate import certify
from lipcompare.quadratic.solver.dual import Dual, slack_matrix
from lipcompare.quadratic.solver.interior_point import solve
from lipcompare.quadratic.solver.precision import pays_single, restored
from lipcompare.quadratic.solver.start import default_start, first_iterate


@pytest.mark.parametrize("tolerance", [3e-3, 1e-4])
def test_single_precision_loses_nothing_that_shows(tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, sizes, eps in ((8, (5, 12, 12, 3), 0.5), (4, (6, 16, 16, 16, 3), 0.8), (9, (5, 14, 14, 14, 14, 2), 0.6)):
        data = small(seed, sizes, eps)
        uppers, taken = [], []
        for large in (1, 10**9):
            monkeypatch.setattr(precision, "_LARGE", large)
            solution = solve(data, tolerance=tolerance, review=1)
            assert bool(solution.converged.all())
            uppers.append(certify(data, solution.dual))
            taken.append(int(solution.iterations.sum()))
        torch.testing.assert_close(uppers[0], uppers[1], rtol=tolerance, atol=0)
        assert taken[0] <= 1.2 * taken[1]


def test_a_target_that_single_precision_meets_is_met_by_the_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the iterate's own value is the target: what the certificate adds is left for it."""
    monkeypatch.setattr(precision, "_LARGE", 1)
    data = small()
    history = solve(data, tolerance=1e-3).history
    stopped = 0
    for step in range(2, len(history) - 1):
        target = history[step].clone()
        solution = solve(data, tolerance=1e-3, target=target)
        met = solution.stopped
        stopped += int(met.sum())
        assert bool((certify(data, solution.dual) - data.offset <= target)[met].all())
    assert stopped > 3


def test_single_precision_is_for_large_programs_without_equations_among_their_cuts() -> None:
    data, little = small(4, (6, 30, 30, 3), 0.8), small()
    column = torch.ones(data.problems, data.size, 1, dtype=torch.float64)
    there = torch.ones(data.problems, 1, dtype=torch.bool)
    inequality = Cuts(left=column, right=column, mask=there, equal=~there, slack=0.0 * there)
    assert data.size >= 48 > little.size
    assert pays_single(data) and pays_single(data.with_cuts(inequality))
    assert not pays_single(data.with_cuts(dataclasses.replace(inequality, equal=there)))
    assert not pays_single(little) and not pays_single(dataclasses.replace(data, columns=data.columns.float()))


@pytest.mark.parametrize("large", [1, 10**9])
def test_a_target_needs_a_margin_in_single_precision_alone(large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1e-5 of it; and a problem that has met it is done."""
    monkeypatch.setattr(precision, "_LARGE", large)
    data = small()
    history = solve(data, tolerance=1e-3).history
    for step in (2, 3):
        assert bool((history[step] < 0.99 * history[step - 1]).all())
        for above, again in ((0.5e-5, large == 1), (2e-5, False)):
            found = solve(data, tolerance=1e-3, target=history[step] * (1 + above))
            assert bool(found.stopped.all()) and bool((found.iterations == step + again).all())


def test_what_single_precision_alone_has_done_is_not_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where iterations end as double precision would take over, or soon after it did."""
    monkeypatch.setattr(precision, "_LARGE", 1)
    data, tolerance = small(), 1e-6
    optimum = solve(data, tolerance=1e-9).value
    for most in range(3, 12):
        found = solve(data, tolerance=tolerance, max_iterations=most)
        near = found.value <= optimum * (1 + 2 * tolerance)
        assert bool(near[found.converged].all())
    assert bool(solve(data, tolerance=tolerance).converged.all())


def test_a_restored_iterate_is_inside_and_says_what_its_multipliers_say() -> None:
    """Also where rounding has taken a matrix out of the cone: ``d`` makes up for it."""
    data = small()
    iterate = first_iterate(data, default_start(data), torch.float32)
    for _ in range(6):
        iterate, _ = advance(iterate)
    iterate.y[:, data.size + data.entries.shape[-1]] -= 2 * torch.linalg.eigvalsh(iterate.matrices[1])[:, 0]
    double = restored(data, iterate)
    assert double.y.dtype == torch.float64
    assert bool((torch.linalg.eigvalsh(double.matrices) > 0).all())
    dual = Dual.of_row(double.y, data.size, data.entries.shape[-1])
    torch.testing.assert_close(slack_matrix(data, dual), double.matrices[1], rtol=0, atol=1e-12)
