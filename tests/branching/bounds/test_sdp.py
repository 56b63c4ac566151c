"""The quadratic-gate bound on subdomains: what it certifies, and the patterns that it reads off the moments."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest import mock

import nets
import pytest
import torch

from lipcompare import Network, Norm, Problem
from lipcompare.branching.bounds import Settings, sdp
from lipcompare.branching.bounds.sdp import QuadraticBound, _rounded
from lipcompare.branching.cuts import NamedCuts
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.heuristics import Area, Moment
from lipcompare.branching.subdomains import Subdomains
from lipcompare.gates import Gates
from lipcompare.jacobian import gradient_intervals, norm_bound
from lipcompare.network.interval import Interval
from lipcompare.preactivation import interval_bounds
from lipcompare.quadratic.patterns import evaluate, explore
from lipcompare.quadratic.program import gate_maps, l1_data
from lipcompare.quadratic.solver.interior_point import solve


def subdomains(problem: Problem, parts: int = 4) -> Subdomains:
    """The whole box for every row, and with more and more gates decided, on either side in turn."""
    network = problem.network
    root = Gates.from_preactivations(network, interval_bounds(network, problem.box.interval))
    count = problem.rows * parts
    part = torch.arange(count, device=problem.device) // problem.rows
    slopes = {}
    for k, slope in root.slopes.items():
        lower, upper = slope.lower.expand(count, -1), slope.upper.expand(count, -1)
        neuron = torch.arange(lower.shape[-1], device=problem.device)
        decided = (upper > lower) & (neuron % 4 < part.unsqueeze(-1))
        high = neuron % 2 == 0
        slopes[k] = Interval(torch.where(decided & high, upper, lower), torch.where(decided & ~high, lower, upper))
    gates = Gates(slopes)
    functionals = problem.functionals[0].repeat(parts, 1).unsqueeze(1)
    gradients = gradient_intervals(network, gates, functionals, norm=problem.norm)
    return Subdomains(
        gates=gates,
        functionals=functionals,
        gradients=gradients,
        linear=norm_bound(network, functionals, gradients, problem.norm).squeeze(1),
        multipliers=torch.zeros(count, 1 + network.neurons + network.in_size, device=problem.device),
        cuts=NamedCuts.none(count, functionals),
        depth=part,
    )


NETWORKS = {"dense": nets.dense(12, (4, 9, 9, 2)), "leaky": nets.dense(5, (4, 7, 7, 2), 0.2), "conv": nets.conv(4)}


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("network", NETWORKS.values(), ids=list(NETWORKS))
def test_proposed_slopes_are_a_pattern_of_the_subdomain_and_give_the_value(network: Network, norm: str) -> None:
    problem = nets.problem(network, 0.4, norm=norm)
    batch, numbering = subdomains(problem), Numbering(problem.network)
    relaxed = QuadraticBound(numbering, problem.norm, Moment(), Settings())(batch, 0.0, 0.0)
    slopes = numbering.split(relaxed.slopes)
    for k, slope in batch.gates.slopes.items():
        assert bool(((slopes[k] == slope.lower) | (slopes[k] == slope.upper)).all())
    gradient = problem.network.pull_back(slopes, batch.functionals[:, 0])
    torch.testing.assert_close(problem.norm.dual.of(gradient), relaxed.value)
    assert bool((relaxed.value <= relaxed.upper).all()) and bool((relaxed.upper <= batch.linear).all())
    assert bool((relaxed.upper < 0.98 * batch.linear).any())


def test_subdomains_are_bounded_alike_in_any_company() -> None:
    """Batches hold programs of one size, and each result goes back to where its subdomain was."""
    problem = nets.problem(NETWORKS["dense"], 0.4)
    batch, numbering = subdomains(problem), Numbering(problem.network)
    relaxation = QuadraticBound(numbering, problem.norm, Moment(), Settings())
    together = relaxation(batch, 0.0, 0.0)
    for i in range(len(batch.linear)):
        alone = relaxation(batch.select(torch.tensor([i])), 0.0, 0.0)
        # Iterates of single precision, certified in double.
        torch.testing.assert_close(together.upper[i : i + 1], alone.upper, rtol=1e-5, atol=0)
        torch.testing.assert_close(together.value[i : i + 1], alone.value, rtol=1e-9, atol=0)


@pytest.mark.elsewhere
def test_elsewhere_programs_go_together_that_fill_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as fit in memory: one by one the ten rows of mlp3_w128 took a GPU 12 s."""
    monkeypatch.setattr(sdp, "CACHED_ENTRIES", 1)
    problem = nets.problem(NETWORKS["dense"], 0.4)
    solved: list[int] = []
    monkeypatch.setattr(sdp, "solve", lambda data, **how: solved.append(data.problems) or solve(data, **how))
    for memory, least, most in ((2**30, 8, 8), (200_000, 2, 7)):
        solved.clear()
        bound = QuadraticBound(Numbering(problem.network), problem.norm, Moment(), Settings(memory=memory))
        relaxed = bound(subdomains(problem), 0.0, 0.0)
        assert least <= max(solved) <= most and sum(solved) == len(relaxed.upper)


def test_without_room_for_the_program_the_linear_bound_stands() -> None:
    problem = nets.problem(NETWORKS["dense"], 0.4)
    batch, numbering = subdomains(problem), Numbering(problem.network)
    relaxed = QuadraticBound(numbering, problem.norm, Area(), Settings(memory=1000))(batch, 0.0, 0.0)
    torch.testing.assert_close(relaxed.upper, batch.linear)


def test_a_pattern_read_off_the_moments_of_a_pattern_is_no_worse_than_it() -> None:
    problem = nets.problem(NETWORKS["dense"], 0.4)
    batch = subdomains(problem, 1)
    maps = gate_maps(problem.network, batch.gates, batch.functionals, batch.gradients)
    index = torch.arange(len(batch.linear), device=problem.device)
    data = l1_data(maps, batch.gradients, batch.linear, index, torch.zeros_like(index))
    best = explore(data)
    which = best.values.argmax(-1)
    point, value = best.points[index, which], best.values[index, which]
    moments = point.unsqueeze(-1) * point.unsqueeze(-2)
    solution = dataclasses.replace(solve(data), moments=moments)
    rounded = _rounded(data, solution)
    assert bool((rounded.values >= value.unsqueeze(1) * (1 - 1e-12)).all())
    torch.testing.assert_close(evaluate(data, rounded.high).values, rounded.values)
    assert rounded.high.shape[1] == 1


@pytest.mark.parametrize("again", [1, 2])  # decisions after which cuts are exchanged
def test_cuts_are_begun_inherited_and_exchanged_without_loss(again: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all values that patterns give, the bounds lose none; what pays is left to the parts, what does not is not."""
    monkeypatch.setattr(sdp, "_LARGE", 0)
    monkeypatch.setattr(sdp, "_AGAIN", again)
    problem = nets.problem(nets.dense(5, (5, 10, 10, 2)), 0.4)
    batch, numbering = subdomains(problem), Numbering(problem.network)
    plain = QuadraticBound(numbering, problem.norm, Moment(), Settings())(batch, 0.0, 0.0)
    bound = QuadraticBound(numbering, problem.norm, Moment(), Settings(cuts=40))
    target = float(plain.value.max()) * 0.9
    begun = bound(batch, 0.0, target)
    has = (begun.cuts.nu > 0).any(-1)
    assert bool(has.any()) and not bool(has[batch.depth > sdp._NEAR].any())
    inherits = dataclasses.replace(batch, cuts=begun.cuts, multipliers=begun.multipliers)
    later = bound(inherits, 0.0, target)
    for relaxed in (begun, later):
        # They stop at the target.
        assert bool((relaxed.upper >= relaxed.value.clamp(max=target)).all())
        assert bool((relaxed.upper <= torch.clamp(plain.upper * (1 + 6e-3), min=target)).all())
    assert bool((begun.upper < 0.99 * plain.upper)[has].any()) and bool((later.cuts.nu > 0).any())
    for i in has.nonzero().squeeze(-1).tolist():
        alone = bound(inherits.select(torch.tensor([i])), 0.0, target)
        torch.testing.assert_close(later.upper[i : i + 1], alone.upper, rtol=1e-5, atol=0)
    monkeypatch.setattr(sdp, "_PAYS", 2.0)
    without = bound(batch, 0.0, target)
    assert not bool((without.cuts.nu > 0).any()) and bool((without.upper <= begun.upper * (1 + 1e-5)).all())


def test_what_cuts_lose_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the time ends their program early: the bound without them stands."""
    monkeypatch.setattr(sdp, "_LARGE", 0)
    worse = sdp.solve_with_cuts

    def early(*given: Any, **options: Any) -> Any:
        made = worse(*given, **options)
        return dataclasses.replace(made, upper=made.upper + 1)

    problem = nets.problem(nets.dense(5, (5, 10, 10, 2)), 0.4)
    batch, numbering = subdomains(problem), Numbering(problem.network)
    plain = QuadraticBound(numbering, problem.norm, Moment(), Settings())(batch, 0.0, 0.0)
    target = float(plain.value.max()) * 0.9
    called = mock.Mock(side_effect=early)
    monkeypatch.setattr(sdp, "solve_with_cuts", called)
    found = QuadraticBound(numbering, problem.norm, Moment(), Settings(cuts=40))(batch, 0.0, target)
    # Its program has the same target with and without, up to which both are solved.
    without = QuadraticBound(numbering, problem.norm, Moment(), Settings())(batch, 0.0, target)
    assert called.called and not bool((found.cuts.nu > 0).any())
    torch.testing.assert_close(found.upper, without.upper)


@pytest.mark.parametrize("exponent", [520, 530, 536, 600])
def test_squares_that_underflow_say_nothing_of_their_roots(exponent: int) -> None:
    """Where the square is subnormal its root is off by much; beyond that there is none."""
    problem = nets.problem(NETWORKS["dense"], 0.4, norm="2")
    small = dataclasses.replace(problem, functionals=problem.functionals * 2.0**-exponent)
    numbering = Numbering(problem.network)
    bound = QuadraticBound(numbering, problem.norm, Moment(), Settings())
    attained = bound(subdomains(problem), 0.0, 0.0).value * 2.0**-exponent
    assert bool((bound(subdomains(small), 0.0, 0.0).upper >= attained).all())


def test_entries_are_scored_by_what_their_sign_adds() -> None:
    """Positive where both signs are left, zero where the sign is known."""
    problem = nets.problem(NETWORKS["dense"], 0.4)
    batch, numbering = subdomains(problem, 1), Numbering(problem.network)
    relaxed = QuadraticBound(numbering, Norm.INF, Moment(), Settings())(batch, 0.0, 0.0)
    entries = batch.gradients.intervals[0]
    open_ = ((entries.lower < 0) & (entries.upper > 0)).squeeze(1)
    score = relaxed.score[:, numbering.gates : numbering.gates + open_.shape[-1]]
    assert bool(open_.any()) and bool((score[open_] > 0).any()) and not bool(score[~open_].any())
