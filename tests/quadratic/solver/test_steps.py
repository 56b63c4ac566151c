"""Step lengths against eigenvalues and roots, and inverses of Cholesky factors in blocks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lipcompare.quadratic.solver.steps import block_limit, inverse_factor, matrix_limit, scalar_limit


def definite(count: int, n: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    root = torch.randn(count, n, n, generator=random, dtype=torch.float64)
    return root @ root.mT + 0.1 * n * torch.eye(n, dtype=torch.float64)


def symmetric(count: int, n: int, seed: int = 1) -> Tensor:
    value = torch.randn(count, n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return value + value.mT


@pytest.mark.parametrize("n", [3, 47, 48, 49, 100, 201])
def test_inverse_factors_are_those_of_cholesky(n: int) -> None:
    matrix = definite(3, n)
    inverse, inside = inverse_factor(matrix)
    assert bool(inside.all())
    torch.testing.assert_close(inverse @ torch.linalg.cholesky(matrix), torch.eye(n).double().expand(3, -1, -1))
    torch.testing.assert_close(inverse, inverse.tril())


@pytest.mark.parametrize("n", [5, 60, 130])
@pytest.mark.parametrize("where", [0, -1])
def test_what_is_not_definite_is_told_matrix_by_matrix(n: int, where: int) -> None:
    matrix = definite(3, n)
    matrix[1, where, where] = -1.0
    assert inverse_factor(matrix)[1].tolist() == [True, False, True]


@pytest.mark.parametrize("n", [6, 40, 64, 65, 90])
def test_lanczos_finds_the_boundary_from_outside(n: int) -> None:
    matrix, change = definite(4, n), symmetric(4, n)
    change[3] = definite(1, n, 5)[0]
    inverse = torch.linalg.inv(torch.linalg.cholesky(matrix))
    lowest = torch.linalg.eigvalsh(inverse @ change @ inverse.mT)[:, 0]
    exact = torch.where(lowest < 0, -1 / lowest, torch.inf)
    probe = torch.randn(4, n, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    few, many = (matrix_limit(inverse, change, probe, steps) for steps in (6, 24))
    assert bool((few >= exact * (1 - 1e-9)).all()) and bool((few[:3] <= 1.35 * exact[:3]).all())
    assert bool((many >= exact * (1 - 1e-9)).all()) and bool((many[:3] <= 1.01 * exact[:3]).all())
    assert bool(torch.isinf(few[3])) and bool(torch.isinf(many[3]))


def test_lanczos_in_an_exhausted_space_invents_no_eigenvalue() -> None:
    n = 30
    change = -torch.eye(n, dtype=torch.float64).expand(2, -1, -1) * torch.tensor([1.0, 4.0]).view(2, 1, 1)
    unit = torch.eye(n, dtype=torch.float64).expand(2, -1, -1)
    probe = torch.randn(2, n, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(matrix_limit(unit, change, probe, 8), torch.tensor([1.0, 0.25]).double())


@pytest.mark.parametrize("n", [30, 90])
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_a_change_that_is_out_of_range_takes_no_step(n: int, wrong: float) -> None:
    """The others of the batch take theirs."""
    inverse, change = torch.linalg.inv(torch.linalg.cholesky(definite(3, n))), symmetric(3, n)
    probe = torch.randn(3, n, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = matrix_limit(inverse, change, probe, 6)
    change[1, 2, 2] = wrong
    found = matrix_limit(inverse, change, probe, 6)
    assert float(found[1]) == 0
    torch.testing.assert_close(found[[0, 2]], expected[[0, 2]])


def test_scalars_and_blocks_end_where_they_lose_their_sign() -> None:
    value, change = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([-2.0, 0.0, 1.0])
    assert scalar_limit(value, change).tolist() == [0.5, torch.inf, torch.inf]
    random = torch.Generator().manual_seed(2)
    draw = torch.rand(6, 200, 1, generator=random, dtype=torch.float64)
    a, c = 0.5 + draw[0], 0.5 + draw[1]
    b = (draw[2] - 0.5) * (a * c).sqrt()
    da, db, dc = 2 * draw[3:] - 1
    limit = block_limit(a, b, c, da, db, dc)
    for t, inside in ((0.999, True), (1.001, False)):
        step = torch.where(torch.isinf(limit), 1.0, t * limit).unsqueeze(-1)
        x, y, z = a + step * da, b + step * db, c + step * dc
        ok = ((x > 0) & (x * z - y * y > 0)).squeeze(-1)
        assert bool((ok == inside)[torch.isfinite(limit)].all())
    assert bool(torch.isfinite(limit).any())


def test_blocks_that_shrink_as_a_whole_end_at_zero() -> None:
    """Their determinant has a double root, which rounding may take for none."""
    draw = torch.rand(3, 200, 1, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    a, c = 0.5 + draw[0], 0.5 + draw[1]
    b = (draw[2] - 0.5) * (a * c).sqrt()
    limit = block_limit(a, b, c, -3 * a, -3 * b, -3 * c)
    assert bool(((limit - 1 / 3).abs() < 1e-6).all())
