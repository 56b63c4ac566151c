"""Probing: bounds that hold, states that no input attains together."""

from __future__ import annotations

import nets
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lipcompare import Network, Problem
from lipcompare.gates import Conflicts, has_patterns
from lipcompare.network.interval import Interval
from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.preactivation.probing import probe

KINKED = ("concatenation", "conv", "dense", "leaky", "pooling", "residual")


def probed(problem: Problem) -> tuple[dict[int, Interval], dict[int, Interval], Conflicts]:
    before = preactivation_bounds(problem.network, problem.box.interval, Tightening.CROWN)
    after, conflicts = probe(problem.network, problem.box.interval, before)
    return dict(before), after, conflicts


def states(problem: Problem, conflicts: Conflicts, x: torch.Tensor, example: int) -> torch.Tensor:
    """Whether both states of each conflict of an example hold at each point, (points, conflicts)."""
    values = problem.network.values(x)
    chosen = conflicts.of(torch.tensor([example]))
    both = torch.ones(len(x), chosen.count, dtype=torch.bool)
    for i in (0, 1):
        for c in range(chosen.count):
            node = problem.network.nodes[int(chosen.node[c, i])]
            z = values[node.parents[0]][:, int(chosen.neuron[c, i])]
            both[:, c] &= z >= 0 if bool(chosen.high[c, i]) else z <= 0
    return both


@settings(max_examples=20)
@given(
    network=st.builds(lambda family, seed: nets.FAMILIES[family](seed), st.sampled_from(KINKED), st.integers(0, 10**6)),
    eps=st.sampled_from([0.05, 0.2, 0.5]),
)
def test_bounds_hold_and_conflicts_are_never_attained(network: Network, eps: float) -> None:
    problem = nets.problem(network, eps, batch=2)
    before, after, conflicts = probed(problem)
    lower, upper = problem.box.interval
    random = torch.Generator().manual_seed(3)
    for b in range(problem.batch):
        unit = torch.rand(2000, network.in_size, generator=random, dtype=torch.float64)
        unit[:500] = unit[:500].round()
        x = lower[b] + unit * (upper[b] - lower[b])
        values = network.values(x)
        for k, bound in after.items():
            z = values[network.nodes[k].parents[0]]
            assert bool((z >= bound.lower[b] - 1e-12).all()) and bool((z <= bound.upper[b] + 1e-12).all())
            assert bool((bound.lower[b] >= before[k].lower[b] - 1e-12).all())
            assert bool((bound.upper[b] <= before[k].upper[b] + 1e-12).all())
        assert not bool(states(problem, conflicts, x, b).any())


def test_finds_what_excludes_each_other() -> None:
    """Both neurons are positive on opposite sides of the input: never together, and one of them always."""
    network = nets.kinked()
    problem = Problem.around(network, torch.zeros(1, 1, dtype=torch.float64), 1.0)
    _, after, conflicts = probed(problem)
    assert bool((after[2].lower < 0).all()) and bool((after[2].upper > 0).all())
    assert conflicts.count == 0  # at 0 both states of both hold: the kink itself is an input
    shifted = nets.Builder(1, 0)
    shifted.dense(2)
    first = shifted.nodes[-1]
    weight = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    shifted.nodes[-1] = type(first)((0,), (type(first.maps[0])(weight),), torch.tensor([-0.1, -0.1]).double())
    shifted.activate()
    shifted.dense(1)
    problem = Problem.around(shifted.build(), torch.zeros(1, 1, dtype=torch.float64), 1.0)
    _, _, conflicts = probed(problem)
    assert conflicts.count == 1
    assert conflicts.high.tolist() == [[True, True]]


def test_probing_decides_neurons_that_bounds_leave_open() -> None:
    stable = 0
    for seed in range(20):
        before, after, _ = probed(nets.problem(nets.dense(seed, (3, 8, 8, 8, 2)), 0.3))
        stable += sum(int(((b.lower < 0) & (b.upper > 0)).sum()) for b in before.values())
        stable -= sum(int(((b.lower < 0) & (b.upper > 0)).sum()) for b in after.values())
    assert stable > 0


def test_a_batch_gives_what_its_examples_give() -> None:
    for seed in range(6):
        problem = nets.problem(nets.dense(seed, (3, 8, 8, 8, 2)), 0.4, batch=3)
        _, together, conflicts = probed(problem)
        for b in range(3):
            _, alone, own = probed(problem.example(b))
            for k, bound in alone.items():
                torch.testing.assert_close(together[k].lower[b : b + 1], bound.lower)
                torch.testing.assert_close(together[k].upper[b : b + 1], bound.upper)
            assert conflicts.of(torch.tensor([b])).count == own.count


@pytest.mark.parametrize("family", sorted(nets.FAMILIES))
def test_smooth_networks_are_not_probed(family: str) -> None:
    assert has_patterns(nets.FAMILIES[family](1)) == (family in KINKED)
