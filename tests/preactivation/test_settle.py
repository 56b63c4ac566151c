"""Settling: what it proves holds at samples and in rational arithmetic, and it proves what CROWN cannot."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch

import lipcompare
from lipcompare import Problem
from lipcompare.budget import Deadline
from lipcompare.network.interval import Interval
from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.preactivation.settle import Effort, Halvings, settle, worthwhile

RADIUS = 0.3


def deep(seed: int, alpha: float = 0.0) -> lipcompare.Network:
    return nets.dense(seed, (3, 12, 12, 12, 12, 2), alpha)


def start(problem: Problem) -> tuple[Interval, dict[int, Interval]]:
    bounds = preactivation_bounds(problem.network, problem.box.interval, Tightening.CROWN)
    return Interval(problem.box.lower[0], problem.box.upper[0]), bounds


def undecided(bounds: dict[int, Interval]) -> int:
    return sum(int(((z.lower < 0) & (z.upper > 0)).sum()) for z in bounds.values())


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("alpha", [0.0, 0.2])
def test_bounds_hold_and_more_is_decided(seed: int, alpha: float) -> None:
    problem = Problem.around(deep(seed, alpha), 0.5, RADIUS)
    box, bounds = start(problem)
    settled = settle(problem.network, box, bounds)
    assert undecided(settled) < undecided(bounds)
    points = box.lower + (box.upper - box.lower) * torch.rand(20_000, 3, dtype=torch.float64).to(box.lower)
    points[::2] = torch.where(torch.rand(10_000, 3).to(box.lower) < 0.5, box.lower, box.upper)
    values = problem.network.values(points)
    for k, z in settled.items():
        seen = values[problem.network.nodes[k].parents[0]]
        assert (seen >= z.lower).all() and (seen <= z.upper).all()
        assert (z.lower >= bounds[k].lower).all() and (z.upper <= bounds[k].upper).all()


def test_residual_networks_too() -> None:
    problem = nets.problem(nets.residual(1), 0.4)
    box, bounds = start(problem)
    settled = settle(problem.network, box, bounds)
    unit = torch.rand(5000, len(box.lower)).to(box.lower)
    values = problem.network.values(box.lower + (box.upper - box.lower) * unit)
    for k, z in settled.items():
        seen = values[problem.network.nodes[k].parents[0]]
        assert (seen >= z.lower).all() and (seen <= z.upper).all()


def test_a_target_that_samples_misjudge_is_not_settled() -> None:
    """A neuron that is negative near one corner only: with one sample it looks positive, and must stay open."""
    hidden = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1), torch.nn.ReLU(),
                                 torch.nn.Linear(1, 1))  # fmt: skip
    with torch.no_grad():
        hidden[0].weight.copy_(torch.eye(2))
        hidden[0].bias.zero_()
        hidden[2].weight.copy_(torch.tensor([[1.0, 1.0]]))
        hidden[2].bias.copy_(torch.tensor([-1e-3]))
    problem = Problem.around(lipcompare.load(hidden, input_shape=(2,)), 0.45, 0.5)
    box, bounds = start(problem)
    last = list(bounds)[-1]
    settled = settle(problem.network, box, bounds, effort=Effort(samples=3))
    assert float(settled[last].lower) < 0 < float(settled[last].upper)


def test_the_halvings_that_are_kept_are_trees_of_what_is_settled() -> None:
    problem = Problem.around(deep(0), 0.5, RADIUS)
    box, bounds = start(problem)
    kept: dict[int, list[int]] = {}
    settled = settle(problem.network, box, bounds, keep=kept.__setitem__)
    assert all(torch.equal(a, b) for k, z in settle(problem.network, box, bounds).items() for a, b in
               zip(z, settled[k], strict=True))  # fmt: skip
    changed = {k for k, z in settled.items() if undecided({k: z}) < undecided({k: bounds[k]})}
    assert kept and set(kept) <= changed
    for inputs in kept.values():
        open_ = 1
        for number, j in enumerate(inputs, 1):
            open_ += 1 if j >= 0 else -1
            assert (open_ > 0) == (number < len(inputs)) and -1 <= j < 3


def test_halvings_that_nothing_needed_are_left_out() -> None:
    made = Halvings()
    whole, both = np.zeros(1, int), np.array([[True, True, False]])
    lower, upper = made.halve(whole, np.array([1]), both)
    made.halve(np.array([upper]), np.array([0]), np.array([[False, True, False]]))
    assert made.preorder(np.array([False, True, False])) == [1, -1, 0, -1, -1]
    assert made.preorder(np.array([True, False, True])) == [1, -1, -1]
    assert made.preorder(np.array([False, False, True])) == [-1] and lower == 1


def test_the_deadline_keeps_what_is_proved() -> None:
    problem = Problem.around(deep(0), 0.5, RADIUS)
    box, bounds = start(problem)
    settled = settle(problem.network, box, bounds, deadline=Deadline.after(0.0))
    assert undecided(settled) <= undecided(bounds)
    for k, z in settled.items():
        assert (z.lower >= bounds[k].lower).all()


def test_when_it_is_worthwhile() -> None:
    problem = Problem.around(deep(0), 0.5, RADIUS)
    box, bounds = start(problem)
    assert worthwhile(problem.network, box, bounds)
    assert not worthwhile(problem.network, Interval(box.lower, box.lower), bounds)
    shallow = nets.problem(nets.dense(0, sizes=(3, 8, 2)), 0.3)
    assert not worthwhile(shallow.network, *start(shallow))


def test_a_target_that_touches_its_kink_ends_and_stays_open() -> None:
    """z >= 0 with equality at one corner only: no number of halvings proves more than that."""
    layers = torch.nn.Sequential(
        torch.nn.Linear(5, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1)
    ).double()
    with torch.no_grad():
        layers[0].weight.copy_(torch.eye(5))
        layers[0].bias.zero_()
        layers[2].weight.fill_(1.0)
        layers[2].bias.zero_()
    problem = Problem.around(lipcompare.load(layers, input_shape=(5,)), 0.5, 0.5)
    box, bounds = start(problem)
    settled = settle(problem.network, box, bounds, effort=Effort(samples=3))
    last = list(bounds)[-1]
    assert (settled[last].lower <= 0).all()
