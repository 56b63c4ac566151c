"""Programs refuse nonsense with a clear sentence, and their linear algebra is right."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from solvers import Cones, ConicProgram, Limits, MixedIntegerProgram, get, smat, svec
from solvers.program import one_sided, smat_operator

GOOD = {
    "cost": [1.0, 2.0],
    "A": np.array([[1.0, 1.0]]),
    "row_lower": [0.0],
    "row_upper": [1.0],
    "lower": [0.0, 0.0],
    "upper": [1.0, 1.0],
}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"cost": []}, "at least one variable"),
        ({"cost": [1.0, np.nan]}, "cost has a NaN at entry 1"),
        ({"cost": [1.0, np.inf]}, "cost and offset must be finite"),
        ({"cost": [[1.0, 2.0]]}, "cost must be a vector"),
        ({"A": np.ones((1, 3))}, "A has 3 columns but there are 2 variables"),
        ({"A": np.array([[1.0, np.nan]])}, "A must be finite"),
        ({"row_lower": [0.0, 0.0]}, "row_lower must have 1 entries"),
        ({"row_lower": [2.0]}, r"row_lower is above row_upper at row 0: 2.0 > 1.0"),
        ({"lower": [0.0, 3.0]}, r"lower is above upper at variable 1: 3.0 > 1.0"),
        ({"lower": [np.inf, 0.0], "upper": [np.inf, 1.0]}, r"cannot be \+inf"),
        ({"integrality": [True]}, "integrality must be 2 booleans"),
        ({"integrality": [2, 0]}, "integrality must be 2 booleans"),
        ({"offset": np.nan}, "offset must be finite"),
        ({"names": ("a", "a")}, "2 distinct strings"),
    ],
)
def test_malformed_program(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        MixedIntegerProgram(**(GOOD | change))


def test_arrays_are_copied_and_frozen():
    cost = np.array([1.0, 2.0])
    program = MixedIntegerProgram(**(GOOD | {"cost": cost}))
    cost[0] = 9
    assert program.cost[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        program.cost[0] = 3
    with pytest.raises(ValueError, match="read-only"):
        program.A.data[0] = 3


def test_sparse_formats_and_duplicates():
    coo = sp.coo_matrix(([1.0, 1.0, 0.0], ([0, 0, 0], [0, 0, 1])), shape=(1, 2))
    program = MixedIntegerProgram(**(GOOD | {"A": coo}))
    assert program.A.nnz == 1 and program.A[0, 0] == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([1.0], [[1.0]], [1.0], Cones(nonneg=2)), "the three must agree"),
        (([1.0], [[1.0]], [np.inf], Cones(nonneg=1)), "must be finite"),
        (([1.0, 1.0], [[1.0]], [1.0], Cones(nonneg=1)), "A has 1 columns"),
    ],
)
def test_malformed_conic_program(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        ConicProgram(*arguments)


def test_malformed_cones_and_limits():
    with pytest.raises(ValueError, match="cone sizes"):
        Cones(psd=(0,))
    for wrong in ({"time_limit": 0.0}, {"relative_gap": -1.0}, {"threads": 0}, {"node_limit": 0}):
        with pytest.raises(ValueError, match="must be"):
            Limits(**wrong)


def test_malformed_start_and_cutoff():
    program = MixedIntegerProgram(**GOOD)
    with pytest.raises(ValueError, match="start must be 2 numbers"):
        get("highs").solve(program, start=np.zeros(3))
    with pytest.raises(ValueError, match="cutoff is NaN"):
        get("highs").solve(program, cutoff=np.nan)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_svec(k):
    random = np.random.default_rng(k)
    X, Y = (m + m.T for m in random.normal(size=(2, k, k)))
    assert svec(X) @ svec(Y) == pytest.approx(np.trace(X @ Y))
    np.testing.assert_allclose(smat(svec(X)), X, atol=1e-14)
    np.testing.assert_allclose(smat_operator(k) @ svec(X), X.ravel(), atol=1e-14)


def test_svec_order_is_lower_triangle_by_columns():
    X = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 5.0], [3.0, 5.0, 6.0]])
    np.testing.assert_allclose(svec(X) / [1, 2**0.5, 2**0.5, 1, 2**0.5, 1], [1, 2, 3, 4, 5, 6])


def test_one_sided_rows():
    rows = one_sided(
        MixedIntegerProgram(
            [1.0],
            np.arange(1.0, 6)[:, None],
            [1, -np.inf, 0, -np.inf, 2],
            [1, 5, np.inf, np.inf, 3],
            [0],
            [1],
        )
    )
    assert rows.b_eq.tolist() == [1] and rows.eq_rows.tolist() == [0]
    assert rows.ub_rows.tolist() == [1, 4, 2, 4] and rows.b_ub.tolist() == [5, 3, 0, -2]
    assert rows.A_ub.toarray().ravel().tolist() == [2, 5, -3, -5]
    y = rows.row_duals(np.array([7.0]), np.array([-1.0, -2.0, -3.0, -4.0]), 5)
    assert y.tolist() == [7, -1, 3, 0, 2]
