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
    between 1 and 1 / (1 + 2^-52), and none at all where the second row is the same."""
    u = 2.0**-53
    inner = Dense(tensor([[1], [u], [u], [u], [u]]))
    outers = [Dense(tensor([[1, 1, 1, 1, 1], [1 + k * u, 0, 0, 0, 0]])) for k in (2, 4)]
    twice = [Transposed(Composed(Transposed(inner), Transposed(outer))) for outer in outers]
    for first in (*(Composed(outer, inner) for outer in outers), *twice):
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
    """1 + 1e-16 - 1 - 5e-17 is positive, and -5e-17 in floating point; with 5e-17 in place of the 1e-16 it is 0, which
    is a kink and in the region; with nothing it is negative in truth."""
    for lost, empty in ((1e-16, False), (5e-17, False), (0.0, True)):
        network = chain(*(([[w]], [b]) for w, b in ((0.0, 1.0), (1.0, lost), (1.0, -1.0), (1.0, -5e-17))))
        found = pattern(network, [[1.0]] * 4, [[True]] * 4)
        assert found.empty == empty and (not empty or found.conflict == (3,))


def test_biases_and_products_are_summed_in_one_unit() -> None:
    """``0.5 x + 0.75 >= 0`` and ``-0.5 x - 1 >= 0``, of which the second comes through a slope of 0.5: none satisfies
    both, which is proved with the whole bias, and not with an eighth of it."""
    network = chain(([[0.5], [0.5]], [0.75, 0.0]), ([[0.0, -2.0]], [-1.0]), alpha=0.5)
    found = pattern(network, [[1.0, 0.5], [1.0]], [[True, False], [True]])
    assert found.empty and set(found.conflict) == {0, 2}


def test_terms_of_a_sum_are_brought_to_one_unit() -> None:
    """``-x + 0.5 <= 0`` and ``-x + 0.25 >= 0``, of which the second has a term from behind the first gate too."""
    b = nets.Builder(1, 0)
    b.nodes.append(Affine((0,), (Dense(tensor([[-1]])),), tensor([0.5])))
    b.activate()
    b.nodes.append(Affine((0, b.last), (Dense(tensor([[-1]])), Dense(tensor([[1]]))), tensor([0.25])))
    b.activate()
    b.dense(1)
    found = pattern(b.build(), [[0.0], [1.0]], [[False], [True]])
    assert found.empty and set(found.conflict) == {0, 1}


def test_the_deepest_point() -> None:
    """``4 x - 2 >= 0`` and ``1 - x >= 0``; distances are measured by the sizes of the rows."""
    found = pattern(chain(([[4.0], [-1.0]], [-2.0, 1.0])), [[1.0, 1.0]], [[True, True]])
    assert not found.empty and found.point is not None
    assert abs(found.point[0] - 0.75) < 1e-9 and abs(found.depth - 0.25) < 1e-9


def test_of_rows_out_of_range_nothing_is_known() -> None:
    """The product of 1e200 and 1e200; ``x >= 0`` and ``-x - 1 >= 0`` exclude each other all the same."""
    network = chain(([[1e200], [1.0], [-1.0]], [0.0, 0.0, -1.0]), ([[1e200, 0.0, 0.0]], [0.0]))
    found = pattern(network, [[1.0] * 3, [1.0]], [[True] * 3, [True]])
    assert found.empty and 3 not in found.conflict


def test_rows_of_very_different_sizes_contradict_each_other() -> None:
    """``1e-200 x >= 0`` counts 1e400 times as much as ``-1e200 x - 1e200 >= 0``, more than a float can say."""
    found = pattern(chain(([[1e-200], [-1e200]], [0.0, -1e200])), [[1.0, 1.0]], [[True, True]])
    assert found.empty and found.conflict == (0, 1)
