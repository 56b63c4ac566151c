"""Cuts: valid at every pattern, never above the plain bound, and worth their time."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import nets
import pytest
import torch

from lipcompare import Problem
from lipcompare.gates import Gates
from lipcompare.jacobian import gradient_intervals, norm_bound
from lipcompare.preactivation import interval_bounds
from lipcompare.quadratic.bound import SdpBound, sdp_bound
from lipcompare.quadratic.cuts.forms import chords, sign_sides
from lipcompare.quadratic.cuts.separation import tighten, with_signs
from lipcompare.quadratic.patterns import evaluate, explore, random_patterns
from lipcompare.quadratic.program import GateMaps, SdpData, gate_maps, l1_data
from lipcompare.quadratic.scaling import rescaled
from lipcompare.quadratic.solver.certificate import certify
from lipcompare.quadratic.solver.interior_point import solve

NETWORKS = {
    "dense": nets.dense(21, (4, 7, 7, 2)),
    "leaky": nets.dense(22, (4, 6, 6, 2), 0.2),
    "residual": nets.residual(3),
    "conv": nets.conv(4),
}


def setting(problem: Problem) -> tuple[SdpData, GateMaps]:
    network = problem.network
    gates = Gates.from_preactivations(network, interval_bounds(network, problem.box.interval))
    gradients = gradient_intervals(network, gates, problem.functionals)
    linear = norm_bound(network, problem.functionals, gradients, problem.norm)
    maps = gate_maps(network, gates, problem.functionals, gradients)
    example, row = (linear > 0).nonzero(as_tuple=True)
    data = l1_data(maps, gradients, linear[example, row], example, row)
    return rescaled(data, explore(data)), maps


def bound(problem: Problem, cuts: int) -> SdpBound:
    network = problem.network
    gates = Gates.from_preactivations(network, interval_bounds(network, problem.box.interval))
    gradients = gradient_intervals(network, gates, problem.functionals)
    return sdp_bound(network, gates, problem.functionals, gradients, problem.norm, cuts=cuts, only_maximum=False)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_forms_and_cuts_are_not_negative_at_any_pattern(name: str) -> None:
    data, maps = setting(nets.problem(NETWORKS[name], 0.4))
    solution = solve(data)
    augmented = with_signs(data, solution.moments, 64)
    forms, sides = chords(augmented, maps, data.example, data.row), sign_sides(augmented)
    patterns = evaluate(data, random_patterns(data, 400))
    entries = patterns.points @ (2 * augmented.cost[:, : data.size, data.size :])
    points = torch.cat([patterns.points, torch.where(entries >= 0, 1.0, -1.0)], -1)
    for form in (forms, sides):
        assert bool(((points @ form.columns) >= -1e-12).all())
    # With every sign at its best the augmented cost is the old objective.
    value = ((points @ augmented.cost) * points).sum(-1)
    torch.testing.assert_close(value, patterns.values)
    found = tighten(data, solution, maps, data.example, data.row, cuts=80, tolerance=1e-4)
    products = (points @ found.data.cuts.left) * (points @ found.data.cuts.right)
    assert bool((products >= -1e-12).all())
    certified = certify(found.data, found.solution.dual)
    assert bool((certified.unsqueeze(1) >= patterns.values).all())
    assert bool((found.upper <= certified * found.data.scale).all())


@pytest.mark.parametrize("off", [1e-3, -1e-3])
def test_errors_of_gates_are_in_those_of_their_chords(off: float) -> None:
    data, maps = setting(nets.problem(NETWORKS["dense"], 0.4))
    columns = data.columns.clone()
    columns[:, 0, 1:] += 0.5 * off * data.mask[:, 1:]
    wrong = dataclasses.replace(data, columns=columns, gate_slack=abs(off) * data.mask)
    forms = chords(wrong, maps, data.example, data.row)
    values = evaluate(data, random_patterns(data, 100)).points @ forms.columns
    assert bool((values >= -forms.error.unsqueeze(1) - 1e-12).all()) and float(values.min()) < -1e-4


def test_errors_of_gates_stay_where_signs_become_coordinates() -> None:
    data = setting(nets.problem(NETWORKS["dense"], 0.4))[0]
    rough = dataclasses.replace(data, gate_slack=0.01 * data.mask)
    signed = with_signs(rough, torch.zeros_like(data.columns), 64)
    assert signed.size > data.size and torch.equal(signed.gate_slack[:, : data.size], rough.gate_slack)


def test_constants_of_chords_that_cancel_may_round_below_0() -> None:
    """At a constant ``K`` that is an end of its interval, chords are differences of equal constants."""
    data, maps = setting(nets.problem(NETWORKS["dense"], 0.4))
    ends = torch.rand(2, *maps.gate_interval.lower.shape, generator=torch.Generator().manual_seed(0)).double()
    low, high = -1e-6 * (0.1 + ends[0]), 0.1 + ends[1]  # so far apart that what widens intervals hides no rounding
    top, gates = high[data.example, data.row], maps.coordinates.count
    columns = torch.zeros_like(data.columns)
    columns[:, 0, 1:gates] = -0.5 * top[:, 1:]
    data = dataclasses.replace(
        data, columns=columns, radius=torch.ones_like(data.radius), gate_slack=torch.zeros_like(data.gate_slack)
    )
    maps = dataclasses.replace(maps, gate_interval=maps.gate_interval._replace(lower=low, upper=high))
    forms = chords(data, maps, data.example, data.row)
    below = 0
    for p, g in data.mask[:, 1:gates].nonzero().tolist():
        k = Fraction(float(top[p, g + 1]))
        for form, v in ((g, k), (g + gates - 1, Fraction(0))):  # the gate high, and low
            constant, slope = (Fraction(float(forms.columns[p, i, form])) for i in (0, g + 1))
            value = constant + slope * v
            assert value >= -Fraction(float(forms.error[p, form]))
            below += value < 0
    assert below > 0


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_cuts_stay_above_the_free_gate_maximum_and_below_the_plain_bound(name: str) -> None:
    problem = nets.problem(NETWORKS[name], 0.4)
    plain, cut = bound(problem, 0), bound(problem, 200)
    assert bool((cut.upper <= plain.upper * (1 + 1e-4)).all())
    if name != "conv":
        assert bool((cut.upper >= nets.free_gate_maximum(problem) * (1 - 1e-12)).all())
    assert bool((cut.upper.cpu() >= nets.sampled_norms(problem) * (1 - 1e-12)).all())


def test_cuts_close_half_of_the_gap_to_the_free_gate_maximum() -> None:
    problem = nets.problem(nets.dense(21, (4, 7, 7, 2)), 0.4)
    best = nets.free_gate_maximum(problem)
    plain, cut = bound(problem, 0).upper, bound(problem, 300).upper
    assert bool((plain > best * 1.001).any())
    assert float((cut - best).sum()) <= 0.5 * float((plain - best).sum())


def test_a_batch_gives_what_its_examples_give() -> None:
    together = nets.problem(nets.dense(9, (4, 6, 6, 2)), 0.3, batch=3)
    result = bound(together, 60).upper
    for b in range(together.batch):
        torch.testing.assert_close(result[b : b + 1], bound(together.example(b), 60).upper, rtol=1e-4, atol=0)
