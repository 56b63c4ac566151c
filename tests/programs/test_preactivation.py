"""Refined pre-activation bounds hold and are ordered."""

from __future__ import annotations

import nets
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import solvers
from lipcompare.programs.preactivation import Refinement, refined_bounds


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), eps=st.floats(0.1, 0.6))
def test_refined_bounds_hold_and_are_ordered(seed: int, eps: float) -> None:
    problem = nets.problem(nets.dense(seed, (3, 5, 4, 2)), eps, seed)
    network, box = problem.network, problem.box.interval
    solver = solvers.get("highs")
    crown = refined_bounds(network, box, Refinement.ALPHA_CROWN, solver)
    random = torch.Generator().manual_seed(seed)
    unit = torch.rand(500, network.in_size, generator=random, dtype=torch.float64)
    values = network.values(box.lower + unit * (box.upper - box.lower))
    widths = [sum(float((v.upper - v.lower).sum()) for v in crown.values())]
    for refinement in (Refinement.LP, Refinement.MILP):
        tight = refined_bounds(network, box, refinement, solver)
        for k, z in tight.items():
            seen = values[network.nodes[k].parents[0]]
            assert bool((seen >= z.lower).all() and (seen <= z.upper).all())
            assert bool((z.lower >= crown[k].lower - 1e-12).all() and (z.upper <= crown[k].upper + 1e-12).all())
        widths.append(sum(float((v.upper - v.lower).sum()) for v in tight.values()))
    assert widths[0] >= widths[1] >= widths[2] - 1e-5
    signs = refined_bounds(network, box, Refinement.SIGNS, solver)
    exact = refined_bounds(network, box, Refinement.MILP, solver)
    for k, z in signs.items():
        stable = (z.lower > 0) | (z.upper < 0)
        truly = (exact[k].lower > 1e-5) | (exact[k].upper < -1e-5)
        assert bool((stable | ~truly).all()), "a neuron that never changes its sign must be found"
