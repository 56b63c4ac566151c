"""Norms of intervals, the lines above a norm, and products of layer norms by hand."""

from __future__ import annotations

import nets
import pytest
import torch

from lipcompare.domain import Norm
from lipcompare.jacobian import interval_norm, norm_product
from lipcompare.jacobian.norms import absolute_chord, layer_product, operator_norm, square_chord
from lipcompare.network import Interval
from lipcompare.network.linear_maps import Composed, Conv, Dense, Scale, Select, Transposed

ORDER = {Norm.INF: torch.inf, Norm.TWO: 2, Norm.ONE: 1}


def intervals() -> Interval:
    low = torch.tensor([-2.0, -1.0, 0.5, -3.0, 0.0, -1.5, 2.0, 0.0], dtype=torch.float64)
    high = torch.tensor([1.0, 4.0, 2.0, -1.0, 3.0, 0.0, 2.0, 0.0], dtype=torch.float64)
    return Interval(low, high)


@pytest.mark.parametrize(("line", "function"), [(absolute_chord, torch.abs), (square_chord, torch.square)])
def test_chords_lie_above_and_touch_at_both_ends(line, function) -> None:
    z = intervals()
    slope, intercept = line(z)
    for share in torch.linspace(0, 1, 21, dtype=torch.float64):
        point = z.lower + share * (z.upper - z.lower)
        assert bool((slope * point + intercept >= function(point) - 1e-12).all())
    for end in z:
        torch.testing.assert_close(slope * end + intercept, function(end), rtol=1e-12, atol=1e-12)


def test_the_norm_of_an_interval_is_that_of_its_largest_corner() -> None:
    z = Interval(torch.tensor([-3.0, 1.0]).double(), torch.tensor([2.0, 4.0]).double())
    found = [float(interval_norm(z, norm)) for norm in (Norm.INF, Norm.TWO, Norm.ONE)]
    assert found == pytest.approx([7.0, 5.0, 4.0], rel=1e-12)
    assert all(value >= exact for value, exact in zip(found, (7.0, 5.0, 4.0), strict=True))
    unknown = Interval(torch.tensor([torch.nan, 1.0]).double(), torch.tensor([torch.nan, 4.0]).double())
    assert float(interval_norm(unknown, Norm.INF)) == torch.inf


@pytest.mark.parametrize("norm", list(Norm))
def test_operator_norms_of_maps(norm: Norm) -> None:
    random = torch.Generator().manual_seed(0)

    def weights(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    conv = Conv(weights(2, 1, 2, 2), (1, 4, 4), (1, 2), (1, 0), (1, 1))
    maps = (Dense(weights(3, 5)), conv, Transposed(conv), Scale(weights(4)), Select(torch.tensor([2, -1, 0, 2]), 3))
    for m in maps:
        exact = float(torch.linalg.matrix_norm(m.matrix(), ord=ORDER[norm]))
        assert operator_norm(m, norm, weights(1)) == pytest.approx(exact, rel=1e-9)
    product = Composed(Dense(weights(2, 3)), maps[0])
    exact = float(torch.linalg.matrix_norm(product.matrix(), ord=ORDER[norm]))
    assert operator_norm(product, norm, weights(1)) >= exact * (1 - 1e-12)


@pytest.mark.parametrize("norm", list(Norm))
def test_products_of_layer_norms_by_hand(norm: Norm) -> None:
    network = nets.dense(3, (3, 4, 5, 2), alpha=-2.0)
    first, second, last = (network.nodes[k].maps[0].weight for k in (1, 3, 5))
    functionals = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    inner = float(torch.linalg.matrix_norm(first, ord=ORDER[norm]) * torch.linalg.matrix_norm(second, ord=ORDER[norm]))
    rows = norm.dual.of(functionals @ last)
    torch.testing.assert_close(norm_product(network, functionals, norm), 4 * inner * rows, rtol=1e-9, atol=0)
    whole = 4 * inner * float(torch.linalg.matrix_norm(last, ord=ORDER[norm]))
    assert layer_product(network, norm, functionals) == pytest.approx(whole, rel=1e-9)


def test_branches_of_a_product_add() -> None:
    network = nets.residual(0)
    by_node = {k: [m.matrix() for m in node.maps] for k, node in enumerate(network.nodes) if hasattr(node, "maps")}

    def size(k: int, i: int = 0) -> float:
        return float(torch.linalg.matrix_norm(by_node[k][i], ord=torch.inf))

    trunk = size(1)
    joined = trunk * size(3) * size(5) + trunk
    functionals = torch.eye(2, dtype=torch.float64).unsqueeze(0)
    rows = [joined, joined, 1.0]
    expected = sum(reach * by_node[7][i].abs().sum(-1) for i, reach in enumerate(rows))
    torch.testing.assert_close(norm_product(network, functionals, Norm.INF)[0], expected, rtol=1e-9, atol=0)


def test_an_activation_at_the_output() -> None:
    b = nets.Builder(2, 0)
    b.dense(3)
    b.activate(0.5)
    network = b.build()
    functionals = torch.tensor([[[1.0, -2.0, 0.0]]], dtype=torch.float64)
    expected = 3.0 * float(torch.linalg.matrix_norm(network.nodes[1].maps[0].weight, ord=torch.inf))
    assert float(norm_product(network, functionals, Norm.INF)) == pytest.approx(expected, rel=1e-9)
