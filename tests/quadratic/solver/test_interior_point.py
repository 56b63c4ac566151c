"""The iteration itself: both precisions, batches, and nothing that makes a GPU wait."""

from __future__ import annotations

from typing import Any

import nets
import pytest
import torch
from waits import Waits

from lipcompare.gates import Gates
from lipcompare.jacobian import gradient_intervals, norm_bound
from lipcompare.preactivation import interval_bounds
from lipcompare.quadratic.patterns import explore
from lipcompare.quadratic.program import SdpData, gate_maps, l1_data
from lipcompare.quadratic.scaling import rescaled
from lipcompare.quadratic.solver import interior_point
from lipcompare.quadratic.solver.advance import advance
from lipcompare.quadratic.solver.certificate import certify
from lipcompare.quadratic.solver.interior_point import default_start, solve


def data_of(seed: int = 8, sizes: tuple[int, ...] = (5, 12, 12, 3), eps: float = 0.5) -> SdpData:
    problem = nets.problem(nets.dense(seed, sizes), eps)
    network = problem.network
    gates = Gates.from_preactivations(network, interval_bounds(network, problem.box.interval))
    gradients = gradient_intervals(network, gates, problem.functionals)
    linear = norm_bound(network, gates, problem.functionals, gradients, problem.norm)
    maps = gate_maps(network, gates, problem.functionals, gradients)
    example, row = (linear > 0).nonzero(as_tuple=True)
    data = l1_data(maps, gradients, linear[example, row], example, row)
    return rescaled(data, explore(data))


@pytest.mark.parametrize("competing", [False, True])
@pytest.mark.parametrize("tolerance", [3e-3, 1e-4])
def test_between_reviews_nothing_waits(competing: bool, tolerance: float) -> None:
    data = data_of()
    options: dict[str, Any] = {"group": torch.zeros(data.problems, dtype=torch.int64)} if competing else {}
    counts = []
    for most in (4, 8):
        with Waits() as waits:
            solution = solve(data, tolerance=tolerance, max_iterations=most, review=100, **options)
        assert solution.iterations.tolist() == [most] * data.problems
        counts.append(waits.count)
    assert counts[0] == counts[1]


def test_reviews_change_no_result_beyond_the_tolerance() -> None:
    data = data_of()
    every, fourth = (solve(data, tolerance=1e-4, review=review) for review in (1, 4))
    assert bool(fourth.converged.all())
    torch.testing.assert_close(certify(data, fourth.dual), certify(data, every.dual), rtol=2e-4, atol=0)


@pytest.mark.parametrize("tolerance", [3e-3, 1e-4])
def test_single_precision_loses_nothing_that_shows(tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, sizes, eps in ((8, (5, 12, 12, 3), 0.5), (4, (6, 16, 16, 16, 3), 0.8), (9, (5, 14, 14, 14, 14, 2), 0.6)):
        data = data_of(seed, sizes, eps)
        uppers, taken = [], []
        for large in (1, 10**9):
            monkeypatch.setattr(interior_point, "_LARGE", large)
            solution = solve(data, tolerance=tolerance)
            assert bool(solution.converged.all())
            uppers.append(certify(data, solution.dual))
            taken.append(int(solution.iterations.sum()))
        torch.testing.assert_close(uppers[0], uppers[1], rtol=tolerance, atol=0)
        assert taken[0] <= 1.2 * taken[1]


def test_iterates_stay_inside_with_and_without_asking() -> None:
    data = data_of(4, (6, 16, 16, 16, 3), 0.8)
    for ask in (True, False):
        iterate = interior_point._start(data, default_start(data), torch.float64)
        for _ in range(8):
            iterate, healthy = advance(iterate, ask=ask)
            assert bool(healthy.all())
            assert bool((torch.linalg.eigvalsh(iterate.matrices)[..., 0] > 0).all())
            factors = torch.linalg.cholesky(iterate.matrices)
            unit = torch.eye(data.size, dtype=torch.float64).expand_as(factors)
            torch.testing.assert_close(iterate.inverses @ factors, unit, atol=1e-6, rtol=0)
            # S is what the multipliers say.
            n, signs = data.size, data.entries.shape[-1]
            dual = interior_point.Dual(iterate.theta, iterate.lam, iterate.d, iterate.y[:, n + signs + 1 :])
            torch.testing.assert_close(interior_point.slack_matrix(data, dual), iterate.matrices[1], atol=1e-9, rtol=0)
        assert bool((iterate.infeasible < 0.2).all())


def test_a_target_that_single_precision_meets_is_met_by_the_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the iterate's own value is the target: what the certificate adds is left for it."""
    monkeypatch.setattr(interior_point, "_LARGE", 1)
    data = data_of()
    history = solve(data, tolerance=1e-3).history
    stopped = 0
    for step in range(2, len(history) - 1):
        target = history[step].clone()
        solution = solve(data, tolerance=1e-3, target=target)
        met = solution.stopped
        stopped += int(met.sum())
        assert bool((certify(data, solution.dual) - data.offset <= target)[met].all())
    assert stopped > 3


def test_a_gap_means_nothing_before_the_iterate_is_feasible() -> None:
    data = data_of(4, (6, 16, 16, 16, 3), 0.8)
    first = interior_point._start(data, default_start(data), torch.float64)
    solution = solve(data, tolerance=0.9)
    assert bool(solution.converged.all())
    assert bool((solution.infeasibility <= 2e-3 * interior_point._infeasibility(first)).all())
