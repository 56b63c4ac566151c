"""Witnesses are checked by code that the methods do not share; a wrong one is an error, never a number."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import nets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lipcompare
from lipcompare import Box, Contradiction, Network, Problem
from lipcompare.attack import search as attack
from lipcompare.attack.search import kink_patterns
from lipcompare.budget import Deadline
from lipcompare.network import Activate, Affine, Input, LeakyReLU
from lipcompare.network.linear_maps import Dense
from lipcompare.problem import Norm
from lipcompare.result import Witnesses
from lipcompare.testing import exact
from lipcompare.witness import check_witnesses, clarke, make_witnesses


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
    both = {2: torch.ones(1, 1, 2, dtype=torch.float64)}
    honest = make_witnesses(problem, points, both)  # takes the slopes that hold
    assert honest.values[0, 0] == 1 and honest.patterns is None
    cheat = Witnesses(honest.points, np.full((1, 1), 2.0), np.ones((1, 1), dtype=bool), {2: both[2].numpy()})
    with pytest.raises(Contradiction, match="no point near it has"):
        check_witnesses(problem, cheat)


def test_a_kink_is_found_said_and_checked() -> None:
    problem = Problem.around(nets.kinked(), 0.0, 0.1)
    points = torch.zeros(1, 1, 1, dtype=torch.float64)
    witnesses = make_witnesses(problem, points, kink_patterns(problem, points))
    assert witnesses.at_kink.all() and witnesses.values[0, 0] == 2
    assert 2 * (1 - 1e-13) < check_witnesses(problem, witnesses)[0, 0] <= 2  # less what rounding may have added


def test_only_a_vanishing_pre_activation_is_a_kink() -> None:
    network = nets.kinked()
    at = clarke(network, torch.tensor([[0.0], [1e-300], [-1e-12], [0.3]], dtype=torch.float64))
    assert at.kinks[2].tolist() == [[True, True], *[[False, False]] * 3]
    assert at.slopes[2].tolist() == [[0, 0], [1, 0], [0, 1], [1, 0]]
    assert not at.doubtful[2].any()


def shifted(shift: float, bias: float) -> lipcompare.Network:
    """``relu(x + shift + bias)``, the two added one after the other."""
    one = torch.ones(1, 1, dtype=torch.float64)
    nodes = (
        Input(1),
        Affine((0,), (Dense(one),), torch.tensor([shift], dtype=torch.float64)),
        Affine((1,), (Dense(one),), torch.tensor([bias], dtype=torch.float64)),
        Activate(2, LeakyReLU(0.0), 1),
        Affine((3,), (Dense(one),), None),
    )
    return lipcompare.Network(nodes, (1,), (1,))


@pytest.mark.parametrize("method", ["attack", "enumerate", "bab", "lipbab", "milp", "exact", "auto"])
@pytest.mark.parametrize("gap", [1e-15, 1e-12, 0.0])
def test_a_kink_just_outside_the_box_does_not_count(method: str, gap: float) -> None:
    """``relu(x - 1)`` on [0.9, 1 - gap] is 0, and 1 for no gap."""
    box = Box(torch.tensor([[0.9]], dtype=torch.float64), torch.tensor([[1 - gap]], dtype=torch.float64))
    result = lipcompare.bound(Problem(shifted(-1.0, 0.0), box), method)
    if method != "attack" or gap:  # a kink in a corner has no volume: only exact methods have to meet it
        assert result.lower[0, 0] == pytest.approx(0.0 if gap else 1.0)
    assert result.upper[0, 0] >= result.lower[0, 0]


@pytest.mark.parametrize(("center", "value"), [(0.0, 0.0), (1e-17, 1.0), (-1e-17, 0.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slopes_that_rounding_hides_are_those_of_real_numbers(center: float, value: float, dtype: torch.dtype) -> None:
    """``relu((x + 1) - 1 - 1e-20)``: in floating point ``x`` vanishes, and autograd takes the slope 0."""
    problem = Problem.around(shifted(1.0, -1.0), center, 0.0, dtype=dtype)
    kinked = torch.ones(1, 1, 1, dtype=torch.float64)
    witnesses = make_witnesses(problem, problem.box.lower.unsqueeze(1), {3: kinked})
    assert witnesses.values[0, 0] == (1.0 if center == 0 else value)
    attained = check_witnesses(problem, witnesses)[0, 0]
    assert witnesses.values[0, 0] * (1 - 1e-13) <= attained <= witnesses.values[0, 0]


def test_where_signs_cannot_be_decided_the_worse_slope_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lipcompare.network.exact._PRODUCTS", 0)
    problem = Problem.around(shifted(1.0, -1.0), 1e-17, 0.0)
    witnesses = make_witnesses(problem, problem.box.lower.unsqueeze(1))
    assert check_witnesses(problem, witnesses)[0, 0] == 0
    claim = dataclasses.replace(
        witnesses,
        values=np.ones((1, 1)),
        at_kink=np.ones((1, 1), dtype=bool),
        patterns={3: np.ones((1, 1, 1))},
    )
    assert check_witnesses(problem, claim)[0, 0] == 0


def test_the_value_is_less_than_rounding_may_have_made_of_it() -> None:
    """Gradient terms that cancel: 1e8 - (1e8 - 0.1) in float64 is 0.1 up to 1e-8, and 0.1 is not what is attained."""
    b = nets.Builder(1, 0)
    ones = torch.ones(3, 1, dtype=torch.float64)
    b.nodes.append(Affine((0,), (Dense(ones),), None))
    b.activate()
    weights = torch.tensor([[1e8 / 3, 1e8 / 7, -(1e8 / 3 + 1e8 / 7 - 0.1)]], dtype=torch.float64)
    b.nodes.append(Affine((2,), (Dense(weights),), None))
    problem = Problem.around(b.build(), 1.0, 0.1)
    exact = abs(float(sum(Fraction(w) for w in weights[0].tolist())))
    result = lipcompare.bound(problem, "attack")
    assert 0.09 < result.lower[0, 0] <= exact


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
    points = attack.search(problem, memory=1, deadline=Deadline.after(0))  # a pass per sample
    assert points.shape[:2] == (problem.batch, problem.rows)
    assert len(calls) < 10 < attack.Effort.samples


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_a_network_without_an_activation_has_one_gradient(norm: str) -> None:
    network = lipcompare.load(torch.nn.Linear(5, 3).double())
    problem = Problem.around(network, 0.3, 0.1, norm=norm)
    result = lipcompare.bound(problem, "attack")
    jacobian = network.pull_back({}, torch.eye(3, dtype=torch.float64))
    np.testing.assert_allclose(result.lower[0], problem.norm.dual.of(jacobian).numpy(), rtol=1e-12)


def test_what_underflows_is_multiplied_by_the_next_weight() -> None:
    """A gradient of 1e-170 and a slope of 1e-150 leave four digits, which a weight of 1e190 makes large."""

    def affine(parent: int, weight: float, bias: float) -> Affine:
        tensors = torch.tensor([[weight], [bias]], dtype=torch.float64)
        return Affine((parent,), (Dense(tensors[:1]),), tensors[1])

    nodes = (Input(1), affine(0, 3e190, -1e191), Activate(1, LeakyReLU(1e-150), 1), affine(2, 2.2973e-170, 0.0))
    one = torch.ones(1, 1, dtype=torch.float64)
    problem = Problem(Network(nodes, (1,), (1,)), Box(-one, one), Norm.ONE)
    attained = check_witnesses(problem, make_witnesses(problem, torch.zeros(1, 1, 1, dtype=torch.float64)))
    assert float(attained[0, 0]) > 0
    assert exact.truth(problem).admits_lower(0, Norm.ONE, float(attained[0, 0]))
