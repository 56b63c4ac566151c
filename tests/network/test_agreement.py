"""What an imported network is compared by."""

from __future__ import annotations

import pytest
import torch

from lipcompare.errors import InvalidInput
from lipcompare.network.agreement import check_agreement
from lipcompare.network.graph import Affine, Input, Network
from lipcompare.network.linear_maps import Dense


def scale(factor: float) -> Dense:
    return Dense(torch.full((1, 1), factor, dtype=torch.float64))


@pytest.mark.parametrize("large", [1e30, 1e40])
def test_values_beyond_single_precision_are_compared_too(large: float) -> None:
    """What the network amplifies is measured in float32, and where that overflows nothing is measured."""
    layers = (Affine((k,), (scale(factor),), None) for k, factor in enumerate((large, 1e30, 1e-30)))
    network = Network((Input(1), *layers), (1,), (1,))
    check_agreement(network, network.forward, torch.float64)
    with pytest.raises(InvalidInput, match="differs from its source"):
        check_agreement(network, lambda x: 1.001 * network.forward(x), torch.float64)


def test_a_network_that_overflows_where_its_source_does_not_is_refused() -> None:
    difference = Affine((1, 1), (scale(1e200), scale(-1e200)), None)
    network = Network((Input(1), Affine((0,), (scale(1e200),), None), difference), (1,), (1,))
    with pytest.raises(InvalidInput, match="differs from its source"):
        check_agreement(network, lambda x: x, torch.float64)


@pytest.mark.parametrize(("dtype", "bias"), [(torch.float64, 2.0**40), (torch.float32, 2.0**14)])
def test_terms_that_cancel_may_be_added_in_another_order(dtype: torch.dtype, bias: float) -> None:
    """Nothing is left of the inputs in float32, so it measures nothing: another machine's order of sums was refused."""
    random = torch.Generator().manual_seed(0)
    first, end = (torch.randn(*shape, generator=random, dtype=torch.float64) for shape in ((6, 3), (2,)))
    first, end = (t.to(dtype).double() for t in (first, end))
    last = torch.tensor([[1.0, 1.0, 1.0, -1.0, -1.0, -1.0], [1.0, -1.0, 1.0, -1.0, 1.0, -1.0]], dtype=torch.float64)
    above = torch.full((6,), bias, dtype=torch.float64)
    layers = (Affine((0,), (Dense(first),), above), Affine((1,), (Dense(last),), end))
    network = Network((Input(3), *layers), (3,), (2,))

    def backwards(x: torch.Tensor) -> torch.Tensor:
        hidden = above.to(dtype) + first.to(dtype) @ x.to(dtype)
        total = torch.zeros(2, dtype=dtype)
        for k in reversed(range(6)):
            total += last[:, k].to(dtype) * hidden[k]
        return (total + end.to(dtype)).double()

    check_agreement(network, backwards, dtype)
    with pytest.raises(InvalidInput, match="differs from its source"):
        check_agreement(network, lambda x: backwards(x) + 3000 * bias * torch.finfo(dtype).eps, dtype)
