"""Products that skip the zeros of ``K`` are the products."""

from __future__ import annotations

import dataclasses

import nets
import pytest
import torch
from quadratic.programs import scaled_data_of

from lipcompare.quadratic.solver.iterate import Coefficients
from lipcompare.quadratic.solver.products import Products


def coefficients() -> Coefficients:
    """Of 2 problems whose ``K`` has three blocks of 30, 50 and 20 coordinates."""
    one = Coefficients.of(scaled_data_of(nets.problem(nets.dense(3), 0.3)), torch.float64)
    small = one.select(torch.zeros(2, dtype=torch.int64, device=one.k.device))
    random = torch.Generator().manual_seed(0)
    k = torch.zeros(2, 101, 101, dtype=torch.float64)
    ranges = ((1, 31), (31, 81), (81, 101))
    for start, stop in ranges:
        k[:, :start, start:stop] = torch.randn(2, start, stop - start, generator=random, dtype=torch.float64)
    k.diagonal(dim1=-2, dim2=-1)[:] = torch.rand(2, 101, generator=random, dtype=torch.float64)
    return dataclasses.replace(small, k=k.to(one.k), ranges=ranges)


@pytest.mark.parametrize("sparse", [True, False])
def test_products(sparse: bool) -> None:
    c = coefficients()
    products = Products(c)
    assert products.sparse
    products.sparse = sparse
    random = torch.Generator().manual_seed(1)
    rows = torch.randn(2, 7, 101, generator=random, dtype=torch.float64).to(c.k)
    columns = torch.randn(2, 101, 7, generator=random, dtype=torch.float64).to(c.k)
    torch.testing.assert_close(products.right(rows), rows @ c.k)
    torch.testing.assert_close(products.left(columns), c.k.mT @ columns)
    torch.testing.assert_close(products.from_left(columns), c.k @ columns)


def test_small_programs_and_those_of_many_nodes_skip_nothing() -> None:
    c = coefficients()
    many = dataclasses.replace(c, ranges=tuple((i, i + 1) for i in range(1, 101)))
    assert not Products(many).sparse
    assert not Products(Coefficients.of(scaled_data_of(nets.problem(nets.dense(3), 0.3)), torch.float64)).sparse
