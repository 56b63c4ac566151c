"""Dual points: weak duality, multiples, and the row that the Newton system has them in."""

from __future__ import annotations

import dataclasses

import nets
import torch
from quadratic.programs import data_of, small

from lipcompare.quadratic.patterns import explore
from lipcompare.quadratic.program import Cuts
from lipcompare.quadratic.solver.certificate import certify
from lipcompare.quadratic.solver.dual import Dual, best_multiple, dual_value, slack_matrix
from lipcompare.quadratic.solver.start import default_start


def test_weak_duality() -> None:
    """``w' S w`` is what a point's value falls short of the dual one, for the moments ``w w'`` of any pattern:
    the gates' equations hold there, and so it is the sum of ``(sqrt(lam) |g'w| - 1 / (2 sqrt(lam)))^2`` apart."""
    data = data_of(nets.problem(nets.dense(3, (3, 6, 6, 2)), 0.5))
    assert data.entries.shape[-1]
    dual = default_start(data)
    patterns = explore(data)
    points = patterns.points
    ends = (points @ data.entries).abs()
    lam = dual.lam.unsqueeze(1)
    loss = (torch.where(data.entry_mask.unsqueeze(1), (lam.sqrt() * ends - 0.5 / lam.sqrt()).square(), 0.0)).sum(-1)
    quadratic = ((points @ slack_matrix(data, dual)) * points).sum(-1)
    trace = dual.d.unsqueeze(-1) * (points.square().sum(-1) - data.bound.unsqueeze(-1))
    value = dual_value(data, dual).unsqueeze(-1)
    torch.testing.assert_close(value - patterns.values, quadratic + loss - trace, rtol=1e-9, atol=1e-9)


def test_the_best_multiple_of_a_dual_point_is_feasible_and_no_worse() -> None:
    data = small(4, (6, 16, 16, 16, 3), 0.8)
    scalable = ~data.cost.flatten(1).any(-1)
    assert bool(scalable.any())
    start = default_start(data)
    signs = torch.where(data.entry_mask, 0.25 / start.lam, 0.0).sum(-1)
    t = best_multiple(signs, dual_value(data, start) - signs, scalable)
    point = Dual(start.theta * t.unsqueeze(-1), start.lam * t.unsqueeze(-1), start.d * t, start.nu)
    value = dual_value(data, point)
    assert bool((value < dual_value(data, start))[scalable].all())
    assert bool((torch.linalg.eigvalsh(slack_matrix(data, point))[:, 0] > 0).all())
    assert bool((certify(data, point) <= value + data.offset + 1e-9).all())


def test_a_row_and_back() -> None:
    data = small()
    start = default_start(data)
    back = Dual.of_row(start.row(data), data.size, data.entries.shape[-1])
    assert back.nu is not None
    for one, other in ((start.theta, back.theta), (start.lam, back.lam), (start.d, back.d)):
        assert torch.equal(one, other)
    index = torch.tensor([1])
    assert torch.equal(start.select(index).row(data.select(index)), start.row(data)[1:2])


def test_cuts_are_taken_from_the_slack_matrix_both_ways_round() -> None:
    """``f g' + g f'`` times the multiplier, so that the matrix stays symmetric."""
    data = small()
    random = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, data.problems, data.size, 3, generator=random, dtype=torch.float64)
    nu = torch.rand(data.problems, 3, generator=random, dtype=torch.float64)
    there = torch.ones(data.problems, 3, dtype=torch.bool)
    cut = data.with_cuts(Cuts(left=left, right=right, mask=there, equal=~there, slack=0 * nu))
    dual = default_start(data)
    products = torch.einsum("pc,pic,pjc->pij", nu, left, right)
    found = slack_matrix(data, dual) - slack_matrix(cut, dataclasses.replace(dual, nu=nu))
    torch.testing.assert_close(found, products + products.mT)
