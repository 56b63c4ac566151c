"""Affine pieces: what the network is under a pattern, and by how much the computed one may be off."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import nets
import pytest
import torch

import lipcompare
from lipcompare.network import Affine, Input, LeakyReLU
from lipcompare.network.graph import Activate, Node
from lipcompare.network.linear_maps import Dense
from lipcompare.regions.pieces import affine_pieces, chosen_pieces, piece_errors


def exact_rows(network: lipcompare.Network, slopes: dict[int, torch.Tensor]) -> dict[int, list[list[Fraction]]]:
    """Pieces of a chain of dense layers as rows (offset, coefficients...), without rounding."""
    inputs = network.in_size
    rows = [[Fraction(int(j == i + 1)) for j in range(inputs + 1)] for i in range(inputs)]
    pieces = {}
    for k, node in enumerate(network.nodes[1:], 1):
        if isinstance(node, Affine):
            (m,) = node.maps
            assert isinstance(m, Dense) and node.bias is not None
            rows = [
                [
                    sum((Fraction(w) * r[j] for w, r in zip(line, rows, strict=True)), Fraction(0))
                    for j in range(inputs + 1)
                ]
                for line in m.weight.tolist()
            ]
            rows = [[Fraction(b) + r[0], *r[1:]] for b, r in zip(node.bias.tolist(), rows, strict=True)]
        else:
            pieces[k] = rows
            rows = [[Fraction(s) * v for v in r] for s, r in zip(slopes[k].tolist(), rows, strict=True)]
    return pieces


@pytest.mark.parametrize("bias", [0.3, 1e6, 1e12])
@pytest.mark.parametrize("seed", range(3))
def test_pieces_are_off_by_no_more_than_is_said(seed: int, bias: float) -> None:
    """With biases that later layers cancel, too."""
    network = nets.dense(seed, (2, 5, 4, 2), 0.2)
    nodes = list(network.nodes)
    first, second = (k for k, node in enumerate(nodes) if isinstance(node, Affine) and k < 4)
    shift = torch.full((5,), bias, dtype=torch.float64)
    nodes[first] = dataclasses.replace(nodes[first], bias=shift)
    nodes[second] = dataclasses.replace(nodes[second], bias=-nodes[second].maps[0].forward(shift))
    network = lipcompare.Network(tuple(nodes), network.input_shape, network.output_shape)
    random = torch.Generator().manual_seed(seed)
    slopes = {
        k: torch.where(torch.rand(network.nodes[k].size, generator=random) < 0.5, 1.0, 0.2).double()
        for k in network.activations
    }
    magnitude = torch.tensor([0.5, 2.0], dtype=torch.float64)
    computed, errors = affine_pieces(network, slopes), piece_errors(network, slopes, magnitude)
    for k, rows in exact_rows(network, slopes).items():
        assert isinstance(network.activation(k), LeakyReLU)
        for i, row in enumerate(rows):
            wrong = [Fraction(a) - b for a, b in zip(computed[k].matrix[i].tolist(), row[1:], strict=True)]
            reach = sum(abs(w) * Fraction(m) for w, m in zip(wrong, magnitude.tolist(), strict=True))
            worst = reach + abs(Fraction(float(computed[k].offset[i])) - row[0])
            assert worst <= Fraction(float(errors[k][i]))
            assert float(errors[k][i]) <= 1e-12 * (1 + bias) * 100  # and it is no blanket


def test_what_underflows_on_the_way_back_meets_the_values_of_steep_sides() -> None:
    """Two weights of 1e-170 make 0 before a slope of 1e200, and the value in between is far above its argument."""
    one = torch.ones(1, dtype=torch.float64)
    nodes = [Input(2), Affine((0,), (Dense(torch.ones(1, 2, dtype=torch.float64)),), 0 * one)]
    for weight in (1e-170, 1e-170):
        nodes += [Activate(len(nodes) - 1, LeakyReLU(-1e200), 1)]
        nodes += [Affine((len(nodes) - 1,), (Dense(weight * one.unsqueeze(0)),), 0 * one)]
    nodes += [Activate(len(nodes) - 1, LeakyReLU(), 1)]
    nodes += [Affine((len(nodes) - 1,), (Dense(one.unsqueeze(0)),), 0 * one)]
    network = lipcompare.Network(tuple(nodes), (2,), (1,))
    first, second, last = network.activations
    slopes = {first: -1e200 * one, second: one, last: one}
    chosen = {first: torch.arange(0), second: torch.arange(0), last: torch.arange(1)}
    piece = chosen_pieces(network, {k: v.unsqueeze(0) for k, v in slopes.items()}, chosen)[last]
    error = piece_errors(network, slopes, torch.ones(2).double())
    exact = exact_rows(network, slopes)[last][0]
    assert sum(abs(Fraction(float(w)) - e) for w, e in zip(piece.matrix[0, 0], exact[1:], strict=True)) <= Fraction(
        float(error[last])
    )


def test_what_underflows_in_a_product_of_weights_meets_the_inputs() -> None:
    """Weights of 1e-150 and 7.4e-174 make one and a half of the smallest number, and inputs are up to 1e6."""
    one = torch.ones(1, dtype=torch.float64)
    nodes: list[Node] = [Input(1)]
    for weight in (1e-150, 7.4e-174):
        nodes += [Affine((len(nodes) - 1,), (Dense(weight * one.unsqueeze(0)),), 0 * one)]
        nodes += [Activate(len(nodes) - 1, LeakyReLU(), 1)]
    nodes += [Affine((len(nodes) - 1,), (Dense(one.unsqueeze(0)),), 0 * one)]
    network = lipcompare.Network(tuple(nodes), (1,), (1,))
    last = network.activations[-1]
    slopes = dict.fromkeys(network.activations, one)
    piece, error = affine_pieces(network, slopes)[last], piece_errors(network, slopes, 1e6 * one)[last]
    lost = abs(Fraction(float(piece.matrix)) - Fraction(1e-150) * Fraction(7.4e-174)) * 10**6
    assert 0 < lost <= Fraction(float(error))


def test_the_error_grows_with_the_chain_of_operations() -> None:
    """At least ``N u`` times the sum of absolute values over all paths, N products and sums on the longest one."""
    network, unit = nets.dense(3, (3, 30, 30, 2), 0.2), torch.finfo(torch.float64).eps / 2
    magnitude = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    slopes = {k: torch.full((30,), -0.2, dtype=torch.float64) for k in network.activations}
    errors = piece_errors(network, slopes, magnitude)
    size, terms = magnitude, 0
    for k, node in enumerate(network.nodes[1:-1], 1):
        if isinstance(node, Affine):
            assert node.bias is not None
            size, terms = node.maps[0].matrix().abs() @ size + node.bias.abs(), terms + node.maps[0].in_size + 1
        else:
            assert bool((errors[k] >= terms * unit * size).all()) and bool((size > 0).all())
            size = size * slopes[k].abs()
    assert terms == 35


@pytest.mark.parametrize("family", ["dense", "leaky", "residual", "conv", "concatenation"])
def test_pieces_are_the_network_where_their_pattern_holds(family: str) -> None:
    network = nets.FAMILIES[family](3)
    x = torch.rand(5, network.in_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = network.values(x)
    for k, piece in affine_pieces(network, network.slopes(values)).items():
        assert piece.matrix.shape[-2:] == (network.nodes[k].size, network.in_size)
        z = (piece.matrix @ x.unsqueeze(-1)).squeeze(-1) + piece.offset
        torch.testing.assert_close(z, values[network.nodes[k].parents[0]])


@pytest.mark.parametrize("family", ["dense", "leaky", "residual", "conv", "concatenation", "pooling"])
@pytest.mark.parametrize("few", [True, False])
def test_some_pieces_are_those_of_all(family: str, few: bool) -> None:
    """Of several patterns; from the side of the neurons where these are fewer than the inputs, and from the inputs."""
    network = nets.FAMILIES[family](3)
    x = torch.rand(4, network.in_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    slopes = network.slopes(network.values(x))
    chosen = {k: torch.arange(network.nodes[k].size) for k in network.activations}
    if few:  # one neuron in all
        chosen = {k: rows[: k == network.activations[-1]] for k, rows in chosen.items()}
    assert (sum(map(len, chosen.values())) < network.in_size) is (few or family == "conv")
    for k, piece in chosen_pieces(network, slopes, chosen).items():
        assert len(piece.matrix) == len(piece.offset) == 4
        for i in range(4):
            expected = affine_pieces(network, {n: v[i] for n, v in slopes.items()})[k]
            torch.testing.assert_close(piece.matrix[i], expected.matrix[chosen[k]])
            torch.testing.assert_close(piece.offset[i], expected.offset[chosen[k]])
