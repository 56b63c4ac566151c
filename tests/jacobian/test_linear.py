"""The recursion of lines around gates: each interval, and what ends it."""

from __future__ import annotations

import nets
import pytest
import torch

from lipcompare.budget import Deadline
from lipcompare.domain import Box
from lipcompare.gates import Gates
from lipcompare.jacobian import functional_bound, gradient_intervals, interval_gradient, norm_bound
from lipcompare.jacobian.lines import LineRule, chords, constants
from lipcompare.network import Affine, Input, Network
from lipcompare.network.activations import LeakyReLU
from lipcompare.network.graph import Activate
from lipcompare.network.linear_maps import Dense
from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.problem import Norm, Problem
from lipcompare.testing import exact


def gates_of(problem: Problem) -> Gates:
    bounds = preactivation_bounds(problem.network, problem.box.interval, Tightening.CROWN)
    return Gates.from_preactivations(problem.network, bounds)


def patterns(gates: Gates, count: int, seed: int = 0) -> dict[int, torch.Tensor]:
    """Slopes (count, batch, 1, neurons) in the ranges, two thirds of them at an end."""
    random = torch.Generator().manual_seed(seed)
    slopes = {}
    for k, (low, high) in gates.slopes.items():
        share = torch.rand(count, *low.shape, generator=random, dtype=torch.float64).mul(3).sub(1).clamp(0, 1)
        slopes[k] = (low + share.to(low) * (high - low)).unsqueeze(2)
    return slopes


@pytest.mark.parametrize("family", sorted(nets.FAMILIES))
@pytest.mark.parametrize("rule", [chords, constants])
def test_intervals_hold_all_patterns_and_norms_are_above(family: str, rule: LineRule) -> None:
    problem = nets.problem(nets.FAMILIES[family](6), 0.25, batch=2)
    gates, rows = gates_of(problem), problem.functionals
    slopes = patterns(gates, 60)
    gradient = problem.network.pull_back(slopes, rows.expand(60, *rows.shape))
    step = interval_gradient(problem.network, gates, rows)
    for norm in Norm:
        found = gradient_intervals(problem.network, gates, rows, rule, norm=norm)
        entries = found.intervals[0]
        assert bool((gradient >= entries.lower - 1e-12).all())
        assert bool((gradient <= entries.upper + 1e-12).all())
        assert float((entries.upper - step.upper).max()) < 1e-9
        upper = norm_bound(problem.network, rows, found, norm)
        assert bool((upper >= norm.dual.of(gradient) - 1e-12).all())


def test_intervals_are_tighter_than_one_step_and_chords_than_constants() -> None:
    gains = torch.zeros(2, dtype=torch.float64)
    for seed in range(4):
        problem = nets.problem(nets.dense(seed, (4, 8, 8, 8, 2)), 0.3)
        gates, rows = gates_of(problem), problem.functionals
        step = interval_gradient(problem.network, gates, rows).radius.sum()
        hulls, boxes = (
            gradient_intervals(problem.network, gates, rows, r, norm=Norm.ONE).intervals[0].radius.sum()
            for r in (chords, constants)
        )
        gains += torch.stack([1 - boxes / step, 1 - hulls / boxes]).cpu()
    assert bool((gains > 0.1).all())


def test_without_undecided_gates_the_gradient_is_one_number() -> None:
    for family in ("dense", "residual", "concatenation", "pooling"):
        problem = nets.problem(nets.FAMILIES[family](1), 0.0)
        gates, rows = gates_of(problem), problem.functionals
        exact = problem.network.pull_back({k: s.lower.unsqueeze(1) for k, s in gates.slopes.items()}, rows)
        found = gradient_intervals(problem.network, gates, rows)
        assert found.constant == frozenset(problem.network.activations)
        for norm in Norm:
            upper = norm_bound(problem.network, rows, found, norm)
            torch.testing.assert_close(upper, norm.dual.of(exact), rtol=1e-9, atol=1e-12)
        weights = torch.randn(3, problem.network.in_size, generator=torch.Generator().manual_seed(0)).to(rows)
        pushed = functional_bound(problem.network, rows, found, 0, weights)
        torch.testing.assert_close(pushed, exact @ weights.T, rtol=1e-9, atol=1e-12)


def test_the_recursion_ends_where_no_undecided_gate_follows() -> None:
    """The last hidden layer sees the output's weights alone; in a residual network so does a trunk behind it."""
    problem = nets.problem(nets.dense(0, (4, 8, 8, 8, 2)), 0.3)
    gates, rows = gates_of(problem), problem.functionals
    found = gradient_intervals(problem.network, gates, rows)
    first, *_, last = problem.network.activations
    assert found.constant >= {last}
    assert first not in found.constant
    weight = problem.network.nodes[-1].maps[0].weight
    torch.testing.assert_close(found.intervals[last].lower[0], weight, rtol=1e-12, atol=0)


def test_small_memory_and_no_time() -> None:
    problem = nets.problem(nets.residual(3), 0.3, batch=2)
    gates, rows = gates_of(problem), problem.functionals
    ample = gradient_intervals(problem.network, gates, rows)
    scarce = gradient_intervals(problem.network, gates, rows, memory=1)
    for end, other in zip(ample.intervals[0], scarce.intervals[0], strict=True):
        torch.testing.assert_close(end, other, rtol=1e-12, atol=1e-12)
    late = Deadline(at=0.0)
    hurried = gradient_intervals(problem.network, gates, rows, deadline=late)
    assert late.missed
    step = interval_gradient(problem.network, gates, rows)
    torch.testing.assert_close(hurried.intervals[0].upper, step.upper, rtol=1e-9, atol=1e-12)


def test_nothing_depends_on_the_batch() -> None:
    problem = nets.problem(nets.residual(3), 0.3, batch=3)
    gates, rows = gates_of(problem), problem.functionals
    together = gradient_intervals(problem.network, gates, rows).intervals[0]
    for b in range(3):
        alone = gradient_intervals(problem.network, gates.example(b), rows[b : b + 1]).intervals[0]
        torch.testing.assert_close(alone.lower[0], together.lower[b], rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(alone.upper[0], together.upper[b], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("norm", list(Norm))
def test_weights_that_underflow_on_the_way_meet_large_gradients(norm: Norm) -> None:
    """Weight and slope of 1e-200 each make 0 on the way to a weight of 1e200; the undecided gate keeps passes going."""

    def affine(parent: int, weight: float, bias: float) -> Affine:
        return Affine((parent,), (Dense(torch.tensor([[weight]], dtype=torch.float64)),), torch.tensor([bias]).double())

    first = (Input(1), affine(0, 1e-200, -1.0), Activate(1, LeakyReLU(1e-200), 1))
    second = (affine(2, 1e200, 1.0), Activate(3, LeakyReLU(), 1), affine(4, 1.0, 0.0))
    network = Network((*first, *second), (1,), (1,))
    problem = Problem(network, Box(-torch.ones(1, 1).double(), torch.ones(1, 1).double()), norm)
    gates, rows = gates_of(problem), problem.functionals
    gradients = gradient_intervals(problem.network, gates, rows, norm=norm)
    upper = norm_bound(problem.network, rows, gradients, norm)
    assert exact.truth(problem).admits_upper(0, norm, float(upper))
