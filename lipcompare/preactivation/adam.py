"""Adam (Kingma and Ba 2015), written out: importing torch.optim takes a second, which is longer than most bounds."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

_FIRST, _SECOND = 0.9, 0.999
"""What the moments keep of themselves in a step."""


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Running means of a gradient and of its square, and room for the length of a step; all of one shape."""

    first: Tensor
    second: Tensor
    room: Tensor

    @classmethod
    def like(cls, point: Tensor) -> Moments:
        """Of a gradient that has not been seen yet."""
        return cls(*(torch.zeros_like(point, requires_grad=False) for _ in range(3)))


def adam_step(point: Tensor, gradient: Tensor, moments: Moments, number: int, rate: float, least: float = 1e-8) -> None:
    """One step down the gradient within [0, 1], in place; up where the rate is negative.

    Args:
        number: of the step, from 1 on.
        least: what is added to the root of the second moment.
    """
    moments.first.lerp_(gradient, 1 - _FIRST)
    moments.second.mul_(_SECOND).addcmul_(gradient, gradient, value=1 - _SECOND)
    bias = math.sqrt(1 - _SECOND**number)
    # The root in two steps: torch's own takes three times as long where many numbers are zero.
    size = torch.rsqrt(moments.second, out=moments.room).reciprocal_().add_(least * bias)
    point.addcdiv_(moments.first, size, value=-rate * bias / (1 - _FIRST**number)).clamp_(0, 1)
