"""Witnesses are checked by code that the methods do not share; a wrong one is an error, never a number."""

from __future__ import annotations

import dataclasses

import nets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lipcompare
from lipcompare import Contradiction, Problem
from lipcompare.attack import search as attack
from lipcompare.attack.search import kink_patterns
from lipcompare.witness import check_witnesses, make_witnesses, undecided


def test_a_point_outside_the_box_is_refused() -> None:
    problem = nets.problem(nets.dense(0), 0.1)
    witnesses = make_witnesses(problem, (problem.box.upper + 0.5).expand(1, 2, -1))
    with pytest.raises(Contradiction, match="outside its box"):
        check_witnesses(problem, witnesses)


def test_an_exaggerated_value_is_refused() -> None:
    problem = nets.problem(nets.dense(0), 0.1)
    honest = make_witnesses(problem, problem.box.interval.center.expand(1, 2, -1))
    np.testing.assert_allclose(check_witnesses(problem, honest), honest.values)
    with pytest.raises(Contradiction, match="attains less"):
        check_witnesses(problem, dataclasses.replace(honest, values=honest.values * 1.01))


def test_a_pattern_that_no_point_nearby_has_is_refused() -> None:
    problem = Problem.around(nets.kinked(), 0.25, 0.1)
    points = problem.box.interval.center.expand(1, 1, -1)
    cheat = {2: torch.ones(1, 1, 2, dtype=torch.float64)}
    with pytest.raises(Contradiction, match="no point near it has"):
        check_witnesses(problem, make_witnesses(problem, points, cheat))


def test_a_kink_is_found_said_and_checked() -> None:
    problem = Problem.around(nets.kinked(), 0.0, 0.1)
    points = torch.zeros(1, 1, 1, dtype=torch.float64)
    witnesses = make_witnesses(problem, points, kink_patterns(problem, points))
    assert witnesses.at_kink.all() and witnesses.values[0, 0] == 2
    assert check_witnesses(problem, witnesses)[0, 0] == 2


def test_only_a_vanishing_pre_activation_is_undecided() -> None:
    network = nets.kinked()
    masks = undecided(network, torch.tensor([[0.0], [1e-12], [0.3]], dtype=torch.float64))
    assert masks[2].tolist() == [[True, True], [False, False], [False, False]]


@settings(max_examples=15, deadline=None)
@given(network=nets.networks(), seed=st.integers(0, 50))
def test_attack_beats_sampling_and_attains_what_it_says(network: lipcompare.Network, seed: int) -> None:
    problem = nets.problem(network, 0.3, seed)
    result = lipcompare.bound(problem, "attack", samples=128, rounds=20, regions=20)
    assert result.witnesses is not None
    points = torch.as_tensor(result.witnesses.points)
    for row in range(problem.rows):
        x = points[0, row].clone().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(network.forward(x)[row], x)
        if not result.witnesses.at_kink[0, row]:
            assert float(problem.norm.dual.of(gradient)) == pytest.approx(result.lower[0, row], rel=1e-9, abs=1e-12)
    assert (result.lower >= nets.sampled_norms(problem, 30).numpy() * 0.8).all()


def test_attack_is_reproducible_and_seeded() -> None:
    problem = nets.problem(nets.dense(4, (6, 12, 12, 3)), 0.3)
    first, again = (lipcompare.bound(problem, "attack", regions=0, rounds=5) for _ in range(2))
    other = lipcompare.bound(problem, "attack", regions=0, rounds=5, seed=1)
    assert first.witnesses is not None and again.witnesses is not None and other.witnesses is not None
    np.testing.assert_array_equal(first.witnesses.points, again.witnesses.points)
    assert not np.array_equal(first.witnesses.points, other.witnesses.points)


def test_sampling_ends_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = nets.problem(nets.dense(0), 0.3)
    calls = []
    real = attack.gradient_norms
    monkeypatch.setattr(attack, "gradient_norms", lambda *given: calls.append(1) or real(*given))
    points = attack.search(problem, memory=1, keep_going=lambda: False)  # a pass per sample
    assert points.shape[:2] == (problem.batch, problem.rows)
    assert len(calls) < 10 < attack.Effort.samples


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_a_network_without_an_activation_has_one_gradient(norm: str) -> None:
    network = lipcompare.load(torch.nn.Linear(5, 3).double())
    problem = Problem.around(network, 0.3, 0.1, norm=norm)
    result = lipcompare.bound(problem, "attack")
    jacobian = network.pull_back({}, torch.eye(3, dtype=torch.float64))
    np.testing.assert_allclose(result.lower[0], problem.norm.dual.of(jacobian).numpy(), rtol=1e-12)
