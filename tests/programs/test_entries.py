"""Intervals of entries of the gradient hold at samples."""

from __future__ import annotations

import nets
import torch
from encoding.piecewise import prepared
from hypothesis import given, settings
from hypothesis import strategies as st

from lipcompare.programs.entries import entry_intervals


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_entry_intervals_hold_every_sampled_gradient(seed: int) -> None:
    problem = nets.problem(nets.dense(seed, (4, 8, 8, 2)), 0.5, seed)
    ready = prepared(problem)
    tight = entry_intervals(ready, 0)
    linear = ready.gradients.intervals[0]
    assert bool((tight.lower >= linear.lower[0, 0] - 1e-12).all() and (tight.upper <= linear.upper[0, 0] + 1e-12).all())
    random = torch.Generator().manual_seed(seed)
    lower, upper = problem.box.interval
    x = lower + torch.rand(400, 4, generator=random, dtype=torch.float64).to(lower) * (upper - lower)
    network = problem.network
    gradient = network.pull_back(network.slopes(network.values(x)), problem.functionals[0, 0].expand(400, -1))
    assert bool((gradient >= tight.lower - 1e-9).all() and (gradient <= tight.upper + 1e-9).all())
