"""LipBaB against brute force: rows in every norm, and operator norms of the whole Jacobian."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch
from branching.brute import exact_rows, operator_norm
from hypothesis import given, settings
from hypothesis import strategies as st

import lipcompare
from lipcompare import Problem, Status
from lipcompare.branching.driver import Stop
from lipcompare.methods.lipbab import LipBab, lipbab_operator_norm


@settings(max_examples=4, deadline=None)
@given(
    st.sampled_from(["dense", "leaky", "residual", "concatenation"]),
    st.integers(0, 10**6),
    st.sampled_from(["inf", "2", "1"]),
)
def test_agrees_with_brute_force(family, seed, norm):
    problem = nets.problem(nets.FAMILIES[family](seed), 0.5, seed, norm=norm)
    result = lipcompare.bound(problem, LipBab())
    truth = exact_rows(problem)
    assert result.status is Status.EXACT
    assert (result.lower[0] <= truth * (1 + 1e-9) + 1e-12).all() and (result.upper[0] >= truth * (1 - 1e-9)).all()
    assert result.overall_upper[0] == pytest.approx(truth.max(), rel=2e-4)


@pytest.mark.parametrize(("norm", "order"), [("inf", np.inf), ("2", 2), ("1", 1)])
def test_operator_norms(norm, order):
    for seed in range(3):
        problem = nets.problem(nets.dense(seed, (3, 5, 4, 3)), 0.5, seed, norm=norm)
        found = lipbab_operator_norm(problem)
        truth = operator_norm(problem, order)
        assert found.stop is Stop.DONE
        assert found.lower == pytest.approx(truth, rel=1e-5) and found.upper == pytest.approx(truth, rel=1e-5)


def test_regions_whose_programs_do_not_fit_in_memory_are_split_without():
    problem = nets.problem(nets.dense(4, (3, 6, 2)), 0.5)
    exact, without = (lipcompare.bound(problem, LipBab(node_limit=40), memory=m) for m in (2**30, 500))
    assert exact.status is Status.EXACT and "0 linear programs" not in exact.sentence
    assert "0 linear programs" in without.sentence
    assert (without.upper >= exact.lower).all() and (without.lower > 0).all()


def test_limits_leave_a_valid_interval():
    problem = nets.problem(nets.dense(1, (3, 8, 6, 2)), 0.8)
    result = lipcompare.bound(problem, LipBab(node_limit=20, batch=4))
    assert result.status is Status.NODE_LIMIT
    truth = exact_rows(problem)
    assert (result.lower[0] <= truth * (1 + 1e-9)).all() and (result.upper[0] >= truth * (1 - 1e-9)).all()


@pytest.mark.parametrize(
    ("name", "low", "high", "published"),
    [
        ("sdnet_10_20_15_10_3", 0.0, 0.1, {"2": 40.0565, "1": 48.0490, "inf": 72.2857}),
        ("iris_4_5_5_3", 0.0, 1.0, {"2": 6.77145, "1": 5.95805, "inf": 12.60509}),
    ],
)
def test_published_constants(shared, name, low, high, published):
    network = lipcompare.load(shared / "data" / "networks" / "lipbab" / f"{name}.npz")
    for norm, value in published.items():
        problem = Problem.around(network, (low + high) / 2, (high - low) / 2, norm=norm)
        digits = len(str(value).split(".")[1])
        found = lipbab_operator_norm(problem)
        assert round(found.upper, digits) == pytest.approx(value, abs=1.01 * 10**-digits)
        if norm == "inf":
            assert lipcompare.bound(problem, LipBab(), gap=1e-6).overall_upper[0] == pytest.approx(
                value, abs=2 * 10**-digits
            )


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_the_operator_norm_of_a_constant_is_zero(norm):
    network = nets.dense(0, (3, 4, 2))
    silent = torch.zeros(2, 2, dtype=torch.float64)
    found = lipbab_operator_norm(Problem(network, nets.problem(network, 0.1).box, norm, silent))
    assert found.stop is Stop.DONE and found.lower == found.upper == 0
    assert found.point.shape == (3,)


@pytest.mark.parametrize(("norm", "order"), [("inf", np.inf), ("2", 2), ("1", 1)])
def test_the_operator_norm_of_a_linear_map(norm, order):
    network = lipcompare.load(torch.nn.Linear(5, 3).double())
    found = lipbab_operator_norm(Problem.around(network, 0.3, 0.1, norm=norm))
    truth = np.linalg.norm(network.pull_back({}, torch.eye(3, dtype=torch.float64)).numpy(), ord=order)
    assert found.lower == pytest.approx(truth, rel=1e-12) and truth <= found.upper <= truth * (1 + 1e-9)


def test_a_saved_search_is_not_lost_for_want_of_time(tmp_path):
    problem, state = nets.problem(nets.dense(3, (4, 10, 8, 3)), 0.6), str(tmp_path / "search.npz")
    first = lipcompare.bound(problem, "bab", bound="lbp", node_limit=40, attack_seconds=0.1, state=state)
    again = lipcompare.bound(problem, "bab", bound="lbp", attack_seconds=0.1, state=state, time_limit=1e-3)
    assert again.status is Status.TIME_LIMIT and (again.upper <= first.upper).all()
    nothing = lipcompare.bound(problem, "bab", bound="lbp", attack_seconds=0.1, time_limit=1e-3)
    assert nothing.status is Status.TIME_LIMIT and np.isfinite(nothing.upper).all() and (nothing.lower > 0).any()
