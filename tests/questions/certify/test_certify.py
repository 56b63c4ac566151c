"""Certified radii: the forward pass, Lipschitz constants beside it, and the true radius."""

from __future__ import annotations

import itertools
from fractions import Fraction

import nets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lipcompare
from lipcompare import InvalidInput, Network, Norm, NormBall, margins
from lipcompare.network import Affine, Input
from lipcompare.network.activations import smooth
from lipcompare.network.linear_maps import Dense
from lipcompare.questions import Route, certified_radius
from lipcompare.result import Status
from lipcompare.testing import exact


def _points(seed: int, batch: int = 3, inputs: int = 4) -> torch.Tensor:
    return torch.rand(batch, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 1000),
    norm=st.sampled_from(["inf", "2", "1"]),
    kind=st.sampled_from(["relu", "gelu"]),
    method=st.sampled_from(["interval", "crown", "alpha-crown", "lbp"]),
)
def test_certified_radii_hold(seed: int, norm: str, kind: str, method: str) -> None:
    network = nets.dense(seed, (4, 8, 3)) if kind == "relu" else nets.dense(seed, (4, 8, 3), smooth.gelu())
    x = _points(seed)
    found = certified_radius(network, x, norm=norm, method=method, largest=2.0, steps=3)
    assert found.correct.all() and (found.radius > 0).all() and (found.radius <= 2.0).all()
    outputs = network.forward(x)
    for b in range(3):
        if found.radius[b] < 1e-6:
            continue
        ball = NormBall.around(x[b : b + 1], float(found.radius[b]), norm)
        unit = torch.randn(1, 2000, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        points = ball.clamp(x[b] + found.radius[b] * unit)
        assert (network.forward(points[0]).argmax(-1) == outputs[b].argmax()).all()


def _linear() -> Network:
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    return Network((Input(2), Affine((0,), (Dense(weight),), None)), (2,), (2,))


@pytest.mark.parametrize("method", ["crown", "auto", "exact"])
def test_a_linear_network_is_certified_exactly(method: str) -> None:
    network, x = _linear(), torch.tensor([[1.0, 0.2]], dtype=torch.float64)
    for norm, wanted in (("inf", 0.4), ("2", 0.8 / np.sqrt(2)), ("1", 0.8)):
        found = certified_radius(network, x, norm=norm, method=method)
        assert found.radius[0] == pytest.approx(wanted, rel=1e-3) and found.radius[0] <= wanted
    wrong = certified_radius(network, x, 1, method=method)
    assert wrong.radius[0] == 0 and not wrong.correct[0] and wrong.margin[0] == pytest.approx(-0.8)
    assert wrong.route[0] is Route.NONE and margins(0, 2).shape == (1, 2)


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 1000), norm=st.sampled_from(["inf", "2", "1"]), clipped=st.booleans())
def test_the_exact_radius_has_an_input_of_another_class(seed: int, norm: str, clipped: bool) -> None:
    """Both ends are shown: the lower one by proof, the upper one by a point; neither may be on the wrong side."""
    network, x = nets.dense(seed, (3, 4, 3, 3)), _points(seed, 1, 3)
    clip = (0.0, 1.0) if clipped else None
    found = certified_radius(network, x, norm=norm, method="exact", largest=1.0, clip=clip)
    assert found.status is Status.EXACT
    if np.isfinite(found.upper[0]):
        point = torch.as_tensor(found.points[0])
        outputs, label = network.forward(point), int(found.labels[0])
        others = [j for j in range(3) if j != label]
        assert float(outputs[others].max()) >= float(outputs[label])
        assert float(Norm.parse(norm).of(point - x[0])) == pytest.approx(found.upper[0], rel=1e-9)
        assert clip is None or bool(((point >= 0) & (point <= 1)).all())
        if found.upper[0] <= 1.0:
            assert found.radius[0] <= found.upper[0] <= found.radius[0] * (1 + 3e-4)
            return
    assert found.radius[0] == pytest.approx(1.0, rel=1e-3)


def test_more_work_reaches_farther_and_a_batch_is_its_examples() -> None:
    network, x = nets.dense(3, (4, 8, 8, 3)), _points(7)
    radii = [certified_radius(network, x, method=m, steps=2).radius for m in ("interval", "crown", "alpha-crown")]
    for loose, tight in itertools.pairwise(radii):
        assert (tight >= loose * (1 - 2e-3)).all()
    assert (radii[2] > radii[1] * 1.01).any()
    alone = [certified_radius(network, p, method="crown").radius[0] for p in x]
    np.testing.assert_allclose(radii[1], alone, rtol=3e-3)


def test_the_larger_radius_wins_and_says_how() -> None:
    """Where interval arithmetic on the margins is loose, exact constants reach farther."""
    network, x = nets.dense(1, (4, 8, 3)), _points(1)
    found = certified_radius(network, x, method="bab", steps=4)
    crown = certified_radius(network, x, method="crown")
    assert (found.radius >= crown.radius).all()
    for route, radius, other in zip(found.route, found.radius, crown.radius, strict=True):
        assert route is (Route.LIPSCHITZ if radius > other else Route.FORWARD)


def test_targets_and_shares() -> None:
    network, x = nets.dense(2, (4, 8, 4)), _points(2)
    said = network.forward(x).argmax(-1)
    everything = certified_radius(network, x, method="crown")
    each = [certified_radius(network, x, method="crown", targets=[j, (j + 1) % 4]).radius for j in range(4)]
    np.testing.assert_allclose(np.min(each, 0), everything.radius, rtol=3e-3)
    assert everything.share(0.0) == 1.0
    assert everything.share(float(np.sort(everything.radius)[1])) == pytest.approx(2 / 3)
    wrong = certified_radius(network, x, (said + 1) % 4, method="crown")
    assert wrong.share(0.0) == 0.0
    with pytest.raises(InvalidInput, match="only target"):
        certified_radius(network, x[:1], targets=int(said[0]))
    with pytest.raises(InvalidInput, match=r"Targets must lie in 0..3"):
        certified_radius(network, x, targets=[4])


def test_bad_questions_are_named() -> None:
    network = nets.dense(0)
    with pytest.raises(InvalidInput, match="largest radius"):
        certified_radius(network, 0.5, largest=0.0)
    with pytest.raises(InvalidInput, match="Did you mean 'alpha-crown'"):
        certified_radius(network, 0.5, method="alphacrown")
    with pytest.raises(InvalidInput, match="lower bounds only"):
        certified_radius(network, 0.5, method="attack")


def test_an_example_outside_the_valid_range_gets_no_radius_from_constants_inside_it() -> None:
    """y = x - 0.95 + 1000 relu(x - 1.05) - 1001 relu(x - 1.15) at 1.2, valid up to 1: slope 1 there, not on the way."""
    first = Affine((0,), (Dense(torch.ones(3, 1, dtype=torch.float64)),), torch.tensor([0.0, -1.05, -1.15]).double())
    last = torch.tensor([[1.0, 1000.0, -1001.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    b = nets.Builder(1, 0)
    b.nodes.append(first)
    b.activate(0.0)
    b.nodes.append(Affine((2,), (Dense(last),), torch.tensor([-0.95, 0.0], dtype=torch.float64)))
    network = b.build()
    for method in ("auto", "lbp", "alpha-crown"):
        found = certified_radius(network, torch.tensor([[1.2]], dtype=torch.float64), clip=(0.0, 1.0), method=method)
        assert found.radius[0] <= 0.25 + 1e-12


@pytest.mark.parametrize("norm", ["inf", "1"])
@pytest.mark.parametrize(("bias", "dtype"), [(1e4, torch.float32), (1e12, torch.float64)])
@pytest.mark.parametrize("seed", range(3))
def test_biases_that_cancel_give_no_false_radius(seed: int, bias: float, dtype: torch.dtype, norm: str) -> None:
    """A slack relative to the outputs let 20 of 40 radii reach another class; decided in rational arithmetic."""
    random = torch.Generator().manual_seed(seed)
    layers = [torch.nn.Linear(a, b, dtype=dtype) for a, b in ((3, 6), (6, 2))]
    with torch.no_grad():
        for layer in layers:
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=random, dtype=dtype))
        layers[0].bias.copy_(bias * (0.5 + torch.rand(6, generator=random, dtype=dtype)))
        layers[1].bias.copy_(-(layers[1].weight @ layers[0].bias) + torch.randn(2, generator=random, dtype=dtype))
    network = lipcompare.load(torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1]), input_shape=(3,))
    x = torch.rand(1, 3, generator=random, dtype=dtype)
    found = certified_radius(network, x, norm=norm, dtype=dtype, steps=4)
    place, radius = [Fraction(v) for v in x[0].tolist()], Fraction(float(found.radius[0]))
    assert radius > 0
    if norm == "inf":
        domain = exact.box_polytope([v - radius for v in place], [v + radius for v in place])
    else:
        domain = exact.cross_polytope(place, radius)
    row = [1.0, -1.0] if found.labels[0] == 0 else [-1.0, 1.0]
    assert exact.least(network.to("cpu", dtype), domain, row) >= 0
