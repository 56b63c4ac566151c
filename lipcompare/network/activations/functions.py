"""Smooth activations as plain functions: value, first and second derivative, in formulas that keep their accuracy.

Each is exact at infinity too. Arguments beyond 1e4, where the exponentials vanish in every precision, are cut off where
a product of infinity and zero would follow.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_FAR = 1e4
_GELU_SCALE = math.sqrt(2 / math.pi)
GELU_CUBE = 0.044715


def _hump(z: Tensor) -> Tensor:
    """``sigmoid'``, without cancellation."""
    return torch.sigmoid(z) * torch.sigmoid(-z)


def _density(z: Tensor) -> Tensor:
    """The standard normal density."""
    return torch.exp(-z * z / 2) * (1 / math.sqrt(2 * math.pi))


def sigmoid(z: Tensor) -> Tensor:
    return torch.sigmoid(z)


def sigmoid_1(z: Tensor) -> Tensor:
    return _hump(z)


def sigmoid_2(z: Tensor) -> Tensor:
    return -_hump(z) * torch.tanh(z / 2)


def tanh(z: Tensor) -> Tensor:
    return torch.tanh(z)


def tanh_1(z: Tensor) -> Tensor:
    return 4 * _hump(2 * z)


def tanh_2(z: Tensor) -> Tensor:
    return -8 * torch.tanh(z) * _hump(2 * z)


def softplus(z: Tensor) -> Tensor:
    return z.clamp(min=0) + torch.log1p(torch.exp(-z.abs()))


def elu(z: Tensor, alpha: float) -> Tensor:
    return torch.where(z > 0, z, alpha * torch.expm1(z.clamp(max=0)))


def elu_1(z: Tensor, alpha: float) -> Tensor:
    return torch.where(z > 0, torch.ones_like(z), alpha * torch.exp(z.clamp(max=0)))


def elu_2(z: Tensor, alpha: float) -> Tensor:
    return torch.where(z > 0, torch.zeros_like(z), alpha * torch.exp(z.clamp(max=0)))


def silu(z: Tensor) -> Tensor:
    return z.clamp(min=-_FAR) * torch.sigmoid(z)


def silu_1(z: Tensor) -> Tensor:
    return torch.sigmoid(z) + z.clamp(-_FAR, _FAR) * _hump(z)


def silu_2(z: Tensor) -> Tensor:
    return _hump(z) * (2 - z.clamp(-_FAR, _FAR) * torch.tanh(z / 2))


def gelu(z: Tensor) -> Tensor:
    return z.clamp(min=-_FAR) * _normal(z)


def gelu_1(z: Tensor) -> Tensor:
    return _normal(z) + z.clamp(-_FAR, _FAR) * _density(z)


def gelu_2(z: Tensor) -> Tensor:
    z = z.clamp(-_FAR, _FAR)
    return (2 - z * z) * _density(z)


def _normal(z: Tensor) -> Tensor:
    """The standard normal distribution function."""
    tail: Tensor = torch.special.erfc(z * -math.sqrt(0.5))
    return tail / 2


def gelu_tanh(z: Tensor, cube: float) -> Tensor:
    v, _, _ = _gelu_inner(z.clamp(-_FAR, _FAR), cube)
    return z.clamp(min=-_FAR) * torch.sigmoid(v)


def gelu_tanh_1(z: Tensor, cube: float) -> Tensor:
    z = z.clamp(-_FAR, _FAR)
    v, v1, _ = _gelu_inner(z, cube)
    return torch.sigmoid(v) + z * v1 * _hump(v)


def gelu_tanh_2(z: Tensor, cube: float) -> Tensor:
    z = z.clamp(-_FAR, _FAR)
    v, v1, v2 = _gelu_inner(z, cube)
    return _hump(v) * (2 * v1 + z * (v2 - v1 * v1 * torch.tanh(v / 2)))


def _gelu_inner(z: Tensor, cube: float) -> tuple[Tensor, Tensor, Tensor]:
    """``v`` with ``gelu_tanh(z) = z sigmoid(v)``, and its derivatives."""
    scale, square = 2 * _GELU_SCALE, z * z
    return scale * z * (1 + cube * square), scale * (1 + 3 * cube * square), scale * 6 * cube * z


def mish(z: Tensor) -> Tensor:
    return z.clamp(min=-_FAR) * torch.tanh(softplus(z))


def mish_1(z: Tensor) -> Tensor:
    w = softplus(z)
    return torch.tanh(w) + z.clamp(-_FAR, _FAR) * 4 * _hump(2 * w) * torch.sigmoid(z)


def mish_2(z: Tensor) -> Tensor:
    w, s, x = softplus(z), torch.sigmoid(z), z.clamp(-_FAR, _FAR)
    return 4 * _hump(2 * w) * s * (2 + x * (torch.sigmoid(-z) - 2 * torch.tanh(w) * s))


def softsign(z: Tensor) -> Tensor:
    z = z.clamp(-1e30, 1e30)
    return z / (1 + z.abs())


def softsign_1(z: Tensor) -> Tensor:
    return 1 / (1 + z.abs()).square()


def softsign_2(z: Tensor) -> Tensor:
    return -2 * torch.sign(z) * softsign_1(z) / (1 + z.abs())


def hardswish(z: Tensor) -> Tensor:
    return z.clamp(min=-3) * ((z + 3).clamp(0, 6) / 6)


def hardswish_1(z: Tensor) -> Tensor:
    inside = (2 * z.clamp(-3, 3) + 3) / 6
    return torch.where(z <= -3, torch.zeros_like(z), torch.where(z > 3, torch.ones_like(z), inside))


def hardswish_2(z: Tensor) -> Tensor:
    return ((z > -3) & (z < 3)).to(z.dtype) / 3


def exp(z: Tensor) -> Tensor:
    return torch.exp(z)


def square(z: Tensor) -> Tensor:
    return z * z


def square_1(z: Tensor) -> Tensor:
    return 2 * z


def square_2(z: Tensor) -> Tensor:
    return torch.full_like(z, 2.0)


def erf(z: Tensor) -> Tensor:
    return torch.erf(z)


def erf_1(z: Tensor) -> Tensor:
    return torch.exp(-z * z) * (2 / math.sqrt(math.pi))


def erf_2(z: Tensor) -> Tensor:
    z = z.clamp(-_FAR, _FAR)
    return -2 * z * erf_1(z)


def arctan(z: Tensor) -> Tensor:
    return torch.atan(z)


def arctan_1(z: Tensor) -> Tensor:
    return 1 / (1 + z * z)


def arctan_2(z: Tensor) -> Tensor:
    z = z.clamp(-1e8, 1e8)
    return -2 * z / (1 + z * z) ** 2
