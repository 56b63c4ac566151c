"""The two folds over a network's graph: who is asked, in which order, what is added, what is forgotten."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch

import lipcompare
from lipcompare import Network, Problem
from lipcompare.network import Activate, Affine, Input, LeakyReLU
from lipcompare.network.graph import adjoints, affine_value, fold_backward, fold_forward, linear_value, tensors
from lipcompare.network.linear_maps import Dense, Identity, Scale
from tests import nets

NETWORKS = (nets.dense, nets.conv, nets.residual, nets.pooling, nets.concatenation)


def scale(factor: float, size: int = 1) -> Scale:
    return Scale(torch.full((size,), factor, dtype=torch.float64))


def diamond() -> Network:
    """1: 2x; 2 and 3: activations of it; 4: 10 (2) + 100 (3) + 1000 (1), twice through two maps of node 3."""
    relu = LeakyReLU(0.0)
    nodes = (
        Input(1),
        Affine((0,), (scale(2.0),), torch.tensor([0.5], dtype=torch.float64)),
        Activate(1, relu, 1),
        Activate(1, relu, 1),
        Affine((2, 3, 1, 3), (scale(10.0), scale(100.0), scale(1000.0), scale(1e4)), None),
    )
    return Network(nodes, (1,), (1,))


class Words:
    """A value that says how it came about; a class, so that it can be watched by weak references."""

    def __init__(self, text: str) -> None:
        self.text = text


def say(network: Network, given: dict[int, Words], stop: int | None = None) -> Words | None:
    def activation(k, node, value):
        return Words(f"a{k}({value.text})")

    def affine(k, node, terms):
        return Words(f"n{k}[" + " + ".join(f"{float(m.factor[0]):g}*{v.text}" for m, v in terms) + "]")

    return fold_forward(network, given, activation, affine, stop=stop)


def say_back(network: Network, given: dict[int, Words], stop: int = 0) -> Words | None:
    def activation(k, node, value):
        return Words(f"a{k}({value.text})")

    def affine(k, node, maps, value):
        return (Words(f"{float(m.factor[0]):g}*{value.text}") for m in maps)

    return fold_backward(
        network, given, activation, affine, add=lambda a, b: Words(f"[{a.text} + {b.text}]"), stop=stop
    )


def text(value: Words | None) -> str | None:
    return None if value is None else value.text


def test_forward_rules_are_asked_once_per_node_and_term() -> None:
    inner = "n1[2*x]"
    expected = f"n4[10*a2({inner}) + 100*a3({inner}) + 1000*{inner} + 10000*a3({inner})]"
    assert text(say(diamond(), {0: Words("x")})) == expected


def test_forward_from_a_middle_node_leaves_the_other_terms_out() -> None:
    assert text(say(diamond(), {3: Words("t")})) == "n4[100*t + 10000*t]"
    assert text(say(diamond(), {2: Words("s"), 3: Words("t")})) == "n4[10*s + 100*t + 10000*t]"


def test_a_given_node_is_not_computed() -> None:
    assert text(say(diamond(), {0: Words("x"), 1: Words("z")})) == ("n4[10*a2(z) + 100*a3(z) + 1000*z + 10000*a3(z)]")


def test_forward_stops_at_a_node() -> None:
    assert text(say(diamond(), {0: Words("x")}, stop=2)) == "a2(n1[2*x])"
    assert text(say(diamond(), {0: Words("x")}, stop=0)) == "x"
    assert text(say(diamond(), {2: Words("s")}, stop=3)) is None


def test_backward_adds_what_all_readers_hand_back_before_it_goes_on() -> None:
    both = "[100*g + 10000*g]"
    assert text(say_back(diamond(), {4: Words("g")})) == f"2*[[1000*g + a3({both})] + a2(10*g)]"


def test_backward_from_several_nodes_to_a_middle_one() -> None:
    assert text(say_back(diamond(), {4: Words("g"), 2: Words("h")}, stop=1)) == (
        "[[1000*g + a3([100*g + 10000*g])] + a2([h + 10*g])]"
    )
    assert text(say_back(diamond(), {3: Words("h")}, stop=1)) == "a3(h)"
    assert text(say_back(diamond(), {3: Words("h")}, stop=2)) is None
    assert text(say_back(diamond(), {2: Words("h")}, stop=2)) == "h"


def test_backward_asks_for_no_map_to_a_node_before_the_stop() -> None:
    asked: list[float] = []

    def affine(k, node, maps, value):
        asked.extend(float(m.factor[0]) for m in maps)
        return (m.adjoint(value) for m in maps)

    one = torch.ones(1, dtype=torch.float64)
    found = fold_backward(diamond(), {4: one}, lambda k, node, g: g, affine, stop=3)
    assert found == 10100.0
    assert asked == [100.0, 1e4]


def test_unused_nodes_take_no_part_backward_and_are_computed_forward() -> None:
    network = diamond()
    unused = Affine((2,), (scale(7.0),), None)
    nodes = (*network.nodes[:4], unused, network.nodes[4])
    larger = Network(nodes, (1,), (1,))
    seen: list[int] = []

    def activation(k, node, value):
        seen.append(k)
        return value

    def affine(k, node, maps, value):
        seen.append(k)
        return (m.adjoint(value) for m in maps)

    one = torch.ones(1, dtype=torch.float64)
    assert fold_backward(larger, {5: one}, activation, affine) == 2 * 11110.0
    assert seen == [5, 3, 2, 1]
    x = torch.tensor([[3.0]], dtype=torch.float64)
    assert [float(v) for v in larger.values(x)] == [3.0, 6.5, 6.5, 6.5, 45.5, 72215.0]


def test_activations_that_no_output_uses_are_none() -> None:
    """lbp and what stands on it ended with a KeyError: gates were asked for in a pass that goes to the output."""
    network = nets.dense(4, (2, 3, 2))
    first, kink, last = network.nodes[1:]
    assert isinstance(kink, Activate) and isinstance(last, Affine)
    dead = Activate(1, LeakyReLU(0.1), kink.size)
    tail = Affine((3,), (Dense(torch.ones(1, kink.size, dtype=torch.float64)),), None)
    larger = Network((network.nodes[0], first, kink, dead, tail, last), (2,), (2,))
    assert larger.activations == (2,) and larger.neurons == network.neurons
    for method in ("naive", "ibp", "lbp", "sdp", "enumerate", "milp"):
        small, large = (lipcompare.bound(Problem.around(n, 0.1, 0.5), method, time_limit=20) for n in (network, larger))
        assert large.status is small.status
        # Rounding is allowed for by the number of nodes.
        np.testing.assert_allclose(large.upper, small.upper, rtol=1e-12)
        np.testing.assert_allclose(large.lower, small.lower, rtol=1e-12)


def test_an_output_that_depends_on_no_given_node_has_no_value() -> None:
    nodes = (Input(1), Affine((0,), (scale(2.0),), None), Affine((0,), (scale(3.0),), None))
    network = Network(nodes, (1,), (1,))
    assert text(say(network, {1: Words("t")})) is None
    assert text(say_back(network, {1: Words("g")})) == "2*g"


def test_values_are_forgotten_after_their_last_reader() -> None:
    """At every rule only the values that someone still needs are alive."""
    network = diamond()
    alive: weakref.WeakSet[Words] = weakref.WeakSet()
    counts: list[int] = []

    def make(label: str) -> Words:
        counts.append(len(alive))
        words = Words(label)
        alive.add(words)
        return words

    chain = Network((*network.nodes, *(Affine((k,), (scale(1.0),), None) for k in range(4, 9))), (1,), (1,))
    given = {0: Words("x"), 9: Words("g")}  # the caller's, and not counted
    fold_forward(chain, {0: given[0]}, lambda k, node, v: make("a"), lambda k, node, terms: make("n"))
    # z | a2 and a3, while z is still to be read | the sum alone, and so on along the chain
    assert counts == [0, 1, 2, 3, 1, 1, 1, 1, 1]
    counts.clear()
    fold_backward(
        chain,
        {9: given[9]},
        lambda k, node, v: make("a"),
        lambda k, node, maps, v: (make("m") for _ in maps),
        add=lambda a, b: make("s"),
    )
    # along the chain | the diamond's first two maps | ...
    assert counts[:6] == [0, 1, 1, 1, 1, 1]
    assert not alive


@pytest.mark.parametrize("make", NETWORKS)
def test_forward_rule_of_affine_functions_gives_the_network(make) -> None:
    network = make(0)
    x = torch.randn(4, 3, network.in_size, dtype=torch.float64)
    values = network.values(x)
    assert torch.equal(values[-1], network.forward(x))
    for k in range(1, len(network.nodes)):
        found = fold_forward(
            network,
            {0: x},
            lambda k, node, z: node.activation.value(z),
            lambda k, node, terms: affine_value(node, terms),
            stop=k,
        )
        assert torch.equal(found, values[k])


@pytest.mark.parametrize("make", NETWORKS)
def test_the_folds_are_adjoint(make) -> None:
    """Tangents pushed forward and gradients pulled back from any node give the same number, and autograd's."""
    network = make(1)
    x = torch.randn(2, network.in_size, dtype=torch.float64, requires_grad=True)
    values = network.values(x)
    slopes = {k: v.detach() for k, v in network.slopes(values).items()}
    rows = torch.randn(2, network.out_size, dtype=torch.float64)
    last = len(network.nodes) - 1
    (expected,) = torch.autograd.grad((values[-1] * rows).sum(), x)
    torch.testing.assert_close(network.pull_back(slopes, rows), expected)
    for k in range(last + 1):
        tangent = torch.randn(2, network.nodes[k].size, dtype=torch.float64)
        pushed = fold_forward(
            network, {k: tangent}, lambda k, node, t: t * slopes[k], lambda k, node, terms: linear_value(terms)
        )
        pulled = fold_backward(network, {last: rows}, lambda k, node, g: g * slopes[k], adjoints, stop=k)
        assert pushed is not None and pulled is not None
        torch.testing.assert_close((pushed * rows).sum(), (tangent * pulled).sum())


def test_terms_broadcast() -> None:
    nodes = (Input(2), Affine((0,), (Identity(2),), None), Affine((0, 1), (Dense(torch.eye(2)), Identity(2)), None))
    network = Network(nodes, (2,), (2,))
    wide, narrow = torch.ones(3, 2), torch.ones(2)
    total = fold_forward(
        network, {0: wide, 1: narrow}, lambda k, node, z: z, lambda k, node, terms: linear_value(terms)
    )
    assert total.shape == (3, 2)
    assert torch.equal(total, torch.full((3, 2), 2.0))


@pytest.mark.parametrize("make", [*NETWORKS, nets.mixed, lambda seed: nets.dense(seed, alpha=0.1)])
def test_a_network_moves_only_where_it_is_not(make) -> None:
    network = make(0)
    assert network.to("cpu", torch.float64) is network
    single = network.to("cpu", torch.float32)
    assert single is not network
    assert single.to("cpu", torch.float32) is single
    x = torch.rand(3, network.in_size, dtype=torch.float64)
    assert single.forward(x.float()).dtype == torch.float32
    torch.testing.assert_close(single.forward(x.float()).double(), network.forward(x), rtol=1e-4, atol=1e-5)
    tensors_in_single = [t for node in single.nodes if isinstance(node, Affine) for t in tensors(node)]
    assert {t.dtype for t in tensors_in_single} == {torch.float32}


def test_one_weight_elsewhere_is_moved() -> None:
    network = diamond()
    nodes = list(network.nodes)
    nodes[1] = Affine((0,), nodes[1].maps, nodes[1].bias.float())
    mixed = Network(tuple(nodes), (1,), (1,))
    moved = mixed.to("cpu", torch.float64)
    assert moved is not mixed
    assert moved.nodes[1].bias.dtype == torch.float64
    assert moved.nodes[4] is mixed.nodes[4]
