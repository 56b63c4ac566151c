"""The weight with which the linear bound uses a gate, by differences of the network where it has one gradient."""

from __future__ import annotations

import nets
import pytest
import torch

from lipcompare.branching.heuristics.weights import gate_weights
from lipcompare.gates import Gates
from lipcompare.jacobian import gradient_intervals
from lipcompare.jacobian.norms import absolute_chord
from lipcompare.network import Affine
from lipcompare.preactivation import interval_bounds


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("family", ["dense", "residual", "conv"])
def test_weights_are_how_far_pre_activations_move(family: str, norm: str) -> None:
    """The direction that the norm's functional takes at the input is pushed forward through the network."""
    problem = nets.problem(nets.FAMILIES[family](3), 0.0, norm=norm)
    network, x = problem.network, problem.box.lower[0]
    gates = Gates.from_preactivations(network, interval_bounds(network, problem.box.interval))
    gradients = gradient_intervals(network, gates, problem.functionals, norm=problem.norm)
    weights = gate_weights(network, gates, problem.functionals, gradients, problem.norm)
    values = network.values(x)
    for row in range(problem.rows):
        gradient = network.pull_back(network.slopes(values), problem.functionals[0, row])
        if norm == "inf":
            direction = gradient.sign()
        elif norm == "2":
            direction = 2 * gradient  # of the square
        else:
            direction = torch.zeros_like(gradient)
            direction[gradient.abs().argmax()] = 1.0
        step = 1e-6
        moved = network.values(x + step * direction)
        for k in network.activations:
            if k not in weights:
                continue
            parent = network.nodes[k].parents[0]
            slope = ((moved[parent] - values[parent]) / step).abs()
            torch.testing.assert_close(weights[k][0, row], slope, rtol=1e-5, atol=1e-6)


def test_both_lines_around_a_gate_pass_a_weight_on() -> None:
    """The one whose slope is half of their difference above the middle, and in absolute values the rest: by hand, layer
    by layer, on a box that leaves gates undecided."""
    problem = nets.problem(nets.dense(3, (3, 6, 5, 2)), 0.5)
    network = problem.network
    gates = Gates.from_preactivations(network, interval_bounds(network, problem.box.interval))
    gradients = gradient_intervals(network, gates, problem.functionals)
    weights = gate_weights(network, gates, problem.functionals, gradients, problem.norm)
    first, second = network.activations
    assert gradients.lines is not None
    line = gradients.lines[first]
    assert bool((line.slope_spread > 0.1).any())
    tangent, _ = absolute_chord(gradients.intervals[0])
    before, after = (network.nodes[network.nodes[k].parents[0]] for k in (first, second))
    assert isinstance(before, Affine) and isinstance(after, Affine)
    reached = before.maps[0].forward(tangent)
    torch.testing.assert_close(weights[first], reached.abs())
    passed = torch.stack([reached * line.slope, reached.abs() * line.slope_spread]).sum(0)
    torch.testing.assert_close(weights[second], after.maps[0].forward(passed).abs())
