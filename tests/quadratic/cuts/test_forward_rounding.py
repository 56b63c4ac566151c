"""Rounding of the forward pass in the semidefinite program: its maps against rational arithmetic."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from fractions import Fraction
from unittest import mock

import nets
import pytest
import torch

import lipcompare
from lipcompare import Box, Network, Problem
from lipcompare.gates import Conflicts, Coupling
from lipcompare.methods import Sdp
from lipcompare.network import Activate, Affine, LeakyReLU
from lipcompare.network.interval import Interval
from lipcompare.network.linear_maps import Dense, Scale
from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.quadratic.cuts.forward import (
    INPUT,
    OUTPUT,
    _through_maps,
    _Value,
    _Walk,
    forward_maps,
)
from lipcompare.rounding import allowance
from lipcompare.testing import exact, hostile


def _value(network: Network, node: int, x: list[Fraction]) -> list[Fraction]:
    """What a node is at a point, in rational arithmetic."""
    part = Network(network.nodes[: node + 1], network.input_shape, (network.nodes[node].size,))
    outputs, _ = next(exact.pieces(part, exact.box_polytope(x, x)))
    return [f.at(tuple(x)) for f in outputs]


def _maps_hold(problem: Problem) -> bool:
    """Whether pre-activations at the corners of a box are what the maps say, within the error that they state."""
    network, box = problem.network, problem.box.interval
    bounds = preactivation_bounds(network, box, Tightening.CROWN)
    maps = forward_maps(network, Coupling(box, bounds, Conflicts.none(box.lower.device)))
    names = [(int(n), int(i)) for n, i in zip(maps.coordinates.node, maps.coordinates.neuron[0], strict=True)]
    constant, error, least = (list(map(Fraction, v[0].tolist())) for v in (maps.constant, maps.error, maps.least))
    linear = [list(map(Fraction, column)) for column in maps.linear[0].T.tolist()]
    for unit in itertools.product((0, 1), repeat=network.in_size):
        ends = (Fraction(float(end[0, i])) for i, end in enumerate(box[u] for u in unit))
        x, w = list(ends), [Fraction(0)] * len(names)
        for c in maps.coordinates.present[0].nonzero().squeeze(-1).tolist():
            node, neuron = names[c]
            if node == INPUT:
                w[c] = Fraction(unit[neuron])
                continue
            parent = network.nodes[OUTPUT - node].parents[0]
            top = Fraction(float(bounds[OUTPUT - node].upper[0, neuron]))
            z = _value(network, parent, x)[neuron] / top
            said = constant[c] + sum(a * b for a, b in zip(linear[c], w, strict=True))
            if abs(said - z) > error[c] or least[c] > z + error[c]:
                return False
            w[c] = max(z, Fraction(0))
    return True


def test_the_error_of_the_maps_is_needed() -> None:
    problems = [hostile.problem(family, 3, "inf", torch.float64) for family in ("plain", "cancelling pre-activations")]
    assert all(_maps_hold(p) for p in problems)
    with mock.patch("lipcompare.quadratic.cuts.forward.allowance", return_value=0.0):
        assert not any(_maps_hold(p) for p in problems)


def _cancelling(what: str) -> Problem:
    """Numbers about 10^9 of one kind, with or without biases, of which next to nothing is left in a pre-activation."""
    random = torch.Generator().manual_seed(5)

    def drawn(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=random, dtype=torch.float64)

    first, second, last = drawn(5, 2), drawn(4, 5), drawn(1, 4)
    center, bias, other = torch.zeros(1, 2, dtype=torch.float64), torch.zeros(5, dtype=torch.float64), None
    large = 1e9 * (1 + torch.rand(5, generator=random, dtype=torch.float64))
    if what == "inputs":
        center = large[None, :2]
        first[:, 1] = -first[:, 0] * center[0, 0] / center[0, 1]
    elif what == "biases":
        bias, other = large, -(second @ large)
    elif what == "active neurons":
        bias = large
        second[:, 4] = -(second[:, :4] @ large[:4]) / large[4]
    else:  # undecided ones, on whose sides all of a pre-activation depends
        first, second = 1e9 * first, 1e-9 * second
    b = nets.Builder(2, 0)
    for weight, added in ((first, bias), (second, other), (last, None)):
        b.nodes.append(Affine((b.last,), (Dense(weight),), added))
        if weight is not last:
            b.activate()
    return Problem(b.build(), Box(center - 1, center + 1))


@pytest.mark.parametrize("what", ["inputs", "biases", "active neurons", "undecided neurons"])
def test_what_cancels_is_in_the_error_of_the_maps(what: str) -> None:
    assert _maps_hold(_cancelling(what))


@pytest.mark.parametrize("scale", [1e-155, 1e-160])
def test_what_underflows_is_in_the_error_of_the_maps(scale: float) -> None:
    """Two layers of weights of that size: pre-activations are a few thousand times the smallest number, or fewer."""
    random = torch.Generator().manual_seed(5)
    b = nets.Builder(2, 0)
    for size in ((5, 2), (4, 5), (1, 4)):
        weight = scale * torch.randn(*size, generator=random, dtype=torch.float64)
        b.nodes.append(Affine((b.last,), (Dense(weight),), None))
        if len(weight) > 1:
            b.activate()
    assert _maps_hold(Problem.around(b.build(), 0.0, 1.0))


LEAST = 2.0**-1074  # the smallest number


def _nearly_half() -> tuple[float, float]:
    """Two numbers whose product is 50.45 times the smallest number, or nearly, and is rounded to 50 times it."""
    first = 1e-160
    second = float(Fraction(5045, 100) * Fraction(LEAST) / Fraction(first))
    assert first * second == 50 * LEAST
    return first, second


@pytest.mark.parametrize("later", [1.0, 2.0**500])
def test_underflow_of_every_coefficient_is_in_the_error_of_the_maps(later: float) -> None:
    """A tree of sums of two, 256 inputs in all, then a factor that every coefficient underflows with, and then one
    that makes the loss large."""
    width, factor = _nearly_half()
    b = nets.Builder(256, 0)
    for blocks in (128, 64, 32, 16, 8, 4, 2, 1):
        b.nodes.append(Affine((b.last,), (Dense(torch.ones(1, 2, dtype=torch.float64), blocks),), None))
    for size in (factor, later):
        b.nodes.append(Affine((b.last,), (Scale(torch.full((1,), size, dtype=torch.float64)),), None))
    b.activate()
    low = torch.zeros(1, 256, dtype=torch.float64)
    top = torch.full((1, 1), 2.0**16 * LEAST * later, dtype=torch.float64)
    box, bounds = Interval(low, low + width), {b.last: Interval(-top, top)}
    maps = forward_maps(b.build(), Coupling(box, bounds, Conflicts.none(low.device)))
    exactly = 256 * Fraction(width) * Fraction(factor) * Fraction(later) / Fraction(float(top))
    said = sum(map(Fraction, maps.linear[0, :256, 256].tolist()))
    assert abs(said - exactly) <= Fraction(float(maps.error[0, 256]))


def test_a_corner_that_underflow_takes_from_the_program_is_in_its_bound() -> None:
    """A neuron that is active where all inputs are at their ends alone, by less than the smallest number. Of its
    pre-activation, in which every product is rounded down, the program would say that it is negative everywhere."""
    width, factor = _nearly_half()
    weight = torch.full((2, 3), factor, dtype=torch.float64)
    weight[1, 1:], weight[1, 1] = 0.0, -factor
    most = 3 * Fraction(width) * Fraction(factor) / Fraction(LEAST)
    bias = torch.tensor([-int(most) * LEAST, 0.0], dtype=torch.float64)
    b = nets.Builder(3, 0)
    b.nodes.append(Affine((0,), (Dense(weight),), bias))
    b.activate()
    b.nodes.append(Affine((b.last,), (Dense(torch.ones(1, 2, dtype=torch.float64)),), None))
    low = torch.zeros(1, 3, dtype=torch.float64)
    problem = Problem(b.build(), Box(low, low + width))
    found = lipcompare.bound(problem, Sdp(tightening=Tightening.CROWN, cuts=100))
    assert exact.truth(problem).admits_upper(0, problem.norm, float(found.overall_upper[0]))


def test_vanishing_terms_beside_large_ones_are_in_the_error_of_the_maps() -> None:
    """A sum of 2^16 products, each of which is rounded away beside those that came before."""
    count = 2**16
    weight = torch.ones(1, count, dtype=torch.float64)
    x = torch.full((1, count), 0.9 * torch.finfo(torch.float64).eps / 4, dtype=torch.float64)
    x[:, :128] = 1.0  # so that one comes first in every part of the sum, in whatever parts it is done
    low, high = x.clone(), x.clone()
    low[0, 0], high[0, 0] = 0.0, 2.0
    bias = torch.tensor([-128.0], dtype=torch.float64)
    b = nets.Builder(count, 0)
    b.nodes.append(Affine((0,), (Dense(weight),), bias))
    b.activate()
    wide = torch.ones(1, 1, dtype=torch.float64)
    bounds = {2: Interval(-2 * wide, 2 * wide)}
    maps = forward_maps(b.build(), Coupling(Interval(low, high), bounds, Conflicts.none(low.device)))
    exactly = sum(map(Fraction, low[0].tolist())) + Fraction(float(bias))
    off = abs(Fraction(float(maps.constant[0, 1])) - exactly / 2)
    assert 0 < off <= Fraction(float(maps.error[0, 1]))


def _depth(terms: Sequence[tuple[float, int]], bias: bool) -> float:
    """Operations on the longest way to a sum of sums of products, done one after another.

    Args:
        terms: operations on the way to the factors, and number of products, of each.
    """
    total: float | None = None
    for before, products in terms:
        part = before + 1
        for _ in range(products - 1):
            part = max(part, before + 1) + 1
        total = part if total is None else max(total, part) + 1
    assert total is not None
    return total + bias


@pytest.mark.parametrize("sizes", [(1,), (7,), (1, 1), (4, 9), (9, 4, 1, 1)])
@pytest.mark.parametrize("biased", [True, False])
def test_units_count_every_operation(sizes: tuple[int, ...], biased: bool) -> None:
    """Of an affine node with several terms, and of an activation whose low slope passes values on."""
    units = [3.0 + 5 * i for i in range(len(sizes))]
    maps = [Dense(torch.ones(2, n, dtype=torch.float64)) for n in sizes]
    bias = torch.ones(2, dtype=torch.float64) if biased else None
    zero = torch.zeros(1, 1, dtype=torch.float64)
    values = [
        _Value(constant=zero.expand(1, n), linear=zero.expand(1, 1, n), size=zero.expand(1, n), unit=unit)
        for n, unit in zip(sizes, units, strict=True)
    ]
    node = Affine(tuple(range(len(sizes))), tuple(maps), bias)
    found = _through_maps(9, node, list(zip(maps, values, strict=True)))
    assert found.unit >= _depth(list(zip(units, sizes, strict=True)), biased)
    # z = 1, exactly: the allowance of its error is for one more operation, the division by its upper bound.
    one = torch.ones(1, 2, dtype=torch.float64)
    box = Interval(zero, zero)
    walk = _Walk(Coupling(box, {9: Interval(-one, one)}, Conflicts.none(zero.device)), [])
    after = walk.through_activation(9, Activate(8, LeakyReLU(0.1), 2), dataclasses.replace(found, size=one))
    assert after.unit >= found.unit + 1
    assert bool((walk.layers[0].error >= allowance(found.unit + 1, torch.float64)).all())
