"""Products and quotients of two values that are functions of one."""

from __future__ import annotations

from collections.abc import Callable

import lowered
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lipcompare.network.lowering import arithmetic, piecewise, products
from lipcompare.network.lowering.builder import Builder, NotLinear, Operand
from lipcompare.network.lowering.native import native
from lipcompare.network.room import Room


def one_and_size(b: Builder, x: Operand) -> Operand:
    return arithmetic.add(b, piecewise.absolute(b, x), torch.tensor(1.0))


CASES: dict[str, tuple[lowered.Lowering, Callable[[Tensor], Tensor]]] = {
    "silu": (lambda b, x: products.multiply(b, x, native("sigmoid")(b, x)), F.silu),
    "silu, the other way": (lambda b, x: products.multiply(b, native("sigmoid")(b, x), x), F.silu),
    "hard swish": (lambda b, x: products.multiply(b, x, piecewise.hard_sigmoid(b, x, 1 / 6, 0.5)), F.hardswish),
    "mish": (lambda b, x: products.multiply(b, x, native("tanh")(b, native("softplus")(b, x))), F.mish),
    "softsign": (lambda b, x: products.divide(b, x, one_and_size(b, x)), F.softsign),
    "by a constant": (lambda b, x: products.multiply(b, x, torch.tensor(3.0)), lambda x: 3 * x),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_torch_computes(name: str) -> None:
    lowered.check(*CASES[name], (5,))


def test_other_products_of_values_are_refused() -> None:
    b = Builder((1, 5), Room())
    x = b.input
    for factor in (x, native("tanh")(b, arithmetic.multiply(b, x, torch.arange(5.0))), native("relu")(b, x)):
        with pytest.raises(NotLinear):
            products.multiply(b, x, factor)
