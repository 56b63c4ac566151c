"""Activations that torch has taken apart into comparisons, exponentials, logarithms and powers, put together again.

Some steps of such a decomposition are no function that a network here can hold (a comparison, ``x^3``). They are kept
as :class:`Pending` results, which only the steps that complete the activation can read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from lipcompare.network.activations import Activation, LeakyReLU, Smooth, smooth
from lipcompare.network.activations.functions import GELU_CUBE
from lipcompare.network.graph import Activate, Affine
from lipcompare.network.linear_maps import Scale
from lipcompare.network.lowering import arithmetic, piecewise, products, scaled
from lipcompare.network.lowering.builder import Builder, NotLinear, Operand, Value, as_value

_TANH = math.sqrt(2 / math.pi)
_SAME_SHAPE = 1e-5
"""Relative difference from 0.044715 up to which the coefficient of the cubic in tanh-GELU may be off by rounding."""
_NEGLIGIBLE = 15.0
"""Beyond this, softplus and the identity differ by less than 1e-6: torch switches at 20."""


class Pending:
    """A result that no network can hold, on its way to one that it can. ``reason``: why nothing else may read it."""

    reason: ClassVar[str]


@dataclass(frozen=True)
class Comparison(Pending):
    """The comparison of a value with a constant, which only ``where`` can read."""

    reason: ClassVar[str] = "a comparison can only choose between the parts of an activation"

    x: Value
    positive: bool  # x > threshold (or >=), else x < threshold (or <=)
    threshold: float


@dataclass(frozen=True)
class Cubic(Pending):
    """``sum_k coefficients[k] z^k``, ``k`` up to 3, of every entry of ``z``: only tanh-GELU can read it."""

    reason: ClassVar[str] = "a product whose factors both depend on the input is not piecewise linear"

    z: Value
    coefficients: tuple[float, float, float, float]

    def times(self, factor: float) -> Cubic:
        """All of it times a number."""
        c0, c1, c2, c3 = (c * factor for c in self.coefficients)
        return Cubic(self.z, (c0, c1, c2, c3))

    def plus(self, constant: float, first: float) -> Cubic:
        """All of it plus ``constant + first z``."""
        c0, c1, c2, c3 = self.coefficients
        return Cubic(self.z, (c0 + constant, c1 + first, c2, c3))


def settle(b: Builder, x: Pending) -> Operand:
    """A result as a value, where a network can hold it after all: a polynomial of degree two."""
    if not isinstance(x, Cubic) or x.coefficients[3] != 0:
        raise NotLinear(x.reason)
    c0, c1, c2, _ = x.coefficients
    squares = b.activate(x.z, smooth.square())
    y = arithmetic.add(b, arithmetic.multiply(b, squares, _number(c2)), arithmetic.multiply(b, x.z, _number(c1)))
    return arithmetic.add(b, y, _number(c0)) if c0 else y


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@dataclass(frozen=True)
class CubicTanh(Pending):
    """``scale tanh(sqrt(2/pi) (k z + cube (k z)^3)) + shift``, ``cube`` being 0.044715 as the model has it."""

    reason: ClassVar[str] = "the hyperbolic tangent of a cubic is supported only as in tanh-GELU"

    z: Value
    k: float
    cube: float
    scale: float
    shift: float


def log1p(b: Builder, x: Operand) -> Operand:
    """``log(1 + x)`` of an exponential: softplus."""
    if isinstance(x, Tensor):
        return x.log1p()
    item = b.nodes[x.node]
    if not isinstance(item, Activate) or not _is(item, "exp"):
        raise NotLinear("it is supported only after an exponential, as part of softplus")
    return b.activate(Value(item.parent, x.shape), smooth.softplus())


def expm1(b: Builder, x: Operand) -> Operand:
    """``exp(x) - 1``."""
    if isinstance(x, Tensor):
        return x.expm1()
    return arithmetic.add(b, b.activate(x, smooth.exp()), torch.tensor(-1.0, dtype=torch.float64))


def compare(x: Operand, y: Operand | float, *, positive: bool) -> Comparison:
    """``x > y`` or ``x < y``; equality does not matter to continuous functions."""
    constant = y if isinstance(y, Tensor) else None if isinstance(y, Value) else torch.tensor(float(y))
    same = constant is not None and constant.numel() > 0 and bool((constant == constant.reshape(-1)[0]).all())
    if not isinstance(x, Value) or constant is None or not same:
        raise NotLinear(
            "comparing values is supported only with one constant, to choose between parts of an activation"
        )
    return Comparison(x, positive, float(constant.reshape(-1)[0]))


def choose(b: Builder, condition: Comparison, x: Operand | Pending, y: Operand | Pending) -> Operand:
    """``where(z > 0, a z, c z)``, the two sides of ELU, and softplus with its threshold."""
    if isinstance(x, Pending) or isinstance(y, Pending):
        raise NotLinear(_reason(x, y))
    above, below = (x, y) if condition.positive else (y, x)
    if condition.threshold != 0:
        recognised = _softplus(b, condition, above, below)
        if recognised is None:
            raise NotLinear("it compares with a number other than zero, and is no softplus with a threshold")
        return recognised
    z = condition.x
    high, low = (_multiple(b, z, part) for part in (above, below))
    if high is not None and low is None:
        recognised = _elu(b, z, high, below)
        if recognised is not None:
            return recognised
    if high is None or low is None:
        raise NotLinear("its branches are not multiples of the value it compares with zero")
    if bool((high == 1).all()):
        return piecewise.leaky(b, z, low)
    bend = arithmetic.multiply(b, piecewise.rectify(b, z), high - low)
    return arithmetic.add(b, arithmetic.multiply(b, z, low), bend)


def _multiple(b: Builder, z: Value, x: Operand) -> Tensor | None:
    """The constant ``c`` (of z's shape) with ``x = c z``, None if there is none to be seen."""
    if not isinstance(x, Value):
        constant = torch.as_tensor(x, dtype=torch.float64)
        return torch.zeros(z.shape, dtype=torch.float64) if not bool(constant.any()) else None
    if x.shape != z.shape:
        return None
    if x.node == z.node:
        return torch.ones(z.shape, dtype=torch.float64)
    node = b.nodes[x.node]
    if isinstance(node, Affine) and node.parents == (z.node,) and node.bias is None and isinstance(node.maps[0], Scale):
        return node.maps[0].factor.reshape(z.shape)
    return None


def _elu(b: Builder, z: Value, high: Tensor, below: Operand) -> Operand | None:
    """``a z`` where positive, ``c (exp(k z) - 1)`` elsewhere."""
    if not isinstance(below, Value) or below.shape != z.shape or not bool((high == high.reshape(-1)[0]).all()):
        return None
    outer = products.as_scaled(b, below.node, z.node)
    item = b.nodes[outer.node]
    if not isinstance(item, Activate) or not _is(item, "exp"):
        return None
    inner = products.as_scaled(b, item.parent, z.node)
    slope = float(high.reshape(-1)[0])
    if inner.node != z.node or inner.shift != 0 or outer.shift != -outer.scale or slope == 0:
        return None
    return scaled.elu(b, z, outer.scale / slope, slope, inner.scale)


def _softplus(b: Builder, condition: Comparison, above: Operand, below: Operand) -> Operand | None:
    """``where(k z > 20, z, softplus(k z) / k)`` is the second branch up to what torch itself neglects."""
    if not (isinstance(above, Value) and isinstance(below, Value)) or condition.threshold < _NEGLIGIBLE:
        return None
    outer = products.as_scaled(b, below.node, above.node)
    item = b.nodes[outer.node]
    if not isinstance(item, Activate) or not _is(item, "softplus"):
        return None
    inner, asked = (products.as_scaled(b, node, above.node) for node in (item.parent, condition.x.node))
    # Scales that are inverse to each other are so up to float32, in which they may have been stored.
    straight = all(part.node == above.node and part.shift == 0 for part in (inner, asked))
    if not straight or outer.shift != 0 or not math.isclose(outer.scale * inner.scale, 1, rel_tol=1e-6):
        return None
    return below if math.isclose(asked.scale, inner.scale, rel_tol=1e-6) and inner.scale > 0 else None


def difference(b: Builder, x: Operand, y: Operand) -> Operand | None:
    """``min(z, 0) - log(1 + exp(-|z|))``: log-sigmoid. None if it is something else."""
    if not (isinstance(x, Value) and isinstance(y, Value)) or x.shape != y.shape:
        return None
    item = b.nodes[y.node]
    if not isinstance(item, Activate) or not _is(item, "softplus"):
        return None
    inner = products.as_scaled(b, item.parent, -1)
    size = b.nodes[inner.node]
    if not isinstance(size, Activate) or not _is(size, -1.0) or (inner.scale, inner.shift) != (-1.0, 0.0):
        return None
    z = Value(size.parent, x.shape)
    return scaled.log_sigmoid(b, z) if _is_negative_part(b, x.node, z.node) else None


def _is_negative_part(b: Builder, node: int, z: int) -> bool:
    """Whether a node is ``z - relu(z)``."""
    item = b.nodes[node]
    if not isinstance(item, Affine) or len(item.parents) != 2 or (item.bias is not None and bool(item.bias.any())):
        return False
    parts = {p: products.factor_of(m) for p, m in item.terms}
    if parts.pop(z, None) != 1.0:
        return False
    ((other, factor),) = parts.items()
    relu = b.nodes[other]
    if factor != -1.0 or not isinstance(relu, Activate) or not _is(relu, 0.0):
        return False
    return products.as_scaled(b, relu.parent, z) == products.Scaled(z, 1.0, 0.0)


def _is(item: Activate, what: str | float) -> bool:
    """Whether a node is a smooth activation of some name, or a leaky ReLU of some slope."""
    activation: Activation = item.activation
    if isinstance(activation, Smooth):
        return activation.name == what
    return isinstance(activation, LeakyReLU) and not isinstance(activation.alpha, Tensor) and activation.alpha == what


def power(b: Builder, x: Operand, exponent: float) -> Operand | Cubic:
    """``x^0``, ``x^1`` and ``x^2``, and ``x^3`` for tanh-GELU."""
    if isinstance(x, Tensor):
        return x.to(torch.float64) ** exponent
    if exponent == 0:
        return torch.ones(x.shape, dtype=torch.float64)
    if exponent == 1:
        return x
    if exponent not in (2, 3):
        raise NotLinear(f"the power {exponent:g} is not piecewise linear")
    root = _root(b, x)
    second, third = (root.scale**n if exponent == n else 0.0 for n in (2, 3))
    return Cubic(Value(root.node, x.shape), (0.0, 0.0, second, third))


def exponential(b: Builder, base: float, x: Operand) -> Operand:
    """``base^x``."""
    if isinstance(x, Tensor):
        return base ** x.to(torch.float64)
    if not base > 0 or math.isinf(base):
        raise NotLinear(f"the power of {base:g} is no function of real numbers")
    return scaled.stretched(b, x, smooth.exp(), math.log(base), 1.0)


def raise_to(b: Builder, x: Operand | float, y: Operand | float) -> Operand | Cubic:
    """``x^y``, one of them a number."""
    if isinstance(y, Value):
        if isinstance(x, Value) or (isinstance(x, Tensor) and not _same(x)):
            raise NotLinear("a power whose base and exponent both vary is not supported")
        return exponential(b, float(x.reshape(-1)[0]) if isinstance(x, Tensor) else float(x), y)
    if isinstance(x, Value):
        if isinstance(y, Tensor) and not _same(y):
            raise NotLinear("powers that differ from entry to entry are not supported")
        return power(b, x, float(y.reshape(-1)[0]) if isinstance(y, Tensor) else float(y))
    base, exponent = (torch.as_tensor(v, dtype=torch.float64) for v in (x, y))
    return base**exponent


def _same(x: Tensor) -> bool:
    return x.numel() > 0 and bool((x == x.reshape(-1)[0]).all())


def _root(b: Builder, x: Value) -> products.Scaled:
    """What a value is a multiple of."""
    *_, last = products.roots(b, x.node)
    return last


def multiply(b: Builder, x: Operand | Pending, y: Operand | Pending) -> Operand | Pending:
    """A product in which powers take part, or become one."""
    if isinstance(y, Pending):
        x, y = y, x
    if isinstance(x, Value) and isinstance(y, Value) and x.shape == y.shape:
        one, two = _root(b, x), _root(b, y)
        if one.node == two.node:
            return Cubic(Value(one.node, x.shape), (0.0, 0.0, one.scale * two.scale, 0.0))
    if isinstance(x, Pending) or isinstance(y, Pending):
        return _multiply(b, x, y)
    return products.multiply(b, x, y)


def _multiply(b: Builder, x: Operand | Pending, y: Operand | Pending) -> Operand | Pending:
    multiple = _part(b, x, y)
    if isinstance(x, Cubic) and multiple is not None:
        c0, c1, c2, c3 = x.coefficients
        s, t = multiple.scale, multiple.shift
        if s * c3 == 0:
            return Cubic(x.z, (t * c0, t * c1 + s * c0, t * c2 + s * c1, t * c3 + s * c2))
    if isinstance(x, CubicTanh) and multiple is not None:
        if multiple.node < 0:
            return replace(x, scale=x.scale * multiple.shift, shift=x.shift * multiple.shift)
        if multiple.shift == 0:
            return _gelu(b, x, multiple.scale)
    return products.multiply(b, *(settle(b, v) if isinstance(v, Pending) else v for v in (x, y)))


def add(b: Builder, x: Operand | Pending, y: Operand | Pending, alpha: float = 1.0) -> Operand | Pending:
    """``x + alpha y`` where powers take part."""
    first, second = 1.0, alpha
    if isinstance(y, Pending):
        x, y, first, second = y, x, alpha, 1.0
    if isinstance(x, Pending) or isinstance(y, Pending):
        multiple = _part(b, x, y)
        if isinstance(x, Cubic) and multiple is not None:
            return x.times(first).plus(second * multiple.shift, second * multiple.scale)
        if isinstance(x, CubicTanh) and multiple is not None and multiple.node < 0:
            return replace(x, scale=x.scale * first, shift=x.shift * first + second * multiple.shift)
        one, two = (settle(b, v) if isinstance(v, Pending) else v for v in (x, y))
        return arithmetic.add(b, arithmetic.multiply(b, one, _number(first)), two, second)
    return arithmetic.add(b, x, y, alpha)


def _part(b: Builder, x: Operand | Pending, y: Operand | Pending) -> products.Scaled | None:
    """``y`` as a straight line in what ``x`` is a function of, or (node -1) as a number; None if it is neither."""
    if isinstance(y, Tensor):
        same = y.numel() > 0 and bool((y == y.reshape(-1)[0]).all())
        return products.Scaled(-1, 0.0, float(y.reshape(-1)[0])) if same else None
    if not isinstance(x, (Cubic, CubicTanh)) or not isinstance(y, Value) or y.shape != x.z.shape:
        return None
    part = products.as_scaled(b, y.node, x.z.node)
    return part if part.node == x.z.node else None


def _reason(*operands: Operand | Pending) -> str:
    return next(x.reason for x in operands if isinstance(x, Pending))


def tanh(b: Builder, x: Operand | Pending) -> Operand | CubicTanh:
    """Of a value, or of the cubic that tanh-GELU has inside."""
    if isinstance(x, Tensor):
        return x.tanh()
    if isinstance(x, Value):
        return b.activate(x, smooth.tanh())
    if isinstance(x, Cubic):
        c0, c1, c2, c3 = x.coefficients
        if c3 == 0:
            return b.activate(as_value(b, settle(b, x)), smooth.tanh())
        k = c1 / _TANH
        cube = c3 / (_TANH * k**3) if k != 0 else 0.0
        if c0 == c2 == 0 and math.isclose(cube, GELU_CUBE, rel_tol=_SAME_SHAPE):
            return CubicTanh(x.z, k, cube, 1.0, 0.0)
    raise NotLinear(_reason(x))


def _gelu(b: Builder, gate: CubicTanh, factor: float) -> Operand:
    """``factor z (scale tanh(...) + shift)``, where ``shift = scale``: ``z (1 + tanh) = 2 gelu(k z) / k``."""
    if gate.shift != gate.scale:
        raise NotLinear(gate.reason)
    # The factor k is c1 / sqrt(2/pi), rounded: where cube is a roundoff from the number it stands for, it is that one.
    cube = GELU_CUBE if math.isclose(gate.cube, GELU_CUBE, rel_tol=1e-15) else gate.cube
    return scaled.stretched(b, gate.z, smooth.gelu_tanh(cube), gate.k, 2 * factor * gate.scale / gate.k)
