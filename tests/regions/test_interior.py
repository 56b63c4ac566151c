"""The interior point method against another solver, and where it has nothing to go on."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch

from lipcompare.regions.interior import deepest_points


@pytest.mark.parametrize(("rows", "inputs"), [(1, 1), (3, 8), (8, 3), (40, 16), (90, 60)])
def test_points_and_multipliers_are_about_optimal(rows: int, inputs: int) -> None:
    """Polytopes with and without an interior, in one batch; any multipliers bound the depth from above."""
    random = torch.Generator().manual_seed(rows)
    A = torch.randn(6, rows, inputs, generator=random, dtype=torch.float64)
    A = A / A.abs().sum(-1, keepdim=True)
    b = torch.rand(6, rows, generator=random, dtype=torch.float64) - torch.linspace(0.1, 0.9, 6).unsqueeze(-1)
    points, multipliers = deepest_points(A, b)
    assert (points.abs() < 1).all() and (multipliers > 0).all() and (multipliers.sum(-1) < 1 + 1e-9).all()
    depth = ((A @ points.unsqueeze(-1)).squeeze(-1) + b).amin(-1).clamp(max=1.0)
    above = (multipliers * b).sum(-1) + (multipliers.unsqueeze(1) @ A).squeeze(1).abs().sum(-1)
    above = above + (1 - multipliers.sum(-1)).clamp(min=0)  # of t <= 1
    signs = set()
    for i in range(6):
        program = scipy.optimize.linprog(
            [0.0] * inputs + [-1.0], A_ub=np.hstack([-A[i].numpy(), np.ones((rows, 1))]), b_ub=b[i].numpy(),
            bounds=[(-1, 1)] * inputs + [(None, 1)],
        )  # fmt: skip
        signs.add(np.sign(-program.fun))
        assert float(depth[i]) == pytest.approx(-program.fun, abs=1e-4) and float(depth[i]) <= -program.fun + 1e-9
        assert float(above[i]) == pytest.approx(-program.fun, abs=1e-4) and float(above[i]) >= -program.fun - 1e-9
    assert signs == ({-1.0, 1.0} if rows > inputs else {1.0})


def test_one_polytope_does_not_depend_on_the_others() -> None:
    """Not even on one of rows that are no numbers."""
    A = torch.tensor([[[0.6, 0.4], [-0.5, 0.5]], [[np.nan, 1.0], [1.0, 0.0]]], dtype=torch.float64)
    b = torch.tensor([[0.1, -0.2], [0.0, 0.0]], dtype=torch.float64)
    points, multipliers = deepest_points(A, b)
    alone = deepest_points(A[:1], b[:1])
    torch.testing.assert_close(points[:1], alone[0])
    torch.testing.assert_close(multipliers[:1], alone[1])


def test_rows_of_zeros_fill_up() -> None:
    A = torch.tensor([[[0.7, 0.3], [-0.5, 0.5]]], dtype=torch.float64)
    b = torch.tensor([[-0.3, 0.1]], dtype=torch.float64)
    filled = torch.cat([A, torch.zeros(1, 3, 2, dtype=torch.float64)], 1), torch.cat([b, torch.ones(1, 3)], 1)
    points, multipliers = deepest_points(A, b)
    there, of_all = deepest_points(*filled)
    torch.testing.assert_close(points, there, rtol=0, atol=1e-5)
    torch.testing.assert_close(multipliers, of_all[:, :2], rtol=0, atol=1e-5)
    assert (of_all[:, 2:] < 1e-6).all()
