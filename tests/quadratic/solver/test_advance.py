"""Iterates stay inside of the cone, and the multipliers and matrices go together."""

from __future__ import annotations

import dataclasses

import torch
from quadratic.programs import small

from lipcompare.quadratic.solver.advance import advance, with_loose_trace
from lipcompare.quadratic.solver.dual import Dual, slack_matrix
from lipcompare.quadratic.solver.start import default_start, first_iterate


def test_iterates_stay_inside_with_and_without_asking() -> None:
    data = small(4, (6, 16, 16, 16, 3), 0.8)
    for ask in (True, False):
        iterate = first_iterate(data, default_start(data), torch.float64)
        for _ in range(8):
            iterate, healthy = advance(iterate, ask=ask)
            assert bool(healthy.all())
            assert bool((torch.linalg.eigvalsh(iterate.matrices)[..., 0] > 0).all())
            factors = torch.linalg.cholesky(iterate.matrices)
            unit = torch.eye(data.size, dtype=torch.float64).expand_as(factors)
            torch.testing.assert_close(iterate.inverses @ factors, unit, atol=1e-6, rtol=0)
            # S is what the multipliers say.
            dual = Dual.of_row(iterate.y, data.size, data.entries.shape[-1])
            torch.testing.assert_close(slack_matrix(data, dual), iterate.matrices[1], atol=1e-9, rtol=0)
        assert bool((iterate.infeasible < 0.2).all())


def test_the_trace_constraint_gives_way_before_it_binds() -> None:
    """To twice its value, and no further than what is proved; not where it has room, nor far from feasible."""
    data = small()
    iterate = first_iterate(data, default_start(data), torch.float64)
    bound = iterate.coefficients.bound
    for share in (0.3, 0.8):
        trace = share * bound
        near, far = iterate.slacks.clone(), iterate.slacks.clone()
        near[:, 0], far[:, 0] = 0.1 * trace, 0.5 * trace
        tight = dataclasses.replace(
            iterate,
            coefficients=dataclasses.replace(iterate.coefficients, trace=trace),
            slacks=near,
            infeasible=torch.full_like(trace, 0.2),
        )
        loose = with_loose_trace(tight)
        torch.testing.assert_close(loose.coefficients.trace, min(1.0, 2 * share) * bound)
        torch.testing.assert_close(loose.slacks[:, 0] - near[:, 0], loose.coefficients.trace - trace)
        assert torch.equal(loose.slacks[:, 1:], near[:, 1:])
        for change in ({"slacks": far}, {"infeasible": torch.ones_like(trace)}):
            still = with_loose_trace(dataclasses.replace(tight, **change))
            assert torch.equal(still.coefficients.trace, trace)
