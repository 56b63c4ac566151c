"""Regions in the whole space: what is said to be empty is empty."""

from __future__ import annotations

import nets
import torch

from lipcompare import Network
from lipcompare.network import Affine
from lipcompare.network.linear_maps import Composed, Dense, LinearMap, Transposed
from lipcompare.regions.program import Deepest
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


def chain(*layers: tuple[list[list[float]], list[float]], alpha: float = 0.0) -> Network:
    """Dense layers with an activation after each, and one more."""
    b = nets.Builder(len(layers[0][0][0]), 0)
    for weight, bias in layers:
        b.nodes.append(Affine((b.last,), (Dense(tensor(weight)),), tensor(bias)))
        b.activate(alpha)
    b.dense(1)
    return b.build()


def pattern(network: Network, slopes: list[list[float]], active: list[list[bool]]) -> Deepest:
    ks = network.activations
    return WholeSpace(network).deepest(
        {k: tensor(v) for k, v in zip(ks, slopes, strict=True)},
        {k: torch.tensor(v) for k, v in zip(ks, active, strict=True)},
    )


def test_a_constant_row_is_wrong_if_its_exact_value_is() -> None:
    """1 + 1e-16 - 1 - 5e-17 is positive, and -5e-17 in floating point; without the 1e-16 it is negative in truth."""
    for lost, empty in ((1e-16, False), (0.0, True)):
        network = chain(*(([[w]], [b]) for w, b in ((0.0, 1.0), (1.0, lost), (1.0, -1.0), (1.0, -5e-17))))
        found = pattern(network, [[1.0]] * 4, [[True]] * 4)
        assert found.empty == empty and (not empty or found.conflict == (3,))


def test_biases_and_products_are_summed_in_one_unit() -> None:
    """``0.5 x + 0.75 >= 0`` and ``-0.5 x - 1 >= 0``, of which the second comes through a slope of 0.5: none satisfies
    both, which is proved with the whole bias, and not with an eighth of it."""
    network = chain(([[0.5], [0.5]], [0.75, 0.0]), ([[0.0, -2.0]], [-1.0]), alpha=0.5)
    found = pattern(network, [[1.0, 0.5], [1.0]], [[True, False], [True]])
    assert found.empty and set(found.conflict) == {0, 2}
