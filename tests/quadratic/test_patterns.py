"""Patterns: what they are worth, what local search makes of them, and draws that do not depend on the batch."""

from __future__ import annotations

import itertools

import nets
import torch

from lipcompare import Problem
from lipcompare.gates import Gates
from lipcompare.jacobian import gradient_intervals, norm_bound
from lipcompare.preactivation import interval_bounds
from lipcompare.quadratic.patterns import evaluate, explore, improve, random_patterns
from lipcompare.quadratic.program import SdpData, gate_maps, l1_data


def data_of(problem: Problem) -> SdpData:
    network = problem.network
    gates = Gates.from_preactivations(network, interval_bounds(network, problem.box.interval))
    gradients = gradient_intervals(network, gates, problem.functionals)
    linear = norm_bound(network, problem.functionals, gradients, problem.norm)
    maps = gate_maps(network, gates, problem.functionals, gradients)
    example, row = (linear > 0).nonzero(as_tuple=True)
    return l1_data(maps, gradients, linear[example, row], example, row)


def every_pattern(data: SdpData) -> torch.Tensor:
    bits = torch.tensor([(True, *bits) for bits in itertools.product([False, True], repeat=data.size - 1)])
    return bits.to(data.mask.device).expand(data.problems, -1, -1)


def test_the_best_pattern_has_the_free_gate_maximum_and_local_search_comes_close() -> None:
    close = 0
    for seed in range(8):
        problem = nets.problem(nets.dense(seed, (4, 5, 5, 2)), 0.4)
        data = data_of(problem)
        truth = nets.free_gate_maximum(problem)[data.example, data.row]
        best = (evaluate(data, every_pattern(data)).values.amax(-1) + data.offset) * data.scale
        torch.testing.assert_close(best, truth)
        found = (explore(data).values.amax(-1) + data.offset) * data.scale
        assert bool((found <= truth * (1 + 1e-12)).all())
        close += int((found >= 0.999 * truth).sum())
    assert close >= 14


def test_a_sweep_never_loses_and_mostly_gains() -> None:
    data = data_of(nets.problem(nets.dense(6, (5, 12, 12, 3)), 0.5))
    start = evaluate(data, random_patterns(data, 20))
    after = improve(data, start, 1)
    assert bool((after.values >= start.values).all())
    assert float((after.values > start.values * 1.01).double().mean()) > 0.9


def test_draws_depend_on_the_neuron_alone() -> None:
    together = nets.problem(nets.dense(9, (5, 9, 9, 3)), 0.2, batch=4)
    data = data_of(together)
    draws = random_patterns(data, 6)
    for b in range(together.batch):
        alone = data_of(together.example(b))
        own = random_patterns(alone, 6)
        of_b = draws[data.example == b]
        for start, stop in alone.ranges:
            node = int(alone.coordinates.node[start])
            at = int((data.coordinates.node == node).nonzero()[0])
            torch.testing.assert_close(own[..., start:stop], of_b[..., at : at + stop - start])
