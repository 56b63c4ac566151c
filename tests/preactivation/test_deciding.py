"""The descent on patches is the one on flat vectors, for the ends that are near zero."""

from __future__ import annotations

import images
import nets
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lipcompare import Network
from lipcompare.budget import Deadline
from lipcompare.network import Affine
from lipcompare.network.activations import Lines
from lipcompare.network.interval import Interval
from lipcompare.preactivation import Tightening, deciding, forward, interval_bounds, preactivation_bounds
from lipcompare.preactivation.backward import Start, backward_upper
from lipcompare.preactivation.deciding import decided
from lipcompare.preactivation.descent import Descent, descend


@settings(max_examples=10)
@given(images.conv_networks(), st.integers(1, 2))
def test_equal_to_flat_vectors(network: Network, batch: int) -> None:
    box = nets.problem(network, 0.1, batch=batch).box.interval
    bounds = interval_bounds(network, box)
    descent = Descent(steps=4)
    for k in network.activations:
        node = network.nodes[k].parents[0]
        before = {j: z for j, z in bounds.items() if j < node}
        if not before or not isinstance(network.nodes[node], Affine):
            continue
        lines = {j: network.activation(j).relaxation(z) for j, z in before.items()}
        size = network.nodes[node].size
        far = torch.full((batch, size), 100.0, dtype=torch.float64)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(deciding, "near_zero", lambda z: torch.ones_like(z.lower, dtype=torch.bool))
            asked = torch.arange(size) % 2 == 0
            start = Interval(torch.where(asked, -far, -far - 1), torch.where(asked, far + 1, far))
            found = decided(network, box, before, lines, node, start, descent, memory=2**30, deadline=Deadline())
        eye = torch.eye(size, dtype=torch.float64)
        shared = {j: Lines(*(v.unsqueeze(1) for v in line)) for j, line in lines.items()}
        rows = torch.cat([eye, -eye])
        plain = backward_upper(network, box, shared, node, rows)
        ends = Start.of_ends(network, node, torch.arange(size), plain)
        high, low = descend(network, box, before, ends, plain, descent, Deadline()).split(size, dim=1)
        scale = max(1.0, float(high.abs().max()), float(low.abs().max()))
        # Each neuron is bounded on the shorter side only.
        torch.testing.assert_close(found.lower[:, asked], -low[:, asked], rtol=1e-6, atol=1e-6 * scale)
        torch.testing.assert_close(found.upper[:, ~asked], high[:, ~asked], rtol=1e-6, atol=1e-6 * scale)
        assert torch.equal(found.upper[:, asked], start.upper[:, asked])
        assert torch.equal(found.lower[:, ~asked], start.lower[:, ~asked])


def test_where_all_would_take_minutes_only_those_near_zero_get_a_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nets.conv(3)
    problem = nets.problem(network, 0.1)
    plain = preactivation_bounds(network, problem.box.region, Tightening.CROWN)
    monkeypatch.setattr(deciding, "_MUCH", 0.0)
    monkeypatch.setattr(deciding, "_NEAR", 0.3)
    for patches in (True, False):
        monkeypatch.setattr(forward, "prefers_patches", lambda network, node, patches=patches: patches)
        few = preactivation_bounds(network, problem.box.region, crown=plain)
        changed = False
        for k, z in few.items():
            near = deciding.near_zero(plain[k])
            same = (z.lower == plain[k].lower) & (z.upper == plain[k].upper)
            assert bool((same | near).all())
            assert bool((z.lower >= plain[k].lower).all()) and bool((z.upper <= plain[k].upper).all())
            changed |= bool((~same).any())
        assert changed
