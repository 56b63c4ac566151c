"""Starts are well inside, and the first iterate is on the central path."""

from __future__ import annotations

import dataclasses

import torch
from quadratic.programs import small

from lipcompare.quadratic.solver.dual import slack_matrix
from lipcompare.quadratic.solver.start import default_start, feasible_trace, first_iterate


def test_the_cold_start_has_a_margin_to_the_boundary() -> None:
    data = small()
    lowest = torch.linalg.eigvalsh(slack_matrix(data, default_start(data)))[:, 0]
    assert bool((lowest * data.mask.sum(-1) >= 0.09 - 1e-9).all())


def test_a_multiplier_that_is_too_small_is_raised_and_a_large_one_stays() -> None:
    data = small()
    start = default_start(data)
    outside = dataclasses.replace(start, theta=0.01 * start.theta, d=torch.zeros_like(start.d))
    assert bool((torch.linalg.eigvalsh(slack_matrix(data, outside))[:, 0] < 0).all())
    inside = feasible_trace(data, outside)
    assert bool((torch.linalg.eigvalsh(slack_matrix(data, inside))[:, 0] > 0).all())
    large = dataclasses.replace(start, d=start.d + 5)
    assert torch.equal(feasible_trace(data, large).d, large.d)


def test_the_first_iterate_is_on_the_central_path() -> None:
    """All products of what belongs together are ``mu``, but for ``M S``, whose mean it is."""
    data = small()
    iterate = first_iterate(data, default_start(data), torch.float64)
    c = iterate.coefficients
    mu = iterate.complementarity / c.order
    torch.testing.assert_close(iterate.slacks * iterate.scalars, mu.unsqueeze(-1).expand_as(iterate.slacks))
    x11, x12, x22 = iterate.blocks
    for product in (x11 * iterate.tau - 0.5 * x12, x22 * iterate.lam - 0.5 * x12):
        torch.testing.assert_close(product[c.signs > 0], mu.unsqueeze(-1).expand_as(product)[c.signs > 0])
    torch.testing.assert_close(
        (x12 * iterate.lam - 0.5 * x11)[c.signs > 0], c.signs.new_zeros(int(c.signs.sum())).double()
    )
    unit = torch.eye(data.size, dtype=torch.float64, device=data.limit.device).expand_as(iterate.matrices)
    factors = torch.linalg.cholesky(iterate.matrices)
    torch.testing.assert_close(iterate.inverses @ factors, unit, rtol=0, atol=1e-9)
