"""Simplification keeps the function and the gradient, and removes what it promises to remove."""

from __future__ import annotations

import pytest
import torch

from lipcompare.network.activations import relu
from lipcompare.network.compose import RULES, compose, merge
from lipcompare.network.graph import Activate, Affine, Input, Network
from lipcompare.network.linear_maps import Composed, Conv, Dense, Identity, LinearMap, Scale, Select, Transposed
from lipcompare.network.simplify import simplify


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _channels(*values: float, size: int) -> Scale:
    return Scale(torch.tensor(values, dtype=torch.float64).repeat_interleave(size))


PADDED = torch.nn.functional.pad(torch.arange(2 * 3 * 4).reshape(2, 3, 4), (2, 2, 1, 1), value=-1).reshape(-1)
CONV = Conv(_random(4, 1, 2, 2), (2, 5, 4), (1, 1), (0, 0), (1, 1), 2)
WIDE = Conv(_random(3, 2, 2, 2), (2, 5, 8), (1, 2), (0, 0), (1, 1))
# outer, inner, class of the product (None: stays composed)
PRODUCTS: dict[str, tuple[LinearMap, LinearMap, type[LinearMap]]] = {
    "identity left": (Identity(4), Dense(_random(4, 3)), Dense),
    "identity right": (Scale(_random(4)), Identity(4), Scale),
    "scale scale": (Scale(_random(4)), Scale(_random(4, seed=1)), Scale),
    "select select": (Select(torch.tensor([1, -1, 0]), 3), Select(torch.tensor([4, 2, -1]), 5), Select),
    "permutation back": (Select(torch.tensor([1, 2, 0]), 3), Select(torch.tensor([2, 0, 1]), 3), Identity),
    "slice of concatenation": (Select(torch.tensor([1, 4]), 5), Transposed(Select(torch.tensor([4, 0, 2]), 5)), Select),
    "scale dense": (Scale(_random(4)), Dense(_random(4, 3)), Dense),
    "scale dense blocks": (Scale(_random(4).repeat(2)), Dense(_random(4, 3), 2), Dense),
    "dense scale": (Dense(_random(4, 3)), Scale(_random(3)), Dense),
    "select dense": (Select(torch.tensor([1, -1, 1]), 4), Dense(_random(4, 3)), Dense),
    "dense select": (Dense(_random(4, 3)), Select(torch.tensor([1, -1, 1]), 5), Dense),
    "dense placed": (Dense(_random(2, 5)), Transposed(Select(torch.tensor([4, 0, 2]), 5)), Dense),
    "placed dense": (Transposed(Select(torch.tensor([3, 0, 2]), 4)), Dense(_random(3, 6)), Dense),
    "scale conv": (_channels(1, 2, 3, 4, size=12), CONV, Conv),
    "conv scale": (CONV, _channels(2, -3, size=20), Conv),
    "scale transposed conv": (_channels(2, -3, size=20), Transposed(CONV), Transposed),
    "transposed conv scale": (Transposed(CONV), _channels(1, 2, 3, 4, size=12), Transposed),
    "padding into conv": (WIDE, Select(PADDED, 24), Conv),
    "dense dense": (Dense(_random(2, 6)), Dense(_random(6, 3)), Dense),
    "low rank stays": (Dense(_random(20, 1)), Dense(_random(1, 20)), Composed),
    "transposes": (
        Transposed(Select(torch.tensor([3, 0]), 4)),
        Transposed(Select(torch.tensor([1, 0]), 2)),
        Transposed,
    ),
}


@pytest.mark.parametrize("case", PRODUCTS)
def test_products(case: str) -> None:
    outer, inner, kind = PRODUCTS[case]
    product = compose(outer, inner)
    torch.testing.assert_close(product.matrix(), outer.matrix() @ inner.matrix(), rtol=1e-12, atol=1e-12)
    assert isinstance(product, kind), type(product).__name__


def test_every_rule_is_tested() -> None:
    for outer, inner, _ in RULES:
        assert any(isinstance(a, outer) and isinstance(b, inner) for a, b, _ in PRODUCTS.values()), (outer, inner)


def test_a_chain_is_fused_across_what_was_composed() -> None:
    low = Composed(Dense(_random(20, 1)), Dense(_random(1, 20)))
    product = compose(Scale(_random(20)), low)
    assert isinstance(product, Composed) and isinstance(product.outer, Dense) and isinstance(product.inner, Dense)
    torch.testing.assert_close(product.matrix(), Scale(_random(20)).matrix() @ low.matrix())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Identity(4), Identity(4)),
        (Scale(_random(4)), Identity(4)),
        (Dense(_random(4, 4)), Scale(_random(4))),
        (Dense(_random(4, 3)), Dense(_random(4, 3, seed=1))),
        (CONV, Conv(_random(4, 1, 2, 2, seed=1), (2, 5, 4), (1, 1), (0, 0), (1, 1), 2)),
    ],
)
def test_sums(first: LinearMap, second: LinearMap) -> None:
    both = merge(first, second)
    assert both is not None and not isinstance(both, Composed)
    torch.testing.assert_close(both.matrix(), first.matrix() + second.matrix())


def _network(*nodes: Affine | Activate, size: int = 4) -> Network:
    out = nodes[-1].size
    return Network((Input(size), *nodes), (size,), (out,))


def _same(first: Network, second: Network) -> None:
    x, rows = _random(7, first.in_size), torch.eye(first.out_size, dtype=torch.float64)
    torch.testing.assert_close(first.forward(x), second.forward(x), rtol=1e-12, atol=1e-12)
    for point in x:
        gradients = [n.pull_back(n.slopes(n.values(point)), rows) for n in (first, second)]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_affine_chain_becomes_one_layer() -> None:
    network = _network(
        Affine((0,), (Scale(_random(4)),), _random(4)),
        Affine((1,), (Dense(_random(6, 4)),), None),
        Affine((2,), (Scale(_random(6)),), _random(6, seed=1)),
        Activate(3, relu(), 6),
        Affine((4,), (Dense(_random(3, 6)),), _random(3)),
    )
    small = simplify(network)
    assert [type(n) for n in small.nodes] == [Input, Affine, Activate, Affine]
    _same(network, small)


def test_a_convolution_over_the_whole_input_becomes_dense() -> None:
    conv = Conv(_random(3, 2, 2, 2), (2, 2, 2), (1, 1), (0, 0), (1, 1))
    network = _network(Affine((0,), (conv,), None), size=8)
    small = simplify(network)
    assert isinstance(small.nodes[1], Affine) and isinstance(small.nodes[1].maps[0], Dense)
    _same(network, small)


def test_unused_nodes_go() -> None:
    network = _network(
        Affine((0,), (Dense(_random(5, 4)),), None),
        Activate(1, relu(), 5),
        Affine((0,), (Dense(_random(2, 4)),), None),
    )
    small = simplify(network)
    assert len(small.nodes) == 2 and small.neurons == 0
    _same(network, small)


def test_a_value_that_an_activation_reads_stays() -> None:
    network = _network(
        Affine((0,), (Dense(_random(4, 4)),), _random(4)),
        Activate(1, relu(), 4),
        Affine((1, 2), (Identity(4), Scale(_random(4))), None),
    )
    small = simplify(network)
    assert len(small.nodes) == 4
    _same(network, small)


def test_a_costly_layer_is_not_computed_twice() -> None:
    shared = Affine((0,), (Dense(_random(30, 4)),), None)
    network = _network(
        shared,
        Affine((1,), (Dense(_random(30, 30)),), None),
        Activate(2, relu(), 30),
        Affine((1, 3), (Identity(30), Identity(30)), None),
        Activate(4, relu(), 30),
        Affine((5,), (Dense(_random(2, 30)),), None),
    )
    small = simplify(network)
    from lipcompare.network.compose import cost

    def total(n: Network) -> int:
        return sum(cost(m) for node in n.nodes if isinstance(node, Affine) for m in node.maps)

    assert total(small) <= total(network)
    _same(network, small)


def test_identity_network_and_bare_activation_keep_an_affine_output() -> None:
    identity = simplify(_network(Affine((0,), (Identity(4),), None)))
    assert [type(n) for n in identity.nodes] == [Input, Affine]
    bare = simplify(_network(Affine((0,), (Dense(_random(4, 4)),), None), Activate(1, relu(), 4),
                             Affine((2,), (Identity(4),), None)))  # fmt: skip
    assert isinstance(bare.nodes[-1], Affine)


def test_simplify_is_idempotent() -> None:
    network = _network(
        Affine((0, 0), (Identity(4), Scale(_random(4))), None),
        Activate(1, relu(), 4),
        Affine((1, 2), (Identity(4), Identity(4)), torch.zeros(4, dtype=torch.float64)),
        Affine((3,), (Dense(_random(2, 4)),), None),
    )
    once = simplify(network)
    assert len(simplify(once).nodes) == len(once.nodes)
    _same(network, once)
