"""The search for large gradients: points of the domain, better than chance, the same in any batch, in the effort."""

from __future__ import annotations

import dataclasses

import nets
import pytest
import torch
from branching.brute import exact_rows

from lipcompare import Network, Problem
from lipcompare.attack import search as module
from lipcompare.attack.search import Effort, kink_patterns, search
from lipcompare.budget import Deadline
from lipcompare.network.graph import Affine
from lipcompare.network.linear_maps import Dense
from lipcompare.witness import gradient_norms

SMALL = Effort(samples=64, starts=4, ascent_steps=8, rounds=10, proposals=4, regions=0)
PROBLEM = nets.problem(nets.dense(3, (3, 8, 6, 2)), 0.5, batch=3)


def norms(problem: Problem, points: torch.Tensor) -> torch.Tensor:
    """(batch, rows) at points (batch, rows, inputs)."""
    at = points.unsqueeze(2)
    return gradient_norms(problem.network, problem.functionals.unsqueeze(2), at, problem.norm).squeeze(2)


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("family", ["dense", "conv", "sigmoid"])
def test_points_are_in_the_domain_and_better_than_samples(family: str, norm: str) -> None:
    problem = nets.problem(nets.FAMILIES[family](3), 0.5, norm=norm)
    points = search(problem, SMALL)
    assert points.shape == (1, problem.rows, problem.network.in_size)
    assert bool(problem.box.contains(points).all())
    assert bool((norms(problem, points).cpu() >= 0.9 * nets.sampled_norms(problem, 100)).all())


def test_a_small_network_is_searched_to_its_largest_region() -> None:
    for seed in range(3):
        problem = nets.problem(nets.dense(seed, (2, 4, 3, 2)), 0.5, seed)
        points = search(problem, dataclasses.replace(SMALL, regions=50))
        assert float(norms(problem, points).max()) == pytest.approx(exact_rows(problem).max(), rel=1e-9)


def test_an_example_finds_the_same_in_any_batch() -> None:
    together = search(PROBLEM, SMALL)
    for b in range(3):
        torch.testing.assert_close(search(PROBLEM.example(b), SMALL)[0].to(together), together[b])
    assert not torch.equal(search(PROBLEM, SMALL, seed=1), together)
    # Nor does it depend on how many samples a pass takes.
    torch.testing.assert_close(search(PROBLEM, SMALL, memory=1), together)


@pytest.mark.parametrize("step", ["ascent_steps", "rounds"])
def test_every_stage_finds_better_points(step: str) -> None:
    problem = nets.problem(nets.dense(6, (6, 16, 16, 3)), 0.3, batch=4)
    none = dataclasses.replace(SMALL, ascent_steps=0, rounds=0)
    before = norms(problem, search(problem, none))
    after = norms(problem, search(problem, dataclasses.replace(none, **{step: 20})))
    assert bool((after >= before * (1 - 1e-9)).all()) and bool((after > 1.001 * before).any())


def test_after_the_deadline_the_first_samples_stand() -> None:
    points = search(PROBLEM, SMALL, deadline=Deadline.after(-1))
    assert bool(PROBLEM.box.contains(points).all())


def test_the_plan_is_scaled_to_the_work() -> None:
    network = nets.dense(3, (3, 8, 6, 2))
    whole = Effort().scaled(network, 2)
    assert whole == Effort()
    little = dataclasses.replace(Effort(), work=1e7).scaled(network, 2)
    assert 8 <= little.samples < 1024 and 5 <= little.ascent_steps < 40 and little.rounds < 100
    assert 1 <= little.starts <= 8
    least = dataclasses.replace(Effort(), work=1.0).scaled(network, 2)
    assert (least.samples, least.starts, least.rounds, least.regions) == (8, 1, 0, 0)
    assert (least.largest, least.ascent_steps) == (1, 40)  # one row, followed up as long as the clock allows


def work(network: Network) -> int:
    return module._products(network)


def test_products_of_a_pass() -> None:
    assert work(nets.dense(3, (3, 8, 6, 2))) == 3 * 8 + 8 * 6 + 6 * 2
    network = nets.conv(3)
    maps = [m for node in network.nodes if isinstance(node, Affine) for m in node.maps]
    dense, others = ([m.fan_in * m.out_size for m in maps if isinstance(m, Dense) == is_it] for is_it in (True, False))
    assert others and work(network) == sum(dense) + 2 * sum(others)


@pytest.mark.parametrize(("ascents", "longer", "rows"), [(0, 1, 1), (1, 1, 1), (3, 3, 1), (9, 4, 2), (99, 4, 6)])
def test_where_few_ascents_fit_they_are_longer_before_there_are_more(ascents: int, longer: int, rows: int) -> None:
    network, plan = nets.dense(3, (3, 8, 6, 6)), Effort()
    each = 2 * 3 * plan.ascent_steps * 8 * module._operations(network, 6) / 7
    some = dataclasses.replace(plan, rounds=10**6, work=each * (ascents + 0.5)).scaled(network, 6)
    assert (some.ascent_steps, some.largest, some.rounds) == (longer * plan.ascent_steps, rows, 0)
    assert some.starts == max(1, ascents // longer // rows)


def test_equal_values_are_in_order_of_index() -> None:
    values = torch.tensor([1.0, 2.0, 2.0 * (1 + 1e-12), 1.5], dtype=torch.float64)
    assert module._order(values).tolist() == [1, 2, 3, 0]
    points, best = torch.zeros(1, 1), torch.ones(1, dtype=torch.float64)
    kept, value = module._keep_better(points, best, points + 1, best * (1 + 1e-12))
    assert kept.item() == 0 and value.item() == 1.0
    kept, value = module._keep_better(points, best, points + 1, best * (1 + 1e-6))
    assert kept.item() == 1 and value.item() > 1.0


def test_kinks_are_turned_the_way_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem.around(nets.kinked(), 0.0, 0.5)
    at = torch.zeros(1, 1, 1, dtype=torch.float64, device=problem.device)
    patterns = kink_patterns(problem, at)
    assert patterns is not None
    assert problem.norm.dual.of(problem.network.pull_back(patterns, problem.functionals)).item() == 2.0
    assert kink_patterns(problem, at + 0.1) is None
    assert kink_patterns(problem, at, Deadline.after(-1)) is None
    monkeypatch.setattr(module, "_KINKS", 0)  # as many as may be tried
    patterns = kink_patterns(problem, at)
    assert patterns is not None
    plain = problem.network.slopes(problem.network.values(at))
    assert all(torch.equal(patterns[k], plain[k]) for k in plain)


def test_on_a_large_network_only_the_largest_rows_are_followed_up() -> None:
    problem = nets.problem(nets.dense(6, (6, 16, 16, 5)), 0.3, batch=3)
    little = dataclasses.replace(SMALL, ascent_steps=40, work=1e5)
    plan = little.scaled(problem.network, problem.rows)
    assert plan.largest == 1 and plan.ascent_steps == 40 and plan.rounds == 0
    before = norms(problem, search(problem, dataclasses.replace(plan, ascent_steps=0)))
    after = norms(problem, search(problem, little))
    row = before.argmax(-1)
    others = torch.ones_like(before, dtype=torch.bool).scatter_(1, row.unsqueeze(-1), False)
    assert torch.equal(after[others], before[others])
    assert bool((after.amax(-1) >= before.amax(-1)).all()) and bool((after.amax(-1) > 1.001 * before.amax(-1)).any())
    for b in range(3):
        torch.testing.assert_close(search(problem.example(b), little)[0], search(problem, little)[b])
