"""CROWN's bounds hold for real numbers, not only up to rounding."""

from __future__ import annotations

from fractions import Fraction

import nets
import pytest
import torch

from lipcompare import Network
from lipcompare.network import Activate, Affine, Input, Interval, LeakyReLU
from lipcompare.network.linear_maps import Dense
from lipcompare.preactivation import Tightening, preactivation_bounds


def cancelling(seed: int, dtype: torch.dtype, hidden: int = 40) -> Network:
    """A hidden layer that is active all over [0, 1], and a neuron behind it in which large terms cancel."""
    random = torch.Generator().manual_seed(seed)
    first = torch.rand(hidden, 1, generator=random, dtype=torch.float64).to(dtype)
    bias = (1 + torch.rand(hidden, generator=random, dtype=torch.float64)).to(dtype)
    second = torch.randn(1, hidden, generator=random, dtype=torch.float64)
    middle = float(second @ (bias.double() + first[:, 0].double() / 2))
    nodes = (
        Input(1),
        Affine((0,), (Dense(first),), bias),
        Activate(1, LeakyReLU(0.0), hidden),
        Affine((2,), (Dense(second.to(dtype)),), torch.tensor([-middle]).to(dtype)),
        Activate(3, LeakyReLU(0.0), 1),
        Affine((4,), (Dense(torch.ones(1, 1, dtype=dtype)),), None),
    )
    return Network(nodes, (1,), (1,))


def exact_ends(network: Network) -> tuple[Fraction, Fraction]:
    """The second pre-activation at 0 and at 1, in rational arithmetic."""
    layers = [node for node in network.nodes if isinstance(node, Affine)]
    (first, bias), (second, last) = (
        ([[Fraction(v) for v in row] for row in node.maps[0].weight.tolist()], list(map(Fraction, node.bias.tolist())))
        for node in layers[:2]
    )
    ends = []
    for x in (Fraction(0), Fraction(1)):
        hidden = [w * x + b for (w,), b in zip(first, bias, strict=True)]
        assert min(hidden) > 0
        ends.append(sum(w * h for w, h in zip(second[0], hidden, strict=True)) + last[0])
    return min(ends), max(ends)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tightening", [Tightening.CROWN, Tightening.ALPHA_CROWN])
def test_planes_are_rounded_outward(dtype: torch.dtype, tightening: Tightening) -> None:
    """The planes are exact here but for rounding, which puts every other end on the wrong side if nothing covers it."""
    box = Interval(torch.zeros(1, 1, dtype=dtype), torch.ones(1, 1, dtype=dtype))
    for seed in range(20):
        network = cancelling(seed, dtype)
        least, most = exact_ends(network)
        found = preactivation_bounds(network, box, tightening)[4]
        low, high = Fraction(float(found.lower)), Fraction(float(found.upper))
        assert low <= least
        assert most <= high
        # Nor is anything like the width of interval arithmetic left.
        slack = 100_000 * Fraction(torch.finfo(dtype).eps)
        assert high - most < slack
        assert least - low < slack


def test_each_neuron_has_the_best_of_all_its_bounds() -> None:
    """Optimised slopes include plain CROWN, and that intervals, neuron by neuron and without exception."""
    for seed in range(4):
        problem = nets.problem(nets.residual(seed), 0.4, batch=2)
        interval, crown, best = (preactivation_bounds(problem.network, problem.box.interval, t) for t in Tightening)
        for k in best:
            for looser, tighter in ((interval, crown), (crown, best)):
                assert bool((tighter[k].lower >= looser[k].lower).all())
                assert bool((tighter[k].upper <= looser[k].upper).all())


def test_a_value_that_two_activations_read_is_bounded_once_for_both() -> None:
    b = nets.Builder(3, 5)
    b.dense(6)
    b.activate()
    z = b.dense(4)
    first = b.activate()
    b.nodes.append(Activate(z, LeakyReLU(-1.0), 4))
    second = b.last
    b.affine((first, Dense(b.weights(2, 4))), (second, Dense(b.weights(2, 4))))
    problem = nets.problem(b.build(), 0.5)
    bounds = preactivation_bounds(problem.network, problem.box.interval, Tightening.CROWN)
    plain = preactivation_bounds(problem.network, problem.box.interval, Tightening.INTERVAL)
    assert torch.equal(bounds[first].lower, bounds[second].lower)
    assert torch.equal(bounds[first].upper, bounds[second].upper)
    assert bool((bounds[first].upper < plain[first].upper).any())
