"""Passes of weights through the lines around gates: all ways of asking give the same bounds."""

from __future__ import annotations

import nets
import pytest
import torch

from lipcompare.gates import Gates
from lipcompare.jacobian import functional_bound, gradient_intervals
from lipcompare.jacobian.passes import entry_bounds, push_ends, push_forward
from lipcompare.preactivation import interval_bounds


@pytest.mark.parametrize("family", sorted(nets.FAMILIES))
def test_entries_and_their_negatives_together_are_two_functionals(family: str) -> None:
    problem = nets.problem(nets.FAMILIES[family](3), 0.2, batch=2)
    network, rows = problem.network, problem.functionals
    gates = Gates.from_preactivations(network, interval_bounds(network, problem.box.interval))
    gradients = gradient_intervals(network, gates, rows)
    for source in (0, *network.activations[:-1]):
        entries = torch.arange(0, network.nodes[source].size, 2, device=rows.device)
        weights = torch.eye(network.nodes[source].size, dtype=torch.float64, device=rows.device)[entries]
        weights = torch.cat([weights, -weights])
        high, low = push_forward(network, rows, gradients, source, weights).tensor_split(2, -1)
        found = push_ends(network, rows, gradients, source, entries)
        torch.testing.assert_close(found.upper, high, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found.lower, -low, rtol=1e-12, atol=1e-12)
        outward = entry_bounds(network, rows, gradients, source, entries)
        high, low = functional_bound(network, rows, gradients, source, weights).tensor_split(2, -1)
        assert bool((outward.upper >= found.upper).all()) and bool((outward.lower <= found.lower).all())
        torch.testing.assert_close(outward.upper, high, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(outward.lower, -low, rtol=1e-12, atol=1e-12)
