"""The descent of slopes: its derivatives are those of autograd, and it never makes a bound looser."""

from __future__ import annotations

import nets
import pytest
import torch

from lipcompare.budget import Deadline
from lipcompare.domain import Norm, NormBall
from lipcompare.network import Network
from lipcompare.network.activations import Lines, smooth
from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.preactivation.backward import Passed, Start, backward_planes, backward_upper
from lipcompare.preactivation.descent import Descent, corners, descend, relaxed_values

NETWORKS: dict[str, Network] = {
    "dense": nets.dense(0),
    "leaky": nets.dense(1, alpha=0.2),
    "absolute value": nets.dense(2, alpha=-1.0),
    "tanh": nets.dense(3, alpha=smooth.tanh()),
    "residual": nets.residual(1),
    "concatenation": nets.concatenation(2),
    "conv": nets.conv(1),
}


def regions(network: Network) -> list:
    box = nets.problem(network, 0.4, batch=2).box.interval
    return [box, NormBall.around(box.center, 0.5, Norm.TWO), NormBall.around(box.center, 0.7, Norm.ONE)]


@pytest.mark.parametrize("name", NETWORKS)
def test_derivatives_are_those_of_autograd(name: str) -> None:
    network, random = NETWORKS[name], torch.Generator().manual_seed(5)
    last = len(network.nodes) - 1
    rows = torch.randn(3, network.out_size, generator=random, dtype=torch.float64)
    for region in regions(network):
        box = region.interval if isinstance(region, NormBall) else region
        bounds = preactivation_bounds(network, box, Tightening.INTERVAL)
        wide = {k: type(z)(*(v.unsqueeze(1) for v in z)) for k, z in bounds.items()}
        choices = {}
        for k, z in wide.items():
            start = network.activation(k).start(z)
            anywhere = torch.rand(2, 3, start.shape[-1], generator=random, dtype=torch.float64)
            stable = (z.lower >= 0) | (z.upper <= 0)  # a kink outside leaves nothing to choose
            choices[k] = torch.where(stable & network.piecewise_linear, start, anywhere)
        with torch.enable_grad():
            free = {k: c.clone().requires_grad_() for k, c in choices.items()}
            lines: dict[int, Lines] = {k: network.activation(k).relaxation(wide[k], c) for k, c in free.items()}
            total = backward_upper(network, region, lines, last, rows).sum()
            expected = torch.autograd.grad(total, list(free.values()))
        relaxed = {k: network.activation(k).family(wide[k])(c) for k, c in choices.items()}
        passed: dict[int, Passed] = {}
        lines = {k: found for k, (found, _) in relaxed.items()}
        coefficient, _ = backward_planes(network, lines, {last: rows}, passed=passed)
        values = relaxed_values(network, lines, passed, corners(region)(coefficient))
        assert set(values) == set(bounds)
        for k, gradient in zip(free, expected, strict=True):
            mine = torch.full_like(gradient, torch.nan)
            relaxed[k][1](passed[k], values[k], mine)
            torch.testing.assert_close(mine, gradient, rtol=1e-9, atol=1e-10)
        assert any(bool(gradient.abs().max() > 1e-3) for gradient in expected)


def test_it_tightens_and_stops_with_the_time() -> None:
    network = NETWORKS["dense"]
    region = nets.problem(network, 0.6, batch=2).box.interval
    bounds = preactivation_bounds(network, region, Tightening.CROWN)
    known = torch.full((2, 2 * network.out_size), 1e3, dtype=torch.float64)
    start = Start.of_ends(network, len(network.nodes) - 1, torch.arange(network.out_size), known)
    assert bool((descend(network, region, bounds, start, known, Descent(), Deadline(at=0.0)) == known).all())
    one = descend(network, region, bounds, start, known, Descent(steps=1), Deadline())
    many = descend(network, region, bounds, start, known, Descent(), Deadline())
    assert bool((many <= one).all() & (many < one - 1e-6).any())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_first_step_back_is_that_of_unit_functionals(name: str) -> None:
    network = NETWORKS[name]
    last, box = len(network.nodes) - 1, nets.problem(network, 0.4, batch=2).box.interval
    bounds = preactivation_bounds(network, box, Tightening.INTERVAL)
    lines = {k: Lines(*(v.unsqueeze(1) for v in network.activation(k).relaxation(z))) for k, z in bounds.items()}
    unit = torch.eye(network.out_size, dtype=torch.float64)[[1, 0]]
    expected = backward_upper(network, box, lines, last, torch.cat([unit, -unit]))
    got = Start.of_ends(network, last, torch.tensor([1, 0]), unit).upper(network, box, lines)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
