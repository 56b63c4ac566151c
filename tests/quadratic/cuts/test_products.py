"""Cuts as columns: their allowance, the most violated ones, and what a round keeps."""

from __future__ import annotations

import nets
import torch
from quadratic.programs import scaled_data_of

from lipcompare.quadratic.cuts.forms import Forms, Group
from lipcompare.quadratic.cuts.products import most_violated, products, separate, useful
from lipcompare.quadratic.program import Cuts, SdpData

DATA = scaled_data_of(nets.problem(nets.dense(7, (3, 7, 6, 2), 0.2), 0.6, batch=2))
RANDOM = torch.Generator().manual_seed(0)


def forms(count: int, error: float = 0.0, group: Group = Group.CHORD) -> Forms:
    columns = torch.randn(DATA.problems, DATA.size, count, generator=RANDOM, dtype=torch.float64)
    return Forms.of(columns * DATA.mask.unsqueeze(-1), group, torch.full((DATA.problems, count), error).double())


def corner(data: SdpData) -> torch.Tensor:
    return data.limit * (2 * torch.randint(0, 2, data.limit.shape, generator=RANDOM) - 1)


def test_forms_have_length_one_and_errors_of_that_size() -> None:
    columns = torch.randn(2, 4, 3, generator=RANDOM, dtype=torch.float64)
    columns[1, :, 2] = 0.0  # a problem without this form
    error = torch.rand(2, 3, generator=RANDOM, dtype=torch.float64)
    made = Forms.of(columns, Group.SIGN, error)
    length = torch.linalg.vector_norm(columns, dim=1)
    torch.testing.assert_close(made.columns * length.unsqueeze(1), columns)
    assert bool(((made.error * length)[length > 0] >= error[length > 0] * (1 - 1e-12)).all())
    assert bool(((made.error * length)[length > 0] <= error[length > 0] * (1 + 1e-9)).all())
    assert made.group.tolist() == [Group.SIGN] * 3
    both = made + Forms.of(columns, Group.CHORD)
    assert both.count == 6 and bool((both.error[:, 3:] <= 1e-12).all())


def test_errors_of_two_forms_move_their_product_by_no_more_than_the_slack() -> None:
    f, g = forms(6, 0.02), forms(6, 0.05)
    mask = torch.rand(DATA.problems, 6, generator=RANDOM) < 0.7
    cuts = products(DATA, f, g, mask, torch.zeros_like(mask))
    assert bool((cuts.slack[~mask] == 0).all()) and bool((cuts.left.abs().sum(1)[~mask] == 0).all())
    worst = torch.zeros_like(cuts.slack)
    for _ in range(200):
        w = corner(DATA)
        u, v = ((w.unsqueeze(1) @ form.columns).squeeze(1) for form in (f, g))
        for a, b in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            moved = (u + a * f.error) * (v + b * g.error) - u * v - a * b * f.error * g.error
            worst = torch.maximum(worst, moved.abs())
    assert bool((worst <= cuts.slack * (1 + 1e-9))[mask].all())
    assert bool((worst >= 0.3 * cuts.slack)[mask].all())


def test_where_both_forms_are_as_large_as_they_get_both_errors_count_together() -> None:
    """The constant by itself, off by 0.1 and 0.2: ``1.1 * 1.2`` is 0.32 above 1."""
    column = torch.zeros(DATA.problems, DATA.size, 1, dtype=torch.float64)
    column[:, 0] = 1.0
    there = torch.ones(DATA.problems, 1, dtype=torch.bool)
    f, g = (Forms.of(column, Group.ONE, torch.full((DATA.problems, 1), error).double()) for error in (0.1, 0.2))
    slack = products(DATA, f, g, there, ~there).slack
    assert bool((DATA.limit[:, 0] == 1).all()) and bool((slack >= 0.32 - 1e-9).all()) and bool((slack <= 0.35).all())


def test_the_most_violated_products_are_found() -> None:
    f = forms(8)
    moments = torch.randn(DATA.problems, DATA.size, DATA.size, generator=RANDOM, dtype=torch.float64)
    moments = moments @ moments.mT - 3 * torch.eye(DATA.size, dtype=torch.float64) * DATA.size
    allowed = torch.zeros(len(Group), len(Group), dtype=torch.bool)
    allowed[Group.CHORD, Group.CHORD] = True
    cuts = separate(DATA, moments, f, allowed, 3)
    for p in range(DATA.problems):
        value = f.columns[p].T @ moments[p] @ f.columns[p]
        lowest = sorted(float(value[i, j]) for i in range(8) for j in range(i + 1))[:3]
        torch.testing.assert_close(cuts.value(moments)[p].sort().values, torch.tensor(lowest, dtype=torch.float64))
    kept = most_violated(moments, cuts, 2)
    assert kept.count == 2
    torch.testing.assert_close(kept.value(moments).abs().amin(-1), cuts.value(moments).abs().topk(2).values[:, -1])


def test_a_round_keeps_the_cuts_that_matter() -> None:
    f = forms(4)
    mask = torch.ones(DATA.problems, 4, dtype=torch.bool)
    cuts = products(DATA, f, f, mask, ~mask)
    nu = torch.tensor([1.0, 0.5, 1e-9, 0.2]).double().expand(DATA.problems, -1)
    assert useful(cuts, nu, 4).count == 3 and useful(cuts, nu, 2).count == 2
    torch.testing.assert_close(useful(cuts, nu, 2).left, cuts.left[:, :, :2])
    assert useful(Cuts.none(DATA.columns), nu[:, :0], 4).count == 0
