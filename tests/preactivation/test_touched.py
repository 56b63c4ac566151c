"""Bounds on what decisions touch hold at every input that satisfies them; what they do not touch stays as it was."""

from __future__ import annotations

from typing import Any

import nets
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from images import conv_networks

from lipcompare import Problem
from lipcompare.gates import Gates
from lipcompare.jacobian import gradient_intervals
from lipcompare.network import Interval, Network
from lipcompare.network.grids import grids
from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.preactivation import touched as touching
from lipcompare.preactivation.touched import Touched, touched_bounds, touched_gradients

COUNT = 4


def signs_at(network: Network, points: torch.Tensor, share: float, seed: int) -> dict[int, torch.Tensor]:
    """Sides (points, neurons) that some neurons have at points."""
    random, values, signs = torch.Generator().manual_seed(seed), network.values(points), {}
    for k in network.activations:
        z = values[network.nodes[k].parents[0]]
        keep = torch.rand(z.shape, generator=random).to(z) < share
        signs[k] = torch.where(z > 0, 1, -1).to(torch.int8) * keep
    return signs


def undecided(problem: Problem, count: int) -> dict[int, torch.Tensor]:
    sizes = {k: problem.network.nodes[k].size for k in problem.network.activations}
    return {k: torch.zeros(count, n, dtype=torch.int8, device=problem.device) for k, n in sizes.items()}


def inside(box: Interval, count: int, seed: int) -> torch.Tensor:
    unit = torch.rand(count, box.lower.shape[-1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return box.lower + unit.to(box.lower) * (box.upper - box.lower)


def found(network: Network, whole: Interval, signs: dict[int, torch.Tensor], **options: Any) -> tuple[Touched, Any]:
    bounds = preactivation_bounds(network, whole, Tightening.CROWN)
    count = len(next(iter(signs.values())))
    box = Interval(*(v.expand(count, -1).clone() for v in whole))
    start = {k: Interval(*(v.expand(count, -1) for v in z)) for k, z in bounds.items()}
    moved = torch.zeros_like(box.lower, dtype=torch.bool)
    return touched_bounds(network, box, signs, start, bounds, moved, **options), bounds


@pytest.mark.parametrize("on_patches", [True, False])
@settings(max_examples=10, deadline=None)
@given(st.sampled_from(["dense", "leaky", "conv", "residual", "pooling", "images"]), st.integers(0, 10**6), st.data())
def test_bounds_hold_where_the_decisions_do(on_patches: bool, family: str, seed: int, data: st.DataObject) -> None:
    network = data.draw(conv_networks(60)) if family == "images" else nets.FAMILIES[family](seed)
    posed = nets.problem(network, 0.4, seed)
    network, whole = posed.network, posed.box.interval
    points = inside(whole, COUNT, seed)
    signs = signs_at(network, points, 0.3, seed)
    with pytest.MonkeyPatch.context() as patch:
        if on_patches:
            patch.setattr(touching, "prefers_patches", lambda net, node: len(grids(net)[node]) > 1)
        split, bounds = found(network, whole, signs)
    assert not split.empty.any()
    x = torch.cat([points, inside(whole, 300, seed + 1)])
    values = network.values(x)
    holds = torch.ones(COUNT, len(x), dtype=torch.bool, device=x.device)
    for k in network.activations:
        z = values[network.nodes[k].parents[0]]
        holds &= (signs[k].unsqueeze(1) * z >= 0).all(-1)
    assert holds[:, :COUNT].diagonal().all()
    for k in network.activations:
        z = values[network.nodes[k].parents[0]]
        low, high = (v.unsqueeze(1) for v in split.bounds[k])
        assert bool((((low <= z) & (z <= high)) | ~holds.unsqueeze(-1)).all())
        assert bool((split.bounds[k].lower >= bounds[k].lower).all() & (split.bounds[k].upper <= bounds[k].upper).all())


def test_a_decision_tightens_what_is_behind_it_and_nothing_else() -> None:
    posed = nets.problem(nets.conv(3), 0.4)
    network, whole = posed.network, posed.box.interval
    k, later = network.activations
    signs = undecided(posed, 2)
    bounds = preactivation_bounds(network, whole, Tightening.CROWN)
    (first,) = ((bounds[k].lower[0] < 0) & (bounds[k].upper[0] > 0)).nonzero()[:1]
    signs[k][1, first] = 1
    split, _ = found(network, whole, signs)
    for j in network.activations:
        assert torch.equal(split.bounds[j].lower[0], bounds[j].lower[0])
        assert torch.equal(split.bounds[j].upper[0], bounds[j].upper[0])
    narrower = split.bounds[later].upper[1] - split.bounds[later].lower[1] < bounds[later].upper - bounds[later].lower
    assert 0 < int(narrower.sum()) < narrower.numel()
    assert int((split.bounds[k].lower[1] != bounds[k].lower[0]).sum()) == 1


def test_a_contradiction_empties_a_subdomain() -> None:
    posed = nets.problem(nets.conv(3), 0.1)
    network, whole = posed.network, posed.box.interval
    bounds = preactivation_bounds(network, whole, Tightening.CROWN)
    signs = undecided(posed, 2)
    k = network.activations[0]
    positive = int((bounds[k].lower[0] > 0).nonzero()[0])
    signs[k][0, positive], signs[k][1, positive] = 1, -1
    assert found(network, whole, signs)[0].empty.tolist() == [False, True]


def test_gradients_that_no_decision_touches_are_those_of_the_whole_box() -> None:
    """The recursion over everything changes none of them, and changes those that are touched."""
    problem = nets.problem(nets.conv(3), 0.4)
    network, whole = problem.network, problem.box.interval
    bounds = preactivation_bounds(network, whole, Tightening.CROWN)
    gates = Gates.from_preactivations(network, bounds)
    signs = undecided(problem, 1)
    k = network.activations[1]
    signs[k][0, int(gates.unstable(k)[0].nonzero()[0])] = -1
    split, _ = found(network, whole, signs)
    touched = touched_gradients(network, split.gates, gates)
    before = gradient_intervals(network, gates, problem.functionals)
    everything = gradient_intervals(network, split.gates, problem.functionals)
    some = gradient_intervals(network, split.gates, problem.functionals, within=before.intervals, touched=touched)
    assert 0 < int(touched[0].sum()) < touched[0].numel()
    for j, mask in touched.items():
        for part, all_, old in zip(some.intervals[j], everything.intervals[j], before.intervals[j], strict=True):
            torch.testing.assert_close(part, all_, rtol=1e-12, atol=1e-12)
            assert bool(((old - all_).abs() < 1e-12).masked_fill(mask.unsqueeze(1) > 0, True).all())
    assert bool((some.intervals[0].lower > before.intervals[0].lower + 1e-9).any())
