"""Activations that a node of the network computes natively, by name; each importer says what its source calls them."""

from __future__ import annotations

from collections.abc import Callable

from lipcompare.network.activations import Activation, relu, smooth
from lipcompare.network.lowering.builder import Builder, Operand, as_value

ACTIVATIONS: dict[str, Callable[[], Activation]] = {
    "relu": relu, "sigmoid": smooth.sigmoid, "tanh": smooth.tanh, "softplus": smooth.softplus, "silu": smooth.silu,
    "softsign": smooth.softsign, "gelu": smooth.gelu, "gelu_tanh": smooth.gelu_tanh, "mish": smooth.mish,
    "hardswish": smooth.hardswish, "exp": smooth.exp, "erf": smooth.erf, "atan": smooth.arctan,
}  # fmt: skip


def native(name: str) -> Callable[[Builder, Operand], Operand]:
    """The lowering of the activation of that name."""
    make = ACTIVATIONS[name]
    return lambda b, x: b.activate(as_value(b, x), make())


def gelu(b: Builder, x: Operand, approximate: str = "none") -> Operand:
    """GELU, or its approximation by the hyperbolic tangent."""
    return native("gelu_tanh" if approximate == "tanh" else "gelu")(b, x)
