"""Columns, expressions and the matrices of maps."""

from __future__ import annotations

from fractions import Fraction
from unittest import mock

import nets
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from encoding.piecewise import PIECEWISE

from lipcompare.encoding import builder
from lipcompare.encoding.builder import Expression, OutOfRange, ProgramBuilder, sparse_matrix
from lipcompare.network.linear_maps import Conv, Dense, Scale, Transposed


def test_sparse_matrices_of_maps() -> None:
    for family in PIECEWISE:
        for node in nets.FAMILIES[family](3).nodes:
            for linear in getattr(node, "maps", ()):
                np.testing.assert_allclose(sparse_matrix(linear).toarray(), linear.matrix().numpy())


def test_expressions() -> None:
    builder = ProgramBuilder()
    columns = builder.add_columns(np.array([-1.0, 0.0]), np.array([2.0, 3.0]))
    expression = Expression.columns(columns, np.array([2.0, -1.0])) + Expression.of(np.array([1.0, 0.0]))
    low, high = builder.reach(expression)
    np.testing.assert_allclose(low, [-1, -3], atol=1e-12)
    np.testing.assert_allclose(high, [5, 0], atol=1e-12)
    with pytest.raises(OutOfRange):
        builder.add_columns(np.array([-np.inf]), np.array([0.0]))


def _reaches_hold() -> bool:
    """Intervals of sums over columns far from 0, whose terms cancel, against rational arithmetic."""
    random = np.random.default_rng(0)
    lower = 10.0 ** random.integers(0, 12, 5) * random.normal(size=5)
    upper, weights = lower + np.abs(random.normal(size=5)), random.normal(size=(30, 5))
    program = ProgramBuilder()
    columns = Expression.columns(program.add_columns(lower, upper))
    constant = -weights @ lower
    low, high = program.reach(columns.mapped(sp.csr_matrix(weights)) + Expression.of(constant))
    for i, row in enumerate(weights.tolist()):
        terms = [sorted((Fraction(w) * Fraction(a), Fraction(w) * Fraction(b)))
                 for w, a, b in zip(row, lower.tolist(), upper.tolist(), strict=True)]  # fmt: skip
        ends = [Fraction(float(constant[i])) + sum(side) for side in zip(*terms, strict=True)]
        if not Fraction(float(low[i])) <= ends[0] <= ends[1] <= Fraction(float(high[i])):
            return False
    return True


def test_the_rounding_of_reaches_is_needed() -> None:
    assert _reaches_hold()
    with mock.patch("lipcompare.encoding.builder.allowance", return_value=0.0):
        assert not _reaches_hold()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("spatial", [(7,), (5, 6), (3, 4, 5)])
def test_the_matrix_of_a_convolution(spatial: tuple[int, ...], groups: int) -> None:
    random, rank = torch.Generator().manual_seed(0), len(spatial)
    weight = torch.randn(4, 2, *(2, 3, 2)[:rank], generator=random, dtype=torch.float64)
    weight[1, 0] = 0
    steps = [(2, 1, 1)[:rank], (1, 2, 0)[:rank], (1, 2, 1)[:rank]]
    m = Conv(weight, (2 * groups, *spatial), *steps, groups)
    matrix = sparse_matrix(m)
    np.testing.assert_array_equal(matrix.toarray(), m.matrix().numpy())
    assert matrix.nnz == np.count_nonzero(m.matrix().numpy())
    np.testing.assert_array_equal(sparse_matrix(Transposed(m)).toarray(), m.matrix().numpy().T)


@pytest.mark.parametrize(
    "linear",
    [Dense(torch.ones(2, 50).double()), Dense(torch.ones(3, 2).double(), 4), Scale(torch.arange(60.0).double())],
)
def test_no_block_of_units_is_larger_than_allowed(monkeypatch, linear):
    # The unit vectors of 20,000 inputs took 3.2 GB for a layer of ten outputs.
    asked = []
    monkeypatch.setattr(builder, "BLOCK_ENTRIES", 600)
    forward = type(linear).forward
    monkeypatch.setattr(type(linear), "forward", lambda self, x: asked.append(x.numel()) or forward(self, x))
    matrix = sparse_matrix(linear).toarray()
    assert max(asked, default=0) <= 600
    monkeypatch.undo()
    np.testing.assert_array_equal(matrix, linear.matrix().numpy())
