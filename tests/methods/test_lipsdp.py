"""``lipsdp``: valid whatever the solver returns, tight where it must be, and never the unsound variant."""

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
import solvers
from lipcompare import Status
from lipcompare.encoding.lipsdp import Tangents, certified, semidefinite_program, tangents
from lipcompare.gates import Gates
from lipcompare.methods.enumerate import Enumerate
from lipcompare.methods.lipsdp import LinfForm, LipSdp, Multipliers, Scope

pytest.importorskip("cvxpy")


@settings(max_examples=12, deadline=None)
@given(
    network=nets.networks(),
    eps=st.floats(0.05, 0.5),
    seed=st.integers(0, 1000),
    norm=st.sampled_from(["inf", "2", "1"]),
    multipliers=st.sampled_from(list(Multipliers)),
    scope=st.sampled_from(list(Scope)),
    linf=st.sampled_from(list(LinfForm)),
)
def test_holds_on_every_family(network, eps, seed, norm, multipliers, scope, linf) -> None:
    problem = nets.problem(network, eps, seed, norm=norm)
    result = lipcompare.bound(problem, LipSdp(multipliers=multipliers, scope=scope, linf=linf))
    assert result.status is Status.COMPLETE, result.sentence
    assert (result.upper >= nets.sampled_norms(problem).numpy() * (1 - 1e-9)).all()


@pytest.mark.parametrize("norm", ["2", "inf"])
def test_at_least_the_truth_and_ordered(norm: str) -> None:
    problem = nets.problem(nets.dense(5, (3, 5, 4, 2)), 0.4, norm=norm)
    truth = lipcompare.bound(problem, Enumerate(limit=20)).upper
    neuron = lipcompare.bound(problem, LipSdp()).upper
    layer = lipcompare.bound(problem, LipSdp(multipliers=Multipliers.LAYER)).upper
    everywhere = lipcompare.bound(problem, LipSdp(scope=Scope.GLOBAL)).upper
    product = lipcompare.bound(nets.problem(problem.network, 0.4, norm="2"), "naive").upper
    assert (truth <= neuron * (1 + 1e-9)).all()
    assert (neuron <= layer * (1 + 1e-5)).all()
    assert (neuron <= everywhere * (1 + 1e-5)).all()
    assert (everywhere <= product * (1 if norm == "2" else 3**0.5) * (1 + 1e-5)).all()
    if norm == "inf":
        diagonal = lipcompare.bound(problem, LipSdp(linf=LinfForm.DIAGONAL)).upper
        assert (truth <= diagonal * (1 + 1e-9)).all() and (diagonal <= neuron * (1 + 1e-5)).all()


def test_any_multipliers_give_a_valid_bound() -> None:
    """The certificate does not rest on the solver: noise in its answer loosens the bound and never breaks it."""
    problem = nets.problem(nets.dense(5, (3, 5, 4, 2)), 0.4, norm="2")
    gates = Gates.free(problem.network, 1, problem.device, problem.dtype)
    truth = lipcompare.bound(problem, Enumerate(limit=20)).upper[0]
    random = np.random.default_rng(0)
    together = tangents(problem.network, gates, problem.functionals[0])
    for row, tangent in enumerate(map(together.row, range(problem.rows))):
        groups = np.arange(tangent.count)
        program = semidefinite_program(tangent, groups, diagonal=False)
        solution = solvers.get("cvxpy:CLARABEL").solve(program)
        assert solution.x is not None
        best = certified(tangent, groups, solution.x, diagonal=False)
        assert best >= truth[row]
        for size in (1e-6, 1e-3, 1e-1, 1.0):
            noisy = solution.x + size * random.standard_normal(len(solution.x))
            assert certified(tangent, groups, noisy, diagonal=False) >= truth[row]


def test_other_solvers_and_a_wrong_status(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = nets.problem(nets.dense(5, (3, 5, 4, 2)), 0.4, norm="2")
    first = lipcompare.bound(problem, LipSdp()).upper
    second = lipcompare.bound(problem, LipSdp(solver="cvxpy:SCS")).upper
    np.testing.assert_allclose(first, second, rtol=1e-2)
    assert lipcompare.bound(problem, LipSdp(solver="cvxpy:NOTHING")).status is Status.UNAVAILABLE
    solve = solvers.Solver.solve

    def lost(self, *args, **kwargs):
        return dataclasses.replace(solve(self, *args, **kwargs), x=None, status=solvers.SolveStatus.NUMERICAL_TROUBLE)

    monkeypatch.setattr("solvers.cvxpy.Cvxpy.solve", lost, raising=False)
    result = lipcompare.bound(problem, LipSdp())
    # What is left is the propagated bound.
    assert result.status is Status.NUMERICAL and (result.upper >= first * (1 - 1e-2)).all()
    assert (nets.sampled_norms(problem).numpy() <= result.upper * (1 + 1e-9)).all()


def test_idle_directions_do_not_matter() -> None:
    problem = nets.problem(nets.dense(5, (40, 4, 2)), 0.4, norm="2")
    gates = Gates.free(problem.network, 1, problem.device, problem.dtype)
    tangent = tangents(problem.network, gates, problem.functionals[0]).row(0)
    reduced, lost = tangent.without_idle_directions()
    assert reduced.output.shape == (1, 5) and 0 < lost < 1e-10 * tangent.reach()[1]
    values, groups = [], np.arange(4)
    for t in (tangent, reduced):
        solution = solvers.get("cvxpy:CLARABEL").solve(semidefinite_program(t, groups, diagonal=False))
        assert solution.x is not None
        values.append(certified(t, groups, solution.x, diagonal=False))
    whole, small = values
    assert whole == pytest.approx(small, rel=1e-4)


def test_what_turning_loses_is_stated() -> None:
    """The square of a row's length, in rational arithmetic, before and after."""
    shorter = 0
    for seed in range(10):
        rows = np.random.default_rng(seed).normal(size=(3, 50))
        nothing = np.zeros((1, 0))
        tangent = Tangents(rows[:1], nothing, nothing.T @ rows[:1], nothing.T @ nothing, np.zeros(0, np.intp))
        reduced, lost = tangent.without_idle_directions()
        before, after = (sum(Fraction(v) ** 2 for v in t.output[0].tolist()) for t in (tangent, reduced))
        length = abs(Fraction(float(reduced.output[0, 0])))
        assert reduced.output.shape == (1, 1) and before <= (length + Fraction(lost)) ** 2
        shorter += after < before
    assert shorter > 0


def test_refuses_what_is_too_large() -> None:
    result = lipcompare.bound(nets.problem(nets.dense(1, (8, 200, 200, 2)), 1.0), LipSdp())
    assert result.status is Status.UNSUPPORTED and "order" in result.detail


def test_a_linear_network_is_exact() -> None:
    problem = nets.problem(nets.dense(1, (4, 2)), 0.3)
    expected = torch.linalg.vector_norm(problem.network.nodes[1].maps[0].weight, ord=1, dim=1).numpy()
    np.testing.assert_allclose(lipcompare.bound(problem, LipSdp()).upper[0], expected, rtol=1e-9)
