"""Every registered method, by the suite that we ship for those of others; and what ours owe each other."""

from __future__ import annotations

import itertools
import math

import nets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lipcompare
from lipcompare import METHODS, Problem
from lipcompare.testing.suites import MethodConformance

_FREE = ("naive", "ibp", "recurjac", "lbp")
"""Cheap enough for more problems."""

for _name in METHODS:
    _traits = {"method": _name, "seeds": 3 if _name in _FREE else 1, "local": _name != "naive"}
    globals()[f"Test_{_name}"] = type(f"Test_{_name}", (MethodConformance,), _traits)


@settings(max_examples=12, deadline=None)
@given(network=nets.networks(), eps=st.sampled_from([0.0, 0.05, 0.4]), seed=st.integers(0, 100))
def test_relaxations_are_ordered(network: lipcompare.Network, eps: float, seed: int) -> None:
    problem = nets.problem(network, eps, seed)
    uppers = [lipcompare.bound(problem, m, tightening="interval").upper for m in ("lbp", "recurjac", "ibp")]
    uppers.append(lipcompare.bound(problem, "naive").upper)
    for tighter, looser in itertools.pairwise(uppers):
        assert (tighter <= looser * (1 + 1e-9) + 1e-12).all()
    assert (uppers[0] >= nets.sampled_norms(problem).numpy() * (1 - 1e-9)).all()


@settings(max_examples=6, deadline=None)
@given(network=nets.networks(), norm=st.sampled_from(["inf", "2", "1"]), seed=st.integers(0, 100))
def test_linear_bounds_hold_for_every_norm_and_tightening(network: lipcompare.Network, norm: str, seed: int) -> None:
    problem = nets.problem(network, 0.1, seed, norm=norm)
    seen = nets.sampled_norms(problem).numpy()
    for method in ("lbp", "recurjac", "ibp"):
        for tightening in ("interval", "crown", "alpha-crown"):
            result = lipcompare.bound(problem, method, tightening=tightening)
            assert (result.upper >= seen * (1 - 1e-9)).all(), (method, tightening)


@settings(max_examples=6, deadline=None)
@given(network=nets.networks(), seed=st.integers(0, 100))
def test_interval_gates_are_monotone_in_the_radius(network: lipcompare.Network, seed: int) -> None:
    bounds = [
        lipcompare.bound(nets.problem(network, eps, seed), "lbp", tightening="interval").overall_upper[0]
        for eps in (0.0, 0.02, 0.1, 0.5)
    ]
    assert all(small <= large * (1 + 1e-9) + 1e-12 for small, large in itertools.pairwise(bounds))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), alpha=st.sampled_from([0.0, 0.3, -1.0]))
def test_linear_bound_lies_over_every_pattern_of_the_gates(seed: int, alpha: float) -> None:
    problem = nets.problem(nets.dense(seed, (2, 4, 4, 2), alpha), 0.5, seed)
    free = nets.free_gate_maximum(problem).cpu().numpy()
    assert (lipcompare.bound(problem, "lbp", tightening="interval").upper >= free * (1 - 1e-9)).all()


def test_rows_are_bounded_one_by_one() -> None:
    problem = nets.problem(nets.dense(2, (3, 6, 4)), 0.2)
    result = lipcompare.bound(problem, "lbp")
    for row in range(problem.rows):
        alone = Problem(problem.network, problem.box, problem.norm, problem.functionals[:, row : row + 1])
        assert lipcompare.bound(alone, "lbp").upper[0, 0] == pytest.approx(result.upper[0, row], rel=1e-12)


def test_the_trace_ends_at_the_result() -> None:
    result = lipcompare.bound(nets.problem(nets.dense(2), 0.2), "lbp")
    assert result.trace[-1].upper == result.overall_upper.max()
    assert math.isclose(result.trace[-1].lower, result.overall_lower.max())
