"""What a solver's word is good to."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import lipcompare
import solvers
from lipcompare.programs.tolerance import solver_error
from lipcompare.testing import hostile


def program() -> solvers.MixedIntegerProgram:
    """Two columns in [-1, 2] and [0, 1], and a row that their sum, in [-1, 3], is at most 1."""
    return solvers.MixedIntegerProgram(
        cost=np.ones(2),
        A=sp.csr_matrix(np.ones((1, 2))),
        row_lower=np.array([-np.inf]),
        row_upper=np.array([1.0]),
        lower=np.array([-1.0, 0.0]),
        upper=np.array([2.0, 1.0]),
    )


def test_it_is_the_ranges_of_columns_and_rows() -> None:
    highs = solvers.get("highs")
    assert solver_error(highs, program()) == pytest.approx(highs.capabilities.dual_tolerance * (3 + 1 + 2))


def test_of_a_column_without_an_end_nothing_is_known() -> None:
    one = program()
    endless = solvers.MixedIntegerProgram(one.cost, one.A, one.row_lower, one.row_upper, [-np.inf, 0.0], [np.inf, 1.0])
    assert solver_error(solvers.get("highs"), endless) == np.inf


def test_of_a_milp_with_coefficients_that_are_too_large_nothing_is_known() -> None:
    one = dataclasses.replace(program(), integrality=np.array([0, 1]), A=sp.csr_matrix(np.array([[1.0, 2e9]])))
    assert solver_error(solvers.get("pulp"), one) == np.inf
    assert np.isfinite(solver_error(solvers.get("highs"), one))
    relaxed = dataclasses.replace(one, integrality=np.zeros(2, dtype=int))
    assert np.isfinite(solver_error(solvers.get("pulp"), relaxed))


def test_the_word_of_cbc_on_large_coefficients_is_not_taken() -> None:
    """It calls 4.9e13 optimal here."""
    problem = hostile.problem("extreme scales", 880002, "1", torch.float32, 1)
    if not solvers.get("pulp").is_available():
        pytest.skip("CBC is not installed")
    truth = lipcompare.bound(problem, "enumerate")
    assert (lipcompare.bound(problem, "milp", solver="pulp").upper >= truth.lower).all()
