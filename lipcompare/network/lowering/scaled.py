"""Smooth activations whose parameters scale the axes of a standard one."""

from __future__ import annotations

import torch

from lipcompare.network.activations import Activation, smooth
from lipcompare.network.lowering.arithmetic import multiply, negate
from lipcompare.network.lowering.builder import Builder, NotLinear, Operand, as_value

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def stretched(b: Builder, x: Operand, activation: Activation, inner: float, outer: float) -> Operand:
    """``outer activation(inner x)``."""
    z = x if inner == 1 else multiply(b, x, torch.tensor(inner, dtype=torch.float64))
    y: Operand = b.activate(as_value(b, z), activation)
    return y if outer == 1 else multiply(b, y, torch.tensor(outer, dtype=torch.float64))


def softplus(b: Builder, x: Operand, beta: float) -> Operand:
    """``log(1 + exp(beta x)) / beta``."""
    return stretched(b, x, smooth.softplus(), beta, 1 / beta)


def log_sigmoid(b: Builder, x: Operand) -> Operand:
    """``log(sigmoid(x)) = -softplus(-x)``."""
    return negate(b, stretched(b, x, smooth.softplus(), -1.0, 1.0))


def elu(b: Builder, x: Operand, alpha: float, scale: float = 1.0, input_scale: float = 1.0) -> Operand:
    """``scale x`` where positive, ``scale alpha (exp(input_scale x) - 1)`` elsewhere."""
    if alpha <= 0 or input_scale <= 0:
        raise NotLinear("ELU is supported for positive alpha")
    # The positive branch reads x unscaled, so the two scales act on both branches of an ELU with another alpha.
    return stretched(b, x, smooth.elu(alpha * input_scale), input_scale, scale / input_scale)


def celu(b: Builder, x: Operand, alpha: float) -> Operand:
    """``x`` where positive, ``alpha (exp(x / alpha) - 1)`` elsewhere."""
    return stretched(b, x, smooth.elu(1.0), 1 / alpha, alpha)


def selu(b: Builder, x: Operand, alpha: float, scale: float) -> Operand:
    """``scale elu(x)``."""
    return elu(b, x, alpha, scale)


def silu(b: Builder, x: Operand, inner: float) -> Operand:
    """``x sigmoid(inner x)``."""
    return stretched(b, x, smooth.silu(), inner, 1 / inner)
