"""The oracle itself: values known by hand, and what enumeration with linear programs finds on ordinary networks."""

from __future__ import annotations

from fractions import Fraction

import nets
import pytest
import torch

import lipcompare
from lipcompare import Problem
from lipcompare.domain import Norm
from lipcompare.network.linear_maps import Dense
from lipcompare.testing import exact, hostile


def one_neuron(bias: float) -> lipcompare.Network:
    """``relu(x + bias)``."""
    b = nets.Builder(1, 0)
    b.nodes.append(
        lipcompare.network.Affine(
            (0,), (Dense(torch.ones(1, 1, dtype=torch.float64)),), torch.tensor([bias], dtype=torch.float64)
        )
    )
    b.activate()
    return b.build()


@pytest.mark.parametrize(("high", "value"), [(1 - 1e-15, 0.0), (1.0, 1.0), (1 + 1e-15, 1.0)])
def test_a_kink_counts_only_if_the_domain_reaches_it(high: float, value: float) -> None:
    box = lipcompare.Box(torch.tensor([[0.9]], dtype=torch.float64), torch.tensor([[high]], dtype=torch.float64))
    found = exact.truth(Problem(one_neuron(-1.0), box))
    assert found.value(0, Norm.INF) == value


def test_every_clarke_slope_counts_at_a_kink() -> None:
    assert exact.truth(Problem.around(nets.kinked(), 0.0, 0.0)).value(0, Norm.INF) == 2.0


def test_a_polytope_keeps_all_vertices() -> None:
    cube = exact.box_polytope([Fraction(0)] * 3, [Fraction(1)] * 3)
    # x + y + z <= 3/2 cuts the cube in a hexagon.
    half = exact.Function((Fraction(-1),) * 3, Fraction(3, 2))
    cut = cube.cut(half)
    tight = [p for p in cut.points if half.at(p) == 0]
    assert len(tight) >= 6 and {tuple(sorted(p)) for p in tight} == {(Fraction(0), Fraction(1, 2), Fraction(1))}
    assert cut.cut(exact.Function((Fraction(1),) * 3, Fraction(-2))).empty


def test_a_flat_polytope_keeps_its_vertices_alone() -> None:
    """Two constraints are tight on all of a side without width: with every pair taken for an edge, ten cuts left more
    than a thousand points of a polygon of a few."""
    flat = exact.box_polytope([Fraction(0)] * 3, [Fraction(1), Fraction(1), Fraction(0)])
    for k in range(10):
        flat = flat.cut(exact.Function((Fraction(-k), Fraction(k - 9), Fraction(1)), Fraction(8 + k % 2)))
    assert len(flat.points) <= 14  # a square has four sides, and each cut adds at most one


def test_a_truth_that_takes_too_long_is_refused_by_the_work_counted() -> None:
    problem = hostile.problem("plain", 1, "inf", torch.float64)
    assert exact.truth(problem, limit=1000) == exact.truth(problem)
    with pytest.raises(exact.TooLarge):
        exact.truth(problem, limit=10)


def test_an_l1_ball_is_clipped() -> None:
    ball = exact.cross_polytope([Fraction(0)] * 2, Fraction(1))
    cut = ball.cut(exact.Function((Fraction(-1), Fraction(0)), Fraction(1, 2)))
    assert (Fraction(1, 2), Fraction(1, 2)) in cut.points and (Fraction(1), Fraction(0)) not in cut.points


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("norm", ["inf", "1"])
def test_it_agrees_with_enumeration_on_ordinary_networks(seed: int, norm: str) -> None:
    problem = hostile.problem("plain", 3 * seed + 1, norm, torch.float64)
    found, truth = lipcompare.bound(problem, "enumerate"), exact.truth(problem)
    for row in range(problem.rows):
        assert found.upper[0, row] == pytest.approx(truth.value(row, problem.norm), rel=1e-9)


@pytest.mark.parametrize("value", [1e-200, 3.0, 1e200])
def test_roots_of_rationals(value: float) -> None:
    found = exact.Truth((frozenset({(Fraction(value), Fraction(0))}),), ())
    assert found.value(0, Norm.TWO) == pytest.approx(value, rel=1e-15)
    assert found.admits_upper(0, Norm.TWO, value) and not found.admits_upper(0, Norm.TWO, value * (1 - 1e-15))


@pytest.mark.parametrize("norm", ["inf", "1", "2"])
def test_a_value_that_floats_do_not_hold_is_infinite(norm: str) -> None:
    large = Fraction(10) ** 320
    truth = exact.Truth((frozenset({(large,)}),), (frozenset({(large,)}),))
    assert truth.value(0, Norm.parse(norm)) == float("inf")
    assert not truth.admits_upper(0, Norm.parse(norm), 1e308) and truth.admits_lower(0, Norm.parse(norm), 1e308)
