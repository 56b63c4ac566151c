"""``lp``: between the truth and linear bound propagation, whatever the solver."""

from __future__ import annotations

import itertools

import nets
import numpy as np
import pytest

import lipcompare
import solvers
from lipcompare import InvalidInput, Status
from lipcompare.methods.lp import Lp
from lipcompare.programs.preactivation import Refinement

FAMILIES = sorted(f for f, make in nets.FAMILIES.items() if make(0).piecewise_linear)


@pytest.mark.parametrize("norm", ["inf", "1"])
@pytest.mark.parametrize("family", FAMILIES)
def test_between_samples_and_lbp(family: str, norm: str) -> None:
    problem = nets.problem(nets.FAMILIES[family](9), 0.3, batch=2, norm=norm)
    result = lipcompare.bound(problem, Lp())
    assert result.status is Status.COMPLETE
    assert (result.upper >= nets.sampled_norms(problem).numpy() * (1 - 1e-9)).all()
    assert (result.upper <= lipcompare.bound(problem, "lbp").upper * (1 + 1e-6)).all()


@pytest.mark.parametrize("solver", [n for n in solvers.names() if solvers.get(n).capabilities.lp])
def test_every_solver_agrees(solver: str) -> None:
    if not solvers.get(solver).is_available():
        pytest.skip(f"{solver} is not installed")
    problem = nets.problem(nets.residual(2), 0.4)
    expected = lipcompare.bound(problem, Lp()).upper
    result = lipcompare.bound(problem, Lp(solver=solver))
    if result.status in (Status.UNAVAILABLE, Status.LICENCE_TOO_SMALL, Status.UNSUPPORTED):
        pytest.skip(result.sentence)
    # Weak duality makes any multipliers a valid bound, first-order solvers' only a looser one.
    assert (result.upper >= expected * (1 - 1e-6)).all()
    np.testing.assert_allclose(result.upper, expected, rtol=1e-2)


def test_tightening_helps() -> None:
    problem = nets.problem(nets.dense(3, (4, 8, 8, 2)), 0.4)
    values = [lipcompare.bound(problem, Lp(tightening=r)).overall_upper[0] for r in Refinement]
    # LP tightening starts from alpha-CROWN, not from the signs before it in the list.
    without_signs = values[:3] + values[4:]
    assert all(b <= a * (1 + 1e-6) for a, b in itertools.pairwise(without_signs))


def test_says_what_it_cannot_do() -> None:
    problem = nets.problem(nets.dense(0), 0.1, norm="2")
    assert lipcompare.bound(problem, Lp()).status is Status.UNSUPPORTED
    with pytest.raises(InvalidInput):
        Lp(solver="nothing")
