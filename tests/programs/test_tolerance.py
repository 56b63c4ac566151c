"""What a solver's word is good to."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import solvers
from lipcompare.programs.tolerance import solver_error


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
