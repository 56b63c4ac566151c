"""The joint relaxation of slope and gradient: sound plane by plane, never looser than the slope's range."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lipcompare
from lipcompare.jacobian.smooth import Shares, planes
from lipcompare.network.activations import smooth
from lipcompare.network.interval import Interval
from lipcompare.preactivation import ForwardBound, Tightening, preactivation_bounds

NAMES = sorted(smooth.TABLE)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    z=st.tuples(st.floats(-6, 6), st.floats(0, 6)),
    gradient=st.tuples(st.floats(-3, 3), st.floats(0, 4)),
    above=st.floats(0, 1),
    below=st.floats(0, 1),
)
def test_planes_enclose_the_product(
    name: str, z: tuple[float, float], gradient: tuple[float, float], above: float, below: float
) -> None:
    activation = smooth.TABLE[name]()
    box = Interval(*(torch.tensor([v], dtype=torch.float64) for v in (z[0], z[0] + z[1])))
    range_ = Interval(*(torch.tensor([v], dtype=torch.float64) for v in (gradient[0], sum(gradient))))
    lines = activation.slope_lines(box)
    assert lines is not None
    low, high = planes(range_, activation.slope_range(box), lines, Shares(above, below))
    unit = torch.linspace(0, 1, 41, dtype=torch.float64)
    points = (box.lower + unit * (box.upper - box.lower)).unsqueeze(1)
    values = (range_.lower + unit * (range_.upper - range_.lower)).unsqueeze(0)
    product = activation.derivative(points) * values
    over = high.gradient * values + high.preactivation * points + high.constant
    under = low.gradient * values + low.preactivation * points + low.constant
    slack = 1e-12 * (1 + product.abs().max())
    assert bool((over >= product - slack).all() and (under <= product + slack).all())


@settings(max_examples=12, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    norm=st.sampled_from(["inf", "2", "1"]),
    eps=st.sampled_from([0.0, 0.03, 0.2, 1.0]),
    seed=st.integers(0, 1000),
)
def test_joint_bounds_hold_and_are_never_looser(name: str, norm: str, eps: float, seed: int) -> None:
    problem = nets.problem(nets.dense(seed, (3, 6, 5, 2), smooth.TABLE[name]()), eps, seed, norm=norm, batch=2)
    joint, plain = (lipcompare.bound(problem, "lbp", tightening="crown", joint=j).upper for j in (True, False))
    assert (joint <= plain * (1 + 1e-9) + 1e-12).all()
    assert (joint >= nets.sampled_norms(problem, 150).numpy() * (1 - 1e-9)).all()


def test_the_joint_relaxation_gains() -> None:
    problem = nets.problem(nets.dense(0, (6, 20, 20, 20, 3), smooth.sigmoid()), 0.3)
    joint, plain = (lipcompare.bound(problem, "lbp", joint=j).overall_upper[0] for j in (True, False))
    assert joint < 0.85 * plain


def test_kinked_networks_do_not_notice() -> None:
    problem = nets.problem(nets.residual(1), 0.3)
    joint, plain = (lipcompare.bound(problem, "lbp", joint=j).upper for j in (True, False))
    np.testing.assert_array_equal(joint, plain)


@pytest.mark.parametrize("family", ["sigmoid", "mixed", "residual"])
def test_functionals_of_several_layers(family: str) -> None:
    network = nets.FAMILIES[family](4)
    problem = nets.problem(network, 0.4, batch=2)
    bounds = preactivation_bounds(network, problem.box.interval, Tightening.CROWN)
    forward = ForwardBound.of(network, problem.box.interval, bounds)
    random = torch.Generator().manual_seed(0)
    weights = {
        k: torch.randn(2, 3, 4, network.nodes[k].size, generator=random, dtype=torch.float64)
        for k in network.activations
    }
    highest = forward(weights)
    unit = torch.rand(2, 400, network.in_size, generator=random, dtype=torch.float64).mul(2).sub(1).clamp(-0.9, 0.9)
    values = network.values(problem.box.interval.center.unsqueeze(1) + unit / 0.9 * 0.4)
    seen = sum(torch.einsum("brtn,bsn->brts", w, values[network.nodes[k].parents[0]]) for k, w in weights.items())
    assert isinstance(seen, torch.Tensor)
    assert highest.shape == (2, 3, 4)
    assert bool((highest >= seen.amax(-1) - 1e-9).all())
