"""Scaled activations, and those that stand for a product or a quotient, against torch."""

from __future__ import annotations

from collections.abc import Callable

import lowered
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lipcompare.network.lowering import scaled

CASES: dict[str, tuple[lowered.Lowering, Callable[[Tensor], Tensor]]] = {
    "softplus": (lambda b, x: scaled.softplus(b, x, 2.0), lambda x: F.softplus(x, 2.0)),
    "log sigmoid": (scaled.log_sigmoid, F.logsigmoid),
    "elu": (lambda b, x: scaled.elu(b, x, 1.5), lambda x: F.elu(x, 1.5)),
    "celu": (lambda b, x: scaled.celu(b, x, 0.7), lambda x: torch.where(x > 0, x, 0.7 * torch.expm1(x / 0.7))),
    "selu": (lambda b, x: scaled.selu(b, x, 1.6732632423543772, 1.0507009873554805), F.selu),
    "silu": (lambda b, x: scaled.silu(b, x, 1.702), lambda x: x * torch.sigmoid(1.702 * x)),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_torch_computes(name: str) -> None:
    lowered.check(*CASES[name], (5,))
