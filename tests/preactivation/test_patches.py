"""CROWN on patches equals CROWN on flat vectors."""

from __future__ import annotations

import images
import nets
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lipcompare import Network
from lipcompare.budget import Deadline
from lipcompare.network import Affine
from lipcompare.network.activations import Lines
from lipcompare.network.interval import Interval
from lipcompare.preactivation import interval_bounds
from lipcompare.preactivation.backward import backward_upper
from lipcompare.preactivation.patches import patch_bounds


@settings(max_examples=20)
@given(images.conv_networks(), st.sampled_from([torch.float64, torch.float32]), st.integers(1, 3))
def test_equal_to_flat_vectors(network: Network, dtype: torch.dtype, batch: int) -> None:
    wanted = nets.problem(network, 0.1, batch=batch)
    network = network.to("cpu", dtype)
    box = Interval(*(v.to(dtype) for v in wanted.box.interval))
    bounds = interval_bounds(network, box)
    lines = {k: network.activation(k).relaxation(z) for k, z in bounds.items()}
    shared = {k: Lines(*(v.unsqueeze(1) for v in line)) for k, line in lines.items()}
    tolerance = 1e-12 if dtype is torch.float64 else 3e-5
    random = torch.Generator().manual_seed(batch)
    for k, node in enumerate(network.nodes):
        if not isinstance(node, Affine):
            continue
        far = torch.full((batch, node.size), 1e30, dtype=dtype)
        asked = torch.rand(batch, node.size, generator=random) < 0.7
        found = patch_bounds(network, box, lines, k, asked, Interval(-far, far), memory=2**14, deadline=Deadline())
        eye = torch.eye(node.size, dtype=dtype)
        high, low = backward_upper(network, box, shared, k, torch.cat([eye, -eye])).split(node.size, dim=1)
        scale = max(1.0, float(high.abs().max()), float(low.abs().max()))
        for mine, theirs in ((found.upper, high), (found.lower, -low)):
            torch.testing.assert_close(mine[asked], theirs[asked], rtol=tolerance, atol=tolerance * scale)
        assert bool(
            (found.upper[~asked] == 1e30).all() if dtype is torch.float64 else (found.upper[~asked] > 1e29).all()
        )
