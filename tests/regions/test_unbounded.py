"""Regions in the whole space: what is said to be empty is empty."""

from __future__ import annotations

import nets
import torch

from lipcompare import Network
from lipcompare.network import Affine
from lipcompare.network.linear_maps import Composed, Dense, LinearMap, Transposed
from lipcompare.regions.unbounded import WholeSpace


def tensor(values: list[list[float]] | list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def two_sides(first: LinearMap, bias: torch.Tensor, alpha: float | torch.Tensor = 0.0) -> Network:
    b = nets.Builder(first.in_size, 0)
    b.nodes.append(Affine((0,), (first,), bias))
    b.activate(alpha)
    b.dense(1)
    return b.build()


def test_products_of_maps_are_taken_exactly() -> None:
    """The first row adds up to 1 + 2^-51, which a product in floating point rounds to 1: then there would be no point
    between 1 and 1 / (1 + 2^-52)."""
    u = 2.0**-53
    outer, inner = Dense(tensor([[1, 1, 1, 1, 1], [1 + 2 * u, 0, 0, 0, 0]])), Dense(tensor([[1], [u], [u], [u], [u]]))
    for first in (Composed(outer, inner), Transposed(Composed(Transposed(inner), Transposed(outer)))):
        network = two_sides(first, tensor([-1, -1]))
        (k,) = network.activations
        found = WholeSpace(network).deepest({k: tensor([1, 0])}, {k: torch.tensor([True, False])})
        assert not found.empty


def test_a_neuron_without_a_kink_restricts_nothing() -> None:
    """z_0 = x has slope 1 on both sides, so that z_1 = -x - 1 may be positive whatever is said of z_0."""
    network = two_sides(Dense(tensor([[1], [-1]])), tensor([0, -1]), tensor([1, 0]))
    (k,) = network.activations
    found = WholeSpace(network).deepest({k: tensor([1, 1])}, {k: torch.tensor([True, True])})
    assert not found.empty and found.point is not None and found.point[0] <= -1
