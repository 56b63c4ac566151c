"""Exact signs against rational arithmetic written out."""

from __future__ import annotations

from fractions import Fraction

import nets
import numpy as np
import pytest
import torch

from lipcompare import Network
from lipcompare.network import Activate, Affine, LeakyReLU
from lipcompare.network.activations.smooth import sigmoid
from lipcompare.network.exact import ExactSigns, TooLarge


def by_hand(network: Network, point: list[float]) -> dict[int, list[int]]:
    """Signs of all pre-activations, from the maps' dense matrices (of maps that are not composed)."""
    values, signs = [[Fraction(v) for v in point]], {}
    for k, node in enumerate(network.nodes[1:], 1):
        if isinstance(node, Affine):
            total = [Fraction(b) for b in (node.bias.tolist() if node.bias is not None else [0.0] * node.size)]
            for p, m in node.terms:
                for i, row in enumerate(m.matrix().tolist()):
                    total[i] += sum(Fraction(w) * v for w, v in zip(row, values[p], strict=True) if w)
            values.append(total)
        elif isinstance(node, Activate) and isinstance(node.activation, LeakyReLU):
            z = values[node.parent]
            signs[k] = [(v > 0) - (v < 0) for v in z]
            alpha = torch.as_tensor(node.activation.alpha, dtype=torch.float64).expand(node.size).tolist()
            values.append([v if v > 0 else Fraction(a) * v for v, a in zip(z, alpha, strict=True)])
    return signs


@pytest.mark.parametrize("family", ["dense", "leaky", "conv", "residual", "concatenation", "pooling"])
@pytest.mark.parametrize("scale", [1.0, 1e-200])
def test_signs_are_those_of_rational_arithmetic(family: str, scale: float) -> None:
    network = nets.FAMILIES[family](5)
    random = torch.Generator().manual_seed(3)
    for _ in range(3):
        x = scale * torch.randn(network.in_size, generator=random, dtype=torch.float64)
        x[0] = 0.0
        found = ExactSigns(network).at(x)
        expected = by_hand(network, x.tolist())
        assert {k: v.tolist() for k, v in found.items()} == expected


def test_what_floating_point_loses_is_seen() -> None:
    """x + 1e30 - 1e30 is x, and 0.1 + 0.2 is more than 0.3."""
    b = nets.Builder(2, 0)
    weight, bias = ([[1.0, 1.0], [1e30, 1.0]], [-0.3, -1e30])
    double = [torch.tensor(v, dtype=torch.float64) for v in (weight, bias)]
    b.nodes.append(Affine((0,), (nets.Dense(double[0]),), double[1]))
    b.activate(0.5)
    b.dense(1)
    signs = ExactSigns(b.build()).at(torch.tensor([0.1, 0.2], dtype=torch.float64))
    assert signs[2].tolist() == [1, -1]
    x = torch.tensor([1.0, 1e-30], dtype=torch.float64)
    assert ExactSigns(b.build()).at(x)[2][1] == 1
    assert ExactSigns(b.build()).at(torch.tensor([1.0, 0.0]).double())[2][1] == 0


def test_behind_a_smooth_activation_nothing_is_known() -> None:
    signs = ExactSigns(nets.mixed(2)).at(torch.full((3,), 0.5, dtype=torch.float64))
    first, *later = nets.mixed(2).activations
    assert set(signs) == {first} and later


def test_a_sum_with_an_unknown_term_is_unknown() -> None:
    """Sigmoid on one branch: the sum is not the other branch alone."""
    b = nets.Builder(3, 4)
    first = b.dense(3)
    smooth_one = b.activate(sigmoid())
    joined = b.affine((smooth_one, nets.Identity(3)), (first, nets.Identity(3)))
    behind = b.activate()
    b.affine((behind, nets.Identity(3)), (joined, nets.Identity(3)))
    b.activate()
    signs = ExactSigns(b.build()).at(torch.full((3,), 0.5, dtype=torch.float64))
    assert set(signs) == {smooth_one}


def test_large_networks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nets.dense(0)
    x = torch.zeros(network.in_size, dtype=torch.float64)
    for limit in ("_ENTRIES", "_PRODUCTS"):
        with monkeypatch.context() as patch:
            patch.setattr(f"lipcompare.network.exact.{limit}", 10)
            with pytest.raises(TooLarge):
                ExactSigns(network).at(x)
    assert np.all(ExactSigns(network).at(x)[2] != 0)
