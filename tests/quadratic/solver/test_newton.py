"""The Newton system by its definition: its directions solve the linearised equations."""

from __future__ import annotations

import dataclasses

import nets
import pytest
import torch
from quadratic.programs import scaled_data_of
from torch import Tensor

from lipcompare.quadratic.cuts.forms import Forms, Group
from lipcompare.quadratic.cuts.products import products
from lipcompare.quadratic.program import SdpData
from lipcompare.quadratic.solver.advance import advance
from lipcompare.quadratic.solver.iterate import Iterate, inner, joined
from lipcompare.quadratic.solver.newton import NewtonSystem, Step
from lipcompare.quadratic.solver.start import default_start, first_iterate


def with_cuts(data: SdpData, size: float = 1.0) -> SdpData:
    """Made-up cuts, one of them an equation: the directions are what counts, not what the cuts mean."""
    random = torch.Generator().manual_seed(0)
    drawn = [torch.rand(data.problems, data.size, 3, generator=random, dtype=torch.float64) for _ in range(2)]
    f, g = (Forms.of(each.to(data.columns) * data.mask.unsqueeze(-1), Group.CHORD) for each in drawn)
    mask = torch.ones_like(f.columns[:, 0], dtype=torch.bool)
    equal = torch.tensor([False, True, False], device=mask.device).expand(data.problems, -1)
    cuts = products(data, f, g, mask, equal)
    return data.with_cuts(dataclasses.replace(cuts, left=size * cuts.left, right=size * cuts.right))


def iterate_of(cuts: bool, steps: int = 2) -> Iterate:
    data = scaled_data_of(nets.problem(nets.dense(7, (3, 7, 6, 2)), 0.8, batch=2))
    assert data.entries.shape[-1]
    data = with_cuts(data) if cuts else data
    iterate = first_iterate(data, default_start(data), torch.float64)
    for _ in range(steps):
        iterate, healthy = advance(iterate)
        assert bool(healthy.all())
    return iterate


def constraints(iterate: Iterate, m: Tensor, blocks: Tensor, slacks: Tensor) -> Tensor:
    """What every primal constraint says of ``M``, the blocks and the slacks, (problems, n + J + 1 + cuts)."""
    c = iterate.coefficients
    gates = 2 * (m * c.k).sum(-2)
    signs = -((c.g @ m) * c.g).sum(-1) + blocks[2] * c.signs
    trace = (m.diagonal(dim1=-2, dim2=-1) * c.present).sum(-1, keepdim=True)
    cuts = -2 * ((c.left @ m) * c.right).sum(-1)
    return torch.cat([gates, signs, torch.cat([trace, cuts], -1) + slacks * c.pairs], -1)


def right_hand_side(iterate: Iterate) -> Tensor:
    c = iterate.coefficients
    zero = torch.zeros_like
    return torch.cat([c.b, zero(c.signs), c.trace.unsqueeze(-1), zero(c.cuts)], -1)


@pytest.mark.parametrize("cuts", [False, True])
def test_the_predictor_solves_the_linearised_equations(cuts: bool) -> None:
    iterate = iterate_of(cuts)
    c, newton = iterate.coefficients, NewtonSystem(iterate)
    assert bool(newton.healthy.all())
    step = newton.predictor()
    m = iterate.matrices[0]
    dm, ds = step.matrices
    # Feasible after a full step.
    reached = constraints(iterate, m + dm, iterate.blocks + step.blocks, iterate.slacks + step.slacks)
    present = torch.cat([c.present * (1 - c.free), c.signs, torch.ones_like(c.trace).unsqueeze(-1), c.cuts], -1)
    torch.testing.assert_close(reached * present, right_hand_side(iterate) * present, atol=1e-7, rtol=0)
    # x_11 = 1: the signs' blocks.
    torch.testing.assert_close((iterate.blocks + step.blocks)[0] * c.signs, c.signs, atol=1e-7, rtol=0)
    # HKM: M S + (M dS + dM S) symmetrised through S is zero.
    p = newton.p
    residual = m + dm + 0.5 * (m @ ds @ p + (m @ ds @ p).mT)
    absent = torch.diag_embed(1 - c.present)
    torch.testing.assert_close(residual * (1 - absent), torch.zeros_like(m), atol=1e-7, rtol=0)
    # The slacks' and scalars' products.
    dscalars = step.y[:, c.size + c.sign_count :]
    linear = iterate.slacks * iterate.scalars + step.slacks * iterate.scalars + iterate.slacks * dscalars
    torch.testing.assert_close(linear * c.pairs, torch.zeros_like(linear), atol=1e-9, rtol=0)


@pytest.mark.parametrize("cuts", [False, True])
def test_the_corrector_goes_to_the_central_path(cuts: bool) -> None:
    """Still feasible after a full step; the pairs' products are ``mu`` less the predictor's second order."""
    iterate = iterate_of(cuts)
    c, newton = iterate.coefficients, NewtonSystem(iterate)
    aff = newton.predictor()
    mu = 0.1 * iterate.complementarity / c.order
    step = newton.corrector(mu, aff)
    reached = constraints(iterate, iterate.matrices[0] + step.matrices[0], iterate.blocks + step.blocks,
                          iterate.slacks + step.slacks)  # fmt: skip
    present = torch.cat([c.present * (1 - c.free), c.signs, torch.ones_like(c.trace).unsqueeze(-1), c.cuts], -1)
    torch.testing.assert_close(reached * present, right_hand_side(iterate) * present, atol=1e-7, rtol=0)
    at = c.size + c.sign_count
    linear = iterate.slacks * iterate.scalars + step.slacks * iterate.scalars + iterate.slacks * step.y[:, at:]
    expected = mu.unsqueeze(-1) - aff.slacks * aff.y[:, at:]
    torch.testing.assert_close(linear * c.pairs, expected * c.pairs, atol=1e-8, rtol=1e-6)


def test_the_slack_matrix_moves_with_the_multipliers() -> None:
    iterate = iterate_of(True)
    c = iterate.coefficients
    step = NewtonSystem(iterate).predictor()
    n, at = c.size, c.size + c.sign_count
    dtheta, dlam, dd, dnu = step.y[:, :n], step.y[:, n:at], step.y[:, at], step.y[:, at + 1 :]
    half = c.k * dtheta.unsqueeze(-2)
    cuts = (c.left * dnu.unsqueeze(-1)).mT @ c.right
    expected = half + half.mT - (c.g * dlam.unsqueeze(-1)).mT @ c.g - cuts - cuts.mT
    expected = expected + torch.diag_embed(dd.unsqueeze(-1) * c.present)
    torch.testing.assert_close(step.matrices[1], expected)
    torch.testing.assert_close(step.product, expected @ NewtonSystem(iterate).p)


def test_sparse_and_dense_changes_of_the_slack_matrix_agree() -> None:
    iterate = iterate_of(False)
    dense, sparse = NewtonSystem(iterate), NewtonSystem(iterate)
    sparse.products.sparse = True
    one, other = dense.predictor(), sparse.predictor()
    for field in ("y", "tau", "blocks", "slacks", "matrices", "product"):
        torch.testing.assert_close(getattr(other, field), getattr(one, field), msg=field)


def test_problems_are_selected_and_joined() -> None:
    iterate = iterate_of(True)
    count = len(iterate.y)
    numbers = torch.arange(count, device=iterate.y.device).flip(0)
    again = joined([iterate.select(i) for i in numbers.split(1)]).select(numbers)
    for field in ("y", "tau", "blocks", "slacks", "matrices", "inverses", "infeasible", "caution"):
        assert torch.equal(getattr(again, field), getattr(iterate, field)), field
    assert torch.equal(again.coefficients.k, iterate.coefficients.k)


def test_complementarity_is_the_sum_of_all_pairs() -> None:
    iterate = iterate_of(True)
    c, (m, s) = iterate.coefficients, iterate.matrices
    total = inner(m, s) - c.absent + (iterate.slacks * iterate.scalars * c.pairs).sum(-1)
    for p in range(len(iterate.y)):
        for j in range(c.sign_count):
            x11, x12, x22 = (float(v[p, j]) for v in iterate.blocks)
            tau, lam = float(iterate.tau[p, j]), float(iterate.lam[p, j])
            total[p] += float(c.signs[p, j]) * (x11 * tau - x12 + x22 * lam)
    torch.testing.assert_close(iterate.complementarity, total)
    expected = c.present.sum(-1) + 2 * c.signs.sum(-1) + c.pairs.sum(-1)
    assert torch.equal(c.order, expected)


def predicted(data: SdpData, nu: float) -> Step:
    """From the cold start of a program of cuts, whose multipliers are ``nu``, and 0 of equations."""
    iterate = first_iterate(
        data,
        dataclasses.replace(default_start(data.without_cuts()), nu=nu * (~data.cuts.equal).to(data.limit)),
        torch.float64,
    )
    newton = NewtonSystem(iterate)
    assert bool(newton.healthy.all())
    return newton.predictor()


def test_the_size_of_cuts_does_not_matter() -> None:
    """A thousandth as large, their rows of the system are 10^-12 times as large: the direction is the same."""
    data = scaled_data_of(nets.problem(nets.dense(7, (3, 7, 6, 2)), 0.8, batch=2))
    one, other = (predicted(with_cuts(data, size), 1e-3 * size**-2) for size in (1.0, 1e-3))
    at = data.size + data.entries.shape[-1] + 1
    torch.testing.assert_close(other.matrices, one.matrices, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(1e-6 * other.y[:, at:], one.y[:, at:], rtol=1e-6, atol=1e-6)


def test_an_equation_that_is_there_twice_breaks_no_system() -> None:
    """Nor changes what the direction is, beyond what makes the system regular."""
    data = with_cuts(scaled_data_of(nets.problem(nets.dense(7, (3, 7, 6, 2)), 0.8, batch=2)))
    twice = data.with_cuts(data.cuts + data.cuts.where(data.cuts.equal) + data.cuts.where(data.cuts.equal))
    torch.testing.assert_close(predicted(twice, 1e-3).matrices, predicted(data, 1e-3).matrices, rtol=1e-4, atol=1e-4)
