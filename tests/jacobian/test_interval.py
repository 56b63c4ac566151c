"""Interval arithmetic on the chain rule against all patterns of the gates."""

from __future__ import annotations

import itertools

import nets
import pytest
import torch

import lipcompare
from lipcompare import Problem
from lipcompare.gates import Gates
from lipcompare.jacobian import interval_gradient
from lipcompare.network import Affine, Input, Network
from lipcompare.network.activations import LeakyReLU
from lipcompare.network.graph import Activate
from lipcompare.network.linear_maps import Dense, Identity, Scale
from lipcompare.preactivation import interval_bounds


def gates_of(problem) -> Gates:
    return Gates.from_preactivations(problem.network, interval_bounds(problem.network, problem.box.interval))


def test_with_one_hidden_layer_it_is_the_hull_of_all_patterns() -> None:
    for seed in range(5):
        problem = nets.problem(nets.dense(seed, (3, 6, 2), alpha=0.3), 0.4, seed, batch=2)
        gates = gates_of(problem)
        found = interval_gradient(problem.network, gates, problem.functionals)
        low, high = gates.slopes[2]
        patterns = []
        for sides in itertools.product((0, 1), repeat=6):
            slopes = torch.where(torch.tensor(sides, device=low.device, dtype=torch.bool), high, low).unsqueeze(1)
            patterns.append(problem.network.pull_back({2: slopes}, problem.functionals))
        every = torch.stack(patterns)
        torch.testing.assert_close(found.lower, every.amin(0), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found.upper, every.amax(0), rtol=1e-12, atol=1e-12)
        assert bool((found.lower <= every.amin(0)).all() | (every.amin(0) - found.lower > -1e-14).all())


@pytest.mark.parametrize("family", sorted(nets.FAMILIES))
def test_it_holds_every_choice_of_slopes(family: str) -> None:
    problem = nets.problem(nets.FAMILIES[family](2), 0.3, batch=2)
    gates = gates_of(problem)
    found = interval_gradient(problem.network, gates, problem.functionals)
    random = torch.Generator().manual_seed(0)
    for _ in range(50):
        slopes = {}
        for k, (low, high) in gates.slopes.items():
            share = torch.rand(low.shape, generator=random, dtype=torch.float64).mul(3).sub(1).clamp(0, 1)
            slopes[k] = (low + share.to(low) * (high - low)).unsqueeze(1)
        gradient = problem.network.pull_back(slopes, problem.functionals)
        assert bool((gradient >= found.lower - 1e-12).all())
        assert bool((gradient <= found.upper + 1e-12).all())


def test_decided_gates_leave_one_gradient_and_branches_add() -> None:
    """3 x - 2 x, in two branches, is x."""
    three, two = (Scale(torch.full((1,), v, dtype=torch.float64)) for v in (3.0, -2.0))
    nodes = (
        Input(1),
        Affine((0,), (three,), None),
        Affine((0,), (two,), None),
        Affine((1, 2), (Identity(1), Identity(1)), None),
    )
    network = Network(nodes, (1,), (1,))
    found = interval_gradient(network, Gates({}), torch.ones(1, 1, 1, dtype=torch.float64))
    torch.testing.assert_close(found.lower, torch.ones(1, 1, 1, dtype=torch.float64), rtol=1e-13, atol=0)
    torch.testing.assert_close(found.upper, torch.ones(1, 1, 1, dtype=torch.float64), rtol=1e-13, atol=0)


@pytest.mark.parametrize("width", [1, 600], ids=["few entries", "many"])
def test_a_product_that_underflows_is_no_zero(width: int) -> None:
    """1e-200 from the output, a slope of 1e-200 and a weight of 1e300 make 1e-100, though the first two make 0."""
    weight = torch.full((width, 1), 1e300, dtype=torch.float64)
    back = torch.full((30, width), 1e-200, dtype=torch.float64)
    nodes = (
        Input(1),
        Affine((0,), (Dense(weight),), torch.full((width,), -1.0, dtype=torch.float64)),
        Activate(1, LeakyReLU(1e-200), width),
        Affine((2,), (Dense(back),), None),
    )
    problem = Problem.around(Network(nodes, (1,), (30,)), -1.0, 0.1)
    truth = width * 1e-100
    found = interval_gradient(problem.network, gates_of(problem), problem.functionals)
    assert bool((found.lower >= 0).all()) and bool((found.upper >= truth).all())
    programs = ("lp", "milp", "sdp", "bab") if width == 1 else ()
    for method in ("ibp", "lbp", "recurjac", *programs):
        assert (lipcompare.bound(problem, method).upper >= truth).all()


def test_an_output_that_ignores_the_input_has_no_gradient() -> None:
    problem = nets.problem(nets.dense(0), 0.1)
    found = interval_gradient(problem.network, gates_of(problem), torch.zeros_like(problem.functionals))
    assert float(found.magnitude.max()) < 1e-250  # at most the smallest numbers that rounding is covered with
