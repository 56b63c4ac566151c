"""Sums and products with constants, against torch; what is linear for no constant is refused."""

from __future__ import annotations

from collections.abc import Callable

import lowered
import pytest
import torch
from torch import Tensor

from lipcompare.network.lowering import arithmetic
from lipcompare.network.lowering.builder import Builder, NotLinear, reshape
from lipcompare.network.room import Room

ROW = torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64)
MATRIX = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], dtype=torch.float64)

CASES: dict[str, tuple[lowered.Lowering, Callable[[Tensor], Tensor]]] = {
    "add": (lambda b, x: arithmetic.add(b, x, ROW, 2.0), lambda x: x + 2 * ROW),
    "add twice": (lambda b, x: arithmetic.add(b, x, x, -3.0), lambda x: x - 3 * x),
    "subtract from": (lambda b, x: arithmetic.subtract(b, ROW, x), lambda x: ROW - x),
    "multiply": (lambda b, x: arithmetic.multiply(b, ROW, x), lambda x: ROW * x),
    "divide": (lambda b, x: arithmetic.divide(b, x, ROW), lambda x: x / ROW),
    "negate": (arithmetic.negate, lambda x: -x),
    "dense": (lambda b, x: arithmetic.dense(b, x, MATRIX, ROW[:2]), lambda x: x @ MATRIX.T + ROW[:2]),
    "matmul": (lambda b, x: arithmetic.matmul(b, x, MATRIX.T), lambda x: x @ MATRIX.T),
    "matmul from the left": (
        lambda b, x: reshape(arithmetic.matmul(b, MATRIX, reshape(x, (3, 2))), (1, 2, 2)),
        lambda x: (MATRIX @ x.reshape(3, 2)).reshape(1, 2, 2),
    ),
    "einsum": (
        lambda b, x: arithmetic.einsum(b, "bij,kj,j->bki", [x, MATRIX, ROW]),
        lambda x: torch.einsum("bij,kj,j->bki", x, MATRIX, ROW),
    ),
    "lerp": (
        lambda b, x: arithmetic.lerp(b, x, ROW, torch.tensor(0.25)),
        lambda x: torch.lerp(x, ROW.expand_as(x), 0.25),
    ),
    "total": (lambda b, x: arithmetic.total(b, x, [1], True), lambda x: x.sum(1, keepdim=True)),
    "total of all": (
        lambda b, x: reshape(arithmetic.total(b, x, None, False), (1, 1)),
        lambda x: x.sum().reshape(1, 1),
    ),
    "mean": (lambda b, x: arithmetic.mean(b, x, [-1], False), lambda x: x.mean(-1)),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_torch_computes(name: str) -> None:
    lowering, function = CASES[name]
    made = lowered.check(lowering, function, (2, 3))
    assert not made.activations


def test_batch_norm_is_one_factor_and_one_shift_per_channel() -> None:
    mean, variance, weight, bias = (torch.tensor(v, dtype=torch.float64) for v in ([1, 2], [4, 9], [3, -1], [0.5, 7]))
    lowered.check(
        lambda b, x: arithmetic.batch_norm(b, x, weight, bias, mean, variance, 1e-3),
        lambda x: torch.nn.functional.batch_norm(x, mean, variance, weight, bias, eps=1e-3),
        (2, 3),
    )
    b = Builder((1, 2, 3), Room())
    for statistics, training in ((None, False), (mean, True)):
        with pytest.raises(NotLinear):
            arithmetic.batch_norm(b, b.input, weight, bias, statistics, statistics, 1e-3, training=training)


def test_a_product_of_two_values_and_a_quotient_by_one_are_refused() -> None:
    b = Builder((1, 3), Room())
    for made in (arithmetic.multiply, arithmetic.divide):
        with pytest.raises(NotLinear):
            made(b, b.input, b.input)
