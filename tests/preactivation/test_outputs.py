"""Bounds of functionals of the output by the forward pass."""

from __future__ import annotations

import nets
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lipcompare import Network, NormBall
from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.preactivation.outputs import FreeSlopes, functional_lower, functional_planes, joint_lower


@settings(max_examples=8, deadline=None)
@given(network=nets.networks(), ball=st.sampled_from(["inf", "2"]), seed=st.integers(0, 100))
def test_bounds_hold_with_any_slopes(network: Network, ball: str, seed: int) -> None:
    center = torch.full((2, network.in_size), 0.4, dtype=torch.float64)
    domain = NormBall.around(center, 0.2, ball)
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn(2, 3, network.out_size, generator=random, dtype=torch.float64)
    points = domain.clamp(
        center.unsqueeze(1) + 0.2 * torch.randn(2, 100, network.in_size, generator=random, dtype=torch.float64)
    )
    seen = (network.forward(points) @ rows.mT).amin(1)
    bounds = preactivation_bounds(network, domain.region, Tightening.CROWN)
    slopes = FreeSlopes(network, bounds, 3, 2**30)
    start = joint_lower(network, domain.region, rows, slopes, bounds)
    for tensor in slopes.tensors.values():
        tensor.copy_(torch.rand(tensor.shape, generator=random, dtype=torch.float64))
    lowers = [functional_lower(network, domain.region, rows, t) for t in Tightening]
    for lower in (*lowers, start, joint_lower(network, domain.region, rows, slopes, bounds)):
        assert bool((lower <= seen).all())
    coefficient, constant = functional_planes(network, domain.region, -rows, bounds)
    above = points @ coefficient.mT + constant.unsqueeze(1)
    assert bool((above >= -(network.forward(points) @ rows.mT)).all())


def test_slopes_are_shared_where_memory_is_short() -> None:
    network = nets.dense(0, (3, 8, 8, 2))
    problem = nets.problem(network, 0.3)
    bounds = preactivation_bounds(network, problem.box.region, Tightening.CROWN)
    own, shared = FreeSlopes(network, bounds, 2, 2**30), FreeSlopes(network, bounds, 2, 1000)
    assert max(t.shape[1] for t in own.tensors.values()) == 16
    assert max(t.shape[1] for t in shared.tensors.values()) == 1
    found = [joint_lower(network, problem.box.region, problem.functionals, s, bounds) for s in (own, shared)]
    torch.testing.assert_close(*found)  # both start with CROWN's
