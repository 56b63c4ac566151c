"""Pre-activation bounds hold at sampled points, at corners and on kinks; each tightening includes the ones before."""

from __future__ import annotations

import itertools

import nets
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lipcompare
from lipcompare.gates import Gates
from lipcompare.network import Interval
from lipcompare.preactivation import Tightening, interval_bounds, preactivation_bounds
from lipcompare.preactivation.forward import Descent


def reached(problem: lipcompare.Problem, samples: int = 400) -> dict[int, torch.Tensor]:
    """Pre-activations (batch, samples, neurons) at random points and corners."""
    random = torch.Generator().manual_seed(0)
    unit = torch.rand(samples, problem.network.in_size, generator=random, dtype=torch.float64)
    unit[: samples // 2] = unit[: samples // 2].round()
    lower, upper = (v.unsqueeze(1) for v in problem.box.interval)
    values = problem.network.values(lower + unit.to(lower) * (upper - lower))
    return {k: values[problem.network.nodes[k].parents[0]] for k in problem.network.activations}


@settings(max_examples=30, deadline=None)
@given(network=nets.networks(), eps=st.sampled_from([0.0, 0.1, 0.6]), seed=st.integers(0, 99))
def test_bounds_hold_and_are_nested(network: lipcompare.Network, eps: float, seed: int) -> None:
    problem = nets.problem(network, eps, seed, batch=2)
    seen = reached(problem)
    found = [preactivation_bounds(problem.network, problem.box.interval, t) for t in Tightening]
    for bounds in found:
        for k, z in bounds.items():
            assert (seen[k] >= z.lower.unsqueeze(1)).all() and (seen[k] <= z.upper.unsqueeze(1)).all()
    for looser, tighter in itertools.pairwise(found):
        for k in looser:
            assert (tighter[k].lower >= looser[k].lower - 1e-9).all()
            assert (tighter[k].upper <= looser[k].upper + 1e-9).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_point_lies_inside_its_own_bounds(dtype: torch.dtype) -> None:
    """A degenerate box still holds what a forward pass computes there, in every precision."""
    for family, seed in itertools.product(sorted(nets.FAMILIES), range(5)):
        network = nets.FAMILIES[family](seed).to("cpu", dtype)
        x = torch.rand(50, network.in_size, generator=torch.Generator().manual_seed(seed), dtype=dtype)
        values = network.values(x)
        exact = network.to("cpu", torch.float64).values(x.double())
        for k, z in interval_bounds(network, Interval(x, x)).items():
            parent = network.nodes[k].parents[0]
            assert (values[parent] >= z.lower).all() and (values[parent] <= z.upper).all()
            assert (exact[parent] >= z.lower.double()).all() and (exact[parent] <= z.upper.double()).all()


def test_optimised_slopes_gain_something() -> None:
    gained = 0.0
    for seed in range(5):
        problem = nets.problem(nets.dense(seed, (4, 12, 12, 12, 2)), 0.3)
        plain, best = (
            preactivation_bounds(problem.network, problem.box.interval, t)
            for t in (Tightening.CROWN, Tightening.ALPHA_CROWN)
        )
        last = problem.network.activations[-1]
        gained += float((plain[last].upper - best[last].upper).sum())
    assert gained > 0.05


def test_no_steps_of_descent_is_plain_crown() -> None:
    problem = nets.problem(nets.dense(1, (4, 12, 12, 12, 2)), 0.3)
    box = problem.box.interval
    plain = preactivation_bounds(problem.network, box, Tightening.CROWN)
    still = preactivation_bounds(problem.network, box, Tightening.ALPHA_CROWN, descent=Descent(steps=0))
    for k in plain:
        torch.testing.assert_close(plain[k].upper, still[k].upper)


def test_small_memory_changes_nothing_but_the_chunks() -> None:
    problem = nets.problem(nets.dense(1, (4, 12, 12, 12, 2)), 0.3, batch=3)
    box = problem.box.interval
    for tightening in Tightening:
        ample = preactivation_bounds(problem.network, box, tightening)
        scarce = preactivation_bounds(problem.network, box, tightening, memory=1)
        for k in ample:
            torch.testing.assert_close(ample[k].lower, scarce[k].lower, rtol=1e-10, atol=1e-10)


def test_a_neuron_that_touches_its_kink_keeps_both_slopes() -> None:
    network = nets.kinked()
    point = torch.zeros(1, 1, dtype=torch.float64)
    gates = Gates.from_preactivations(network, interval_bounds(network, Interval(point, point)))
    assert gates.unstable_count.tolist() == [2]
    one_side = Interval(point, point + 1)
    assert Gates.from_preactivations(network, interval_bounds(network, one_side)).unstable_count.tolist() == [2]


def test_free_gates_are_all_open() -> None:
    network = nets.residual(0)
    gates = Gates.free(network, 3, torch.device("cpu"), torch.float64)
    assert gates.unstable_count.tolist() == [network.neurons] * 3
