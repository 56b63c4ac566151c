"""The coefficient maps against the chain rule: what they say of every gate, and by how much they may be off."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import nets
import pytest
import torch
from quadratic.programs import maps_of, patterns_of, propagated
from torch import Tensor

from lipcompare import Network, Problem
from lipcompare.domain import Box, Norm
from lipcompare.network import Affine, Input
from lipcompare.network.activations import LeakyReLU
from lipcompare.network.graph import Activate
from lipcompare.network.interval import Interval
from lipcompare.network.linear_maps import Dense
from lipcompare.quadratic.bound import sdp_bound
from lipcompare.quadratic.coordinates import GateMaps, Lifted, coordinate_count, gate_maps, undecided_gates
from lipcompare.testing.exact import exact_matrix, truth

FAMILIES = ("dense", "leaky", "conv", "residual", "pooling", "concatenation")
COUNT = 40


def coordinates_at(problem: Problem, maps: GateMaps, slopes: dict[int, Tensor], row: int) -> tuple[Tensor, Tensor]:
    """``K`` and ``v = a K`` (batch, patterns, n) of every coordinate under slopes, by the chain rule."""
    gates, _, _ = propagated(problem)
    rows = problem.functionals[:, row : row + 1].expand(-1, COUNT, -1)
    names = maps.coordinates
    k = torch.ones(problem.batch, COUNT, names.count, dtype=torch.float64)
    v = k.clone()
    for c in range(1, names.count):
        node = int(names.node[c])
        gradient = problem.network.pull_back(slopes, rows, stop=node)
        low, high = gates.slopes[node]
        for b in range(problem.batch):
            i = int(names.neuron[b, c])
            spread = (high - low)[b, i] * names.present[b, c]
            side = (slopes[node][b, :, i] - low[b, i]) / torch.where(spread > 0, spread, 1.0)
            k[b, :, c] = spread * gradient[b, :, i]
            v[b, :, c] = k[b, :, c] * side
    return k, v


@pytest.mark.parametrize("family", FAMILIES)
def test_gates_and_gradients_are_affine_in_the_coordinates(family: str) -> None:
    problem = nets.problem(nets.FAMILIES[family](7), 0.4, batch=2)
    maps, slopes = maps_of(problem), patterns_of(problem, COUNT)
    for row in range(problem.rows):
        k, v = coordinates_at(problem, maps, slopes, row)
        said = maps.gate_constant[:, row].unsqueeze(1) + v @ maps.gate_linear
        slack = 1e-12 * maps.reach[:, row].unsqueeze(1)
        assert bool(((said - k)[..., 1:].abs() <= slack[..., 1:]).all())
        assert bool((k.abs() <= maps.reach[:, row].unsqueeze(1)).all())
        assert bool((k >= maps.gate_interval.lower[:, row].unsqueeze(1) - slack).all())
        assert bool((k <= maps.gate_interval.upper[:, row].unsqueeze(1) + slack).all())
        gradient = problem.network.pull_back(slopes, problem.functionals[:, row : row + 1].expand(-1, COUNT, -1))
        entries = maps.entry_constant[:, row].unsqueeze(1) + v @ maps.entry_linear
        torch.testing.assert_close(entries, gradient, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("family", ["dense", "residual", "pooling"])
def test_gates_without_a_coordinate_are_in_the_errors(family: str) -> None:
    """They take any slope: what is left of the map is off by no more than is said, and by more than nothing."""
    problem = nets.problem(nets.FAMILIES[family](7), 0.4, batch=2)
    gates, gradients, _ = propagated(problem)
    even = {k: torch.arange(s.lower.shape[-1], device=problem.device) % 2 == 0 for k, s in gates.slopes.items()}
    lifted: Lifted = {k: undecided_gates(gates, gradients, k) & mask for k, mask in even.items()}
    maps, slopes = maps_of(problem, lifted), patterns_of(problem, COUNT)
    assert 1 < maps.coordinates.count < maps_of(problem).coordinates.count
    worst = 0.0
    for row in range(problem.rows):
        k, v = coordinates_at(problem, maps, slopes, row)
        off = (maps.gate_constant[:, row].unsqueeze(1) + v @ maps.gate_linear - k)[..., 1:].abs()
        assert bool((off <= maps.gate_error[:, row, 1:].unsqueeze(1)).all())
        gradient = problem.network.pull_back(slopes, problem.functionals[:, row : row + 1].expand(-1, COUNT, -1))
        off = (maps.entry_constant[:, row].unsqueeze(1) + v @ maps.entry_linear - gradient).abs()
        assert bool((off <= (maps.entry_drift + maps.entry_error)[:, row].unsqueeze(1)).all())
        worst = max(worst, float((off / maps.entry_drift[:, row].unsqueeze(1).clamp(min=1e-9)).max()))
    assert 0.5 < worst <= 1


def test_the_sum_of_what_gates_without_a_coordinate_change_is_rounded_upward() -> None:
    """Each of two large terms swallows as many small ones as there is room for, when they are summed in any order."""
    count, small = 400, 0.9 * 2.0**-53
    first = torch.full((count, 1), small, dtype=torch.float64)
    first[:2] = 1.0
    one = torch.ones(1, count, dtype=torch.float64)
    layers = (Affine((0,), (Dense(first),), None), Activate(1, LeakyReLU(), count), Affine((2,), (Dense(one),), None))
    problem = Problem.around(Network((Input(1), *layers), (1,), (1,)), 0.0, 1.0)
    gates, gradients, _ = propagated(problem)
    # The gradient at every gate is 1; the interval that bound propagation gives is a little wider than that.
    known = dataclasses.replace(gradients, intervals={**gradients.intervals, 2: Interval(one[None], one[None])})
    lifted = {2: torch.zeros(1, count, dtype=torch.bool)}
    maps = gate_maps(problem.network, gates, problem.functionals, known, lifted)
    assert maps.coordinates.count == 1
    exact = sum((Fraction(w) / 2 for w in first[:, 0].tolist()), Fraction(0))
    assert exact <= Fraction(float(maps.entry_drift)) <= exact * (1 + Fraction(1, 10**11))


def exact_gradients(network: Network, slopes: dict[int, Tensor], row: list[float]) -> dict[int, list[Fraction]]:
    """The chain rule through a chain of layers, without rounding: the gradient at every node."""
    gradient = [Fraction(c) for c in row]
    gradients = {}
    for k in range(len(network.nodes) - 1, 0, -1):
        gradients[k] = gradient
        node = network.nodes[k]
        if isinstance(node, Affine):
            table = exact_matrix(node.maps[0])
            gradient = [
                sum((g * line[j] for g, line in zip(gradient, table, strict=True)), Fraction(0))
                for j in range(len(table[0]))
            ]
        else:
            gradient = [g * Fraction(s) for g, s in zip(gradient, slopes[k].tolist(), strict=True)]
    return {**gradients, 0: gradient}


@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_rounding_of_the_maps_is_allowed_for(eps: float) -> None:
    """The constant parts, for which all undecided gates have their low slope, against rational arithmetic."""
    seen = 0
    for seed in range(8):
        problem = nets.problem(nets.dense(seed, (3, 9, 9, 2), 0.2), eps, seed)
        network = problem.network
        gates, _, _ = propagated(problem)
        maps = maps_of(problem)
        low = {k: s.lower[0] for k, s in gates.slopes.items()}
        for row in range(problem.rows):
            exact = exact_gradients(network, low, problem.functionals[0, row].tolist())
            for j, value in enumerate(exact[0]):
                off = abs(Fraction(float(maps.entry_constant[0, row, j])) - value)
                assert off <= Fraction(float(maps.entry_error[0, row, j])) < 1e-12
                seen += off > 0
            for c in range(1, maps.coordinates.count):
                node, i = int(maps.coordinates.node[c]), int(maps.coordinates.neuron[0, c])
                spread = Fraction(float((gates.slopes[node].upper - gates.slopes[node].lower)[0, i]))
                off = abs(Fraction(float(maps.gate_constant[0, row, c])) - spread * exact[node][i])
                assert off <= Fraction(float(maps.gate_error[0, row, c])) < 1e-12
                seen += off > 0
    assert seen > 10


def test_the_allowance_grows_with_the_chain_of_operations() -> None:
    """At least ``N u`` times the sum of absolute values over all paths, N products and sums on the longest one."""
    problem = nets.problem(nets.dense(3, (3, 30, 30, 2)), 0.0)
    network, unit = problem.network, torch.finfo(torch.float64).eps / 2
    maps = maps_of(problem)
    gates, _, _ = propagated(problem)
    size, terms = problem.functionals[0].abs(), 0
    for k in range(len(network.nodes) - 1, 0, -1):
        node = network.nodes[k]
        if isinstance(node, Affine):
            size, terms = size @ node.maps[0].matrix(device=size.device).abs(), terms + node.size
        else:
            size = size * gates.slopes[k].magnitude[0]
    assert terms == 62
    assert bool((maps.entry_error[0] >= terms * unit * size).all()) and bool((size > 0).all())


def test_only_undecided_gates_with_a_gradient_have_coordinates() -> None:
    problem = nets.problem(nets.dense(7, (3, 8, 6, 2)), 0.4, batch=2)
    gates, gradients, _ = propagated(problem)
    first, second = problem.network.activations
    # Neuron 0 of the second layer reaches no output.
    intervals = dict(gradients.intervals)
    intervals[second] = type(intervals[second])(*(end.clone() for end in intervals[second]))
    for end in intervals[second]:
        end[..., 0] = 0.0
    silent = dataclasses.replace(gradients, intervals=intervals)
    assert not undecided_gates(gates, silent, second)[:, 0].any()
    counts = [1 + sum(int(undecided_gates(gates, silent, k)[b].sum()) for k in (first, second)) for b in (0, 1)]
    assert coordinate_count(gates, silent).tolist() == counts
    maps = maps_of(problem)
    assert maps.coordinates.present.sum(-1).tolist() == coordinate_count(gates, gradients).tolist()
    assert maps.coordinates.node.tolist() == sorted(maps.coordinates.node.tolist(), key=lambda k: (k >= 0, -k))
    stops = [0, *(stop - 1 for _, stop in maps.coordinates.ranges)]
    assert stops[-1] == maps.coordinates.count - 1
    for start, stop in maps.coordinates.ranges:
        assert maps.coordinates.node[start:stop].unique().numel() == 1


def test_sizes_are_a_little_wider_than_the_intervals_and_zero_only_where_these_are() -> None:
    problem = nets.problem(nets.dense(7, (3, 8, 6, 2)), 0.4, batch=2)
    maps = maps_of(problem)
    magnitude = maps.gate_interval.magnitude
    assert bool(((maps.reach > magnitude) == (magnitude > 0))[..., 1:].all())
    assert bool((maps.reach[..., 1:] >= magnitude[..., 1:] * (1 + 2**-51)).all())


@pytest.mark.parametrize("norm", list(Norm))
def test_coefficients_that_underflow_on_the_way_meet_large_coordinates(norm: Norm) -> None:
    """A coordinate of 1e300 goes through a weight of 1e-200 and a slope of 1e-190, which make 0, and one of 1e100."""

    def affine(parent: int, weight: float, bias: float) -> Affine:
        tensors = torch.tensor([[weight], [bias]], dtype=torch.float64)
        return Affine((parent,), (Dense(tensors[:1]),), tensors[1])

    first = (Input(1), affine(0, 1e100, -2e100), Activate(1, LeakyReLU(1e-190), 1))
    second = (affine(2, -1e-200, -2e-290), Activate(3, LeakyReLU(), 1), affine(4, 1e300, 0.0))
    one = torch.ones(1, 1, dtype=torch.float64)
    problem = Problem(Network((*first, *second), (1,), (1,)), Box(-one, one), norm)
    gates, gradients, _ = propagated(problem)
    found = sdp_bound(problem.network, gates, problem.functionals, gradients, norm)
    assert truth(problem).admits_upper(0, norm, float(found.upper))
