"""The slopes that are kept are those of the bounds that come with them."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch

from lipcompare.certificates import slopes
from lipcompare.network.activations import Lines
from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.preactivation.backward import Start


def test_slopes_give_their_bounds_again() -> None:
    problem = nets.problem(nets.dense(6, (4, 12, 12, 12, 2)), 0.5)
    network, region = problem.network, problem.box.region
    bounds, kept = slopes.bounds_with_slopes(problem, 2**30)
    assert set(kept) <= {network.nodes[k].parents[0] for k in bounds} and kept
    for node, below in kept.items():
        (activation,) = (k for k in bounds if network.nodes[k].parents[0] == node)
        lines = {}
        for k, own in below.slopes.items():
            line = Lines(*(v.unsqueeze(1) for v in network.activation(k).relaxation(bounds[k])))
            lines[k] = line._replace(lower_slope=torch.from_numpy(own).double().unsqueeze(0))
        start = Start.of_ends(network, node, torch.from_numpy(below.neurons), bounds[activation].lower)
        upper, lower = start.upper(network, region, lines)[0].split(len(below.neurons))
        # The better of these and of CROWN's own lines, whose bounds may be tighter.
        assert bool((bounds[activation].upper[0][below.neurons] <= upper + 1e-6).all())
        assert bool((bounds[activation].lower[0][below.neurons] >= -lower - 1e-6).all())
        same = (bounds[activation].upper[0][below.neurons] - upper).abs() < 1e-6
        assert float(same.double().mean()) > 0.5


def test_too_many_slopes_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = nets.problem(nets.dense(6, (4, 12, 12, 12, 2)), 0.5)
    monkeypatch.setattr(slopes, "_ENTRIES", 100)
    bounds, kept = slopes.bounds_with_slopes(problem, 2**30)
    plain = preactivation_bounds(problem.network, problem.box.region, Tightening.CROWN)
    assert not kept
    for k, found in bounds.items():
        assert np.array_equal(found.lower, plain[k].lower) and np.array_equal(found.upper, plain[k].upper)
