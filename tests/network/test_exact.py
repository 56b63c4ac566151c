"""Exact signs against rational arithmetic written out."""

from __future__ import annotations

from fractions import Fraction

import nets
import numpy as np
import pytest
import torch

from lipcompare import Network, Problem
from lipcompare.network import Activate, Affine, LeakyReLU, exact
from lipcompare.network.activations.smooth import sigmoid
from lipcompare.network.exact import UNKNOWN, Exact, TooLarge
from lipcompare.network.linear_maps import Dense, Identity
from lipcompare.witness import check_witnesses, make_witnesses


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
        found = Exact(network).signs(x)
        expected = by_hand(network, x.tolist())
        assert {k: v.tolist() for k, v in found.items()} == expected


def test_what_floating_point_loses_is_seen() -> None:
    """x + 1e30 - 1e30 is x, and 0.1 + 0.2 is more than 0.3."""
    b = nets.Builder(2, 0)
    weight, bias = ([[1.0, 1.0], [1e30, 1.0]], [-0.3, -1e30])
    double = [torch.tensor(v, dtype=torch.float64) for v in (weight, bias)]
    b.nodes.append(Affine((0,), (Dense(double[0]),), double[1]))
    b.activate(0.5)
    b.dense(1)
    signs = Exact(b.build()).signs(torch.tensor([0.1, 0.2], dtype=torch.float64))
    assert signs[2].tolist() == [1, -1]
    x = torch.tensor([1.0, 1e-30], dtype=torch.float64)
    assert Exact(b.build()).signs(x)[2][1] == 1
    assert Exact(b.build()).signs(torch.tensor([1.0, 0.0]).double())[2][1] == 0


def test_behind_a_smooth_activation_nothing_is_known() -> None:
    signs = Exact(nets.mixed(2)).signs(torch.full((3,), 0.5, dtype=torch.float64))
    first, *later = nets.mixed(2).activations
    assert set(signs) == {first} and later


def test_a_sum_with_an_unknown_term_is_unknown() -> None:
    """Sigmoid on one branch: the sum is not the other branch alone."""
    b = nets.Builder(3, 4)
    first = b.dense(3)
    smooth_one = b.activate(sigmoid())
    joined = b.affine((smooth_one, Identity(3)), (first, Identity(3)))
    behind = b.activate()
    b.affine((behind, Identity(3)), (joined, Identity(3)))
    b.activate()
    signs = Exact(b.build()).signs(torch.full((3,), 0.5, dtype=torch.float64))
    assert set(signs) == {smooth_one}


def test_large_networks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nets.dense(0)
    x = torch.zeros(network.in_size, dtype=torch.float64)
    for limit in ("_ENTRIES", "_PRODUCTS"):
        with monkeypatch.context() as patch:
            patch.setattr(f"lipcompare.network.exact.{limit}", 10)
            with pytest.raises(TooLarge):
                Exact(network).signs(x)
    assert np.all(Exact(network).signs(x)[2] != 0)


def deep(depth: int, seed: int) -> Network:
    """Layers of four neurons with weights of about one: absolute values grow by a factor of three a layer."""
    b = nets.Builder(3, seed)
    for _ in range(depth):
        b.dense(4)
        b.activate(0.5)
    b.dense(2)
    return b.build()


def test_cut_numbers_decide_the_same_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With so few bits that many signs are open, those that are decided are right, and more bits decide the rest."""
    network = deep(12, 1)
    x = torch.tensor([0.3, -0.2, 0.7], dtype=torch.float64)
    expected = by_hand(network, x.tolist())
    assert {k: v.tolist() for k, v in Exact(network).signs(x).items()} == expected
    monkeypatch.setattr(exact, "_BITS", (4,))
    found = Exact(network).signs(x)
    unknown = {k: v == UNKNOWN for k, v in found.items()}
    assert any(mask.any() for mask in unknown.values())
    for k, signs in found.items():
        assert (unknown[k] | (signs == expected[k])).all()
    monkeypatch.setattr(exact, "_BITS", (4, None))
    assert {k: v.tolist() for k, v in Exact(network).signs(x).items()} == expected


def test_what_is_known_before_the_work_is_spent_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    network = deep(12, 1)
    x = torch.tensor([0.3, -0.2, 0.7], dtype=torch.float64)
    monkeypatch.setattr(exact, "_BITS", (4, None))
    monkeypatch.setattr(exact, "_PRODUCTS", 250)
    found = Exact(network).signs(x)
    assert any((signs == UNKNOWN).any() for signs in found.values())


@pytest.mark.parametrize("family", ["dense", "leaky", "conv", "residual", "concatenation", "pooling"])
def test_gradients_are_those_of_rational_arithmetic(family: str) -> None:
    network = nets.FAMILIES[family](5)
    x = torch.randn(network.in_size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    slopes = network.slopes(network.values(x))
    row = torch.ones(network.out_size, dtype=torch.float64)
    found = Exact(network).gradient(slopes, row)
    expected = network.pull_back(slopes, row).abs().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_a_gradient_is_rounded_down() -> None:
    b = nets.Builder(2, 0)
    first, second = (torch.tensor(w, dtype=torch.float64) for w in ([[0.1, 1e-310], [0.2, 0.0]], [[1.0, 1.0]]))
    b.nodes += [Affine((0,), (Dense(first),), None), Affine((1,), (Dense(second),), None)]
    found = Exact(b.build()).gradient({}, torch.ones(1).double())
    assert Fraction(found[0]) <= Fraction(0.1) + Fraction(0.2) < Fraction(np.nextafter(found[0], 1))
    assert found[1] == 0


def test_a_deep_network_keeps_its_lower_end() -> None:
    """Absolute values of depth 60 are 10^20 times the gradient: bounds on rounding alone say nothing of it."""
    problem = Problem.around(deep(60, 2), torch.tensor([0.3, -0.2, 0.7]).double(), 0.01)
    points = problem.box.interval.center.unsqueeze(1).expand(1, problem.rows, -1)
    witnesses = make_witnesses(problem, points)
    least = check_witnesses(problem, witnesses)
    assert (witnesses.values > 0).all()
    np.testing.assert_allclose(least, witnesses.values, rtol=1e-6)
