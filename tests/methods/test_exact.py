"""``exact`` takes a method that applies and is right; ``auto`` always has an interval."""

from __future__ import annotations

import nets
import numpy as np
import pytest
from branching.brute import exact_rows

import lipcompare
from lipcompare import Status
from lipcompare.budget import Budget, Clock
from lipcompare.methods import exact
from lipcompare.methods.auto import Auto
from lipcompare.methods.exact import Choice, Exact, _cells, _Sharper, _undecided
from lipcompare.methods.linear import linear_bounds


def choice(problem) -> Choice:
    clock = Clock(Budget())
    linear = linear_bounds(problem.double(), clock)
    return Exact().choose(_Sharper(linear, clock), _undecided(linear, clock), clock, None)


@pytest.mark.parametrize(
    ("norm", "eps", "some", "taken"),
    [("inf", 0.05, 12, "lipbab"), ("inf", 0.8, 0, "milp"), ("1", 0.8, 0, "milp"), ("2", 0.8, 0, "bab")],
)
def test_exact_takes_what_suits(monkeypatch, norm, eps, some, taken):
    monkeypatch.setattr(exact, "_SOME", some)
    monkeypatch.setattr(exact, "_REGIONS", 0)
    problem = nets.problem(nets.dense(4, (3, 6, 5, 2)), eps, norm=norm)
    result = lipcompare.bound(problem, Exact())
    assert result.status is Status.EXACT and result.method == "exact" and f"Took {taken}. " in f"{result.detail} "
    assert result.overall_upper[0] == pytest.approx(exact_rows(problem).max(), rel=2e-4)


def test_planes_cut_a_space_into_cells():
    assert [_cells(3, inputs, 99) for inputs in (1, 2, 3, 9)] == [4, 7, 8, 8]
    assert _cells(50_000, 3_000, 2**15) > 2**15


def test_regions_are_few_where_gates_are_or_where_inputs_allow_no_more():
    few = exact._few_regions
    assert few(0, 1) and few(12, 3_072) and not few(13, 3_072)
    assert few(28, 4) and few(17, 6) and not few(20, 10)
    assert few(10_000, 1) and not few(40_000, 1) and not few(10**6, 10**6)


@pytest.mark.parametrize(("some", "regions", "taken"), [(0, 0, "milp"), (0, 2**15, "lipbab"), (12, 0, "lipbab")])
def test_regions_go_first_where_they_are_few(monkeypatch, some, regions, taken):
    monkeypatch.setattr(exact, "_SOME", some)
    monkeypatch.setattr(exact, "_REGIONS", regions)
    problem = nets.problem(nets.dense(4, (2, 6, 5, 2)), 0.8)
    rows, result = exact_rows(problem), lipcompare.bound(problem, Exact())
    assert result.status is Status.EXACT and result.detail.startswith(f"Took {taken}.")
    assert result.overall_upper[0] == pytest.approx(rows.max(), rel=2e-4)
    assert (result.upper[0] >= rows * (1 - 1e-9)).all() and (result.lower[0] <= rows * (1 + 1e-9)).all()


def test_what_plain_crown_leaves_far_is_not_near(monkeypatch):
    problem = nets.problem(nets.dense(4, (3, 6, 5, 2)), 0.8)
    clock = Clock(Budget())
    sharper = _Sharper(linear_bounds(problem.double(), clock), clock)
    upper = float(sharper.linear.upper.max())
    assert sharper.near(upper / 1.33) and not sharper.near(upper / 1.34)
    monkeypatch.setattr(exact, "_FAR", 1.2)
    assert sharper.near(upper / 1.19) and not sharper.near(upper / 1.21)


@pytest.mark.parametrize(("near", "open_rows", "taken"), [(0.0, 2, "bab"), (99.0, 2, "milp"), (99.0, -1, "bab")])
def test_more_gates_get_a_program_where_the_linear_bound_is_near(monkeypatch, near, open_rows, taken):
    for name in ("_SOME", "_MORE"):
        monkeypatch.setattr(exact, name, 5)
    monkeypatch.setattr(exact, "_FAR", np.inf)
    monkeypatch.setattr(exact, "_NEAR", near)
    monkeypatch.setattr(exact, "_ROWS", open_rows)
    found = choice(nets.problem(nets.dense(0, (3, 14, 14, 2)), 0.3))
    assert found.method.name == taken and found.known is not None


@pytest.mark.parametrize(("near", "taken"), [(0.0, "bab"), (99.0, "milp")])
def test_for_p_one_programs_go_further(monkeypatch, near, taken):
    problem = nets.problem(nets.dense(0, (3, 14, 14, 2)), 0.3, norm="1")
    assert choice(problem).method.name == "milp"
    for name in ("_SOME", "_MOST"):
        monkeypatch.setattr(exact, name, 5)
    monkeypatch.setattr(exact, "_FAR", np.inf)
    monkeypatch.setattr(exact, "_NEAR", near)
    assert choice(problem).method.name == taken


@pytest.mark.parametrize(
    "method", ["milp", "bab", pytest.param("milp", marks=pytest.mark.elsewhere, id="milp elsewhere")]
)
def test_points_that_were_found_for_choosing_are_not_looked_for_again(monkeypatch, method):
    monkeypatch.setattr(exact, "_SOME", 0)
    monkeypatch.setattr(exact, "_REGIONS", 0)
    monkeypatch.setattr(exact, "_ROWS", 2 if method == "milp" else -1)
    problem = nets.problem(nets.dense(4, (3, 6, 5, 2)), 0.8)

    def again(*_args, **_options):
        raise AssertionError("a second search for points")

    monkeypatch.setattr(lipcompare.methods.milp, "search", again)
    monkeypatch.setattr(lipcompare.methods.bab, "first_points", again)
    result = lipcompare.bound(problem, Exact())
    assert result.status is Status.EXACT and f"Took {method}." in result.detail


def test_smooth_networks_are_halved():
    problem = nets.problem(nets.FAMILIES["gelu"](0), 0.1)
    assert choice(problem).method.name == "bab"
    for method in (Exact(), Auto()):
        result = lipcompare.bound(problem, method, gap=0.1, time_limit=120)
        assert result.status is Status.EXACT
        assert (nets.sampled_norms(problem).numpy() <= result.upper * (1 + 1e-9)).all()


def test_what_a_program_leaves_open_goes_on_to_branch_and_bound(monkeypatch):
    monkeypatch.setattr(exact, "_PATIENCE", 0.0)
    monkeypatch.setattr(exact, "_SOME", 0)
    monkeypatch.setattr(exact, "_REGIONS", 0)
    problem = nets.problem(nets.dense(4, (3, 6, 5, 2)), 0.8)
    result = lipcompare.bound(problem, Exact(), time_limit=60)
    assert result.status is Status.EXACT and "Took milp, then bab" in result.detail
    assert result.overall_upper[0] == pytest.approx(exact_rows(problem).max(), rel=2e-4)


@pytest.mark.parametrize("family", ["dense", "gelu", "residual"])
def test_auto_has_an_interval(family):
    problem = nets.problem(nets.FAMILIES[family](3), 0.3, batch=2)
    result = lipcompare.bound(problem, Auto(), time_limit=2 if family == "gelu" else 20)
    assert (result.overall_lower > 0).all() and np.isfinite(result.overall_upper).all()
    assert result.detail.startswith("Ran lbp, ") and "attack" in result.detail
    if family != "gelu":
        assert result.status is Status.EXACT


def test_auto_out_of_time_still_has_an_upper_bound():
    result = lipcompare.bound(nets.problem(nets.dense(1, (4, 20, 20, 3)), 1.0), Auto(), time_limit=0.01)
    assert np.isfinite(result.overall_upper).all()
    assert result.status is Status.TIME_LIMIT
