"""The transposed network has the transposed Jacobian."""

from __future__ import annotations

import nets
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lipcompare import Network
from lipcompare.network import Affine, Input
from lipcompare.network.linear_maps import Select
from lipcompare.network.transpose import transpose


@settings(max_examples=40, deadline=None)
@given(network=nets.networks(), seed=st.integers(0, 100))
def test_the_transposed_network_has_the_transposed_jacobian(network: Network, seed: int) -> None:
    x = torch.randn(network.in_size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    turned = transpose(network)
    slopes = network.slopes(network.values(x))
    rows = network.pull_back(slopes, torch.eye(network.out_size, dtype=torch.float64))
    moved = {turned.gates[k]: s for k, s in slopes.items()}
    columns = turned.network.pull_back(moved, torch.eye(network.in_size, dtype=torch.float64))
    torch.testing.assert_close(columns, rows.T, rtol=1e-12, atol=1e-12)
    assert turned.network.input_shape == network.output_shape
    assert turned.network.output_shape == network.input_shape


def test_a_constant_function_and_nodes_that_nobody_reads() -> None:
    b = nets.Builder(3, 0)
    b.dense(4)
    b.activate()
    zero = Affine((0,), (Select(torch.full((2,), -1), 3),), torch.ones(2, dtype=torch.float64))
    network = Network((*b.nodes, zero), (3,), (2,))
    turned = transpose(network)
    assert turned.gates == {}
    assert not bool(turned.network.pull_back({}, torch.eye(3, dtype=torch.float64)).any())
    alone = Network((Input(3), zero), (3,), (2,))
    assert transpose(alone).network.in_size == 2
