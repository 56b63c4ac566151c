"""How convolutions on windows are computed changes nothing: in parts that fit the cache, and with gradients."""

from __future__ import annotations

import math

import pytest
import torch
from images import image_maps, single_entries

from lipcompare.network.linear_maps import Conv
from lipcompare.network.patches import convolution
from lipcompare.network.patches.convolution import conv_adjoint, conv_forward

CONVS = [m for m, _, _ in image_maps() if isinstance(m, Conv)]


@pytest.mark.parametrize("number", range(len(CONVS)))
def test_gradients_are_those_of_the_map(number: int) -> None:
    """Of a sum of squares, from windows of more than one entry: what the flat map gives there."""
    m = CONVS[number]
    start, _ = single_entries(m.out_shape)
    windows = conv_forward(m, conv_adjoint(m, start).cleaned()).cleaned()
    values = windows.values.clone().requires_grad_()
    out = conv_adjoint(m, windows.with_values(values))
    (gradient,) = torch.autograd.grad(out.cleaned().values.square().sum(), values)
    within = windows.with_values(torch.ones_like(windows.values), clean=False).cleaned().flat()
    expected = 2 * m.forward(m.adjoint(windows.flat())) * within
    torch.testing.assert_close(windows.with_values(gradient, clean=False).flat(), expected, rtol=1e-12, atol=1e-12)


def test_products_are_made_a_few_items_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    m = CONVS[0]
    patches = conv_adjoint(m, single_entries(m.out_shape)[0]).cleaned()
    at_once = conv_forward(m, patches).values
    seen: list[int] = []
    products = convolution._products

    def recorded(values: torch.Tensor, weight: torch.Tensor, taps: int) -> torch.Tensor:
        seen.append(len(values))
        return products(values, weight, taps)

    each = math.prod(patches.frame.size) * math.prod(m.weight.shape[2:]) * m.out_shape[0] * 8
    monkeypatch.setattr(convolution, "_CACHE", 4 * each)
    monkeypatch.setattr(convolution, "_products", recorded)
    torch.testing.assert_close(conv_forward(m, patches).values, at_once, rtol=1e-13, atol=1e-13)
    assert max(seen) == 4 and sum(seen) == patches.items.count
