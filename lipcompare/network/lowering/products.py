"""Products and quotients of two values that are activations in disguise.

Exporters write ``z sigmoid(z)`` and its like as the product of two values. Such a product is recognised by walking back
from one factor to the other through at most two activations and constants that are the same for every entry.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from lipcompare.network.activations import LeakyReLU, Smooth, smooth
from lipcompare.network.graph import Activate, Affine
from lipcompare.network.linear_maps import Identity, LinearMap, Scale
from lipcompare.network.lowering import arithmetic
from lipcompare.network.lowering.builder import Builder, Operand, Value
from lipcompare.network.lowering.scaled import stretched


def multiply(b: Builder, x: Operand, y: Operand) -> Operand:
    """``x y`` entry by entry: one of them constant, or one a function of the other that makes the product known."""
    if isinstance(x, Value) and isinstance(y, Value) and x.shape == y.shape:
        for factor, gate in ((x, y), (y, x)):
            for root in roots(b, factor.node):
                form = _gate(b, gate.node, root.node)
                if form is not None and (made := _gated(b, Value(root.node, x.shape), form, root.scale)) is not None:
                    return made
                clip = _clip(b, gate.node, root.node)
                if clip is not None and clip.high == -clip.low and clip.base == 0:
                    # z clip(z + w, 0, 2 w) = 2 w k^2 hardswish(z / k) with k = w / 3
                    k = clip.high / 3
                    outer = root.scale * clip.slope * 2 * clip.high * k
                    return stretched(b, Value(root.node, x.shape), smooth.hardswish(), 1 / k, outer)
    return arithmetic.multiply(b, x, y)


def divide(b: Builder, x: Operand, y: Operand) -> Operand:
    """``x / y`` with a constant ``y``, or ``x / (1 + |x|)``."""
    if isinstance(x, Value) and isinstance(y, Value) and x.shape == y.shape:
        for root in roots(b, x.node):
            form = _gate(b, y.node, root.node)
            if form is not None and form.names == ("abs",) and form.scale > 0 and form.shift > 0:
                # x / (t + s |c x|) = softsign(k x) / (k t) with k = s |c| / t
                k = form.scale * abs(form.inner) / form.shift
                return stretched(b, Value(root.node, x.shape), smooth.softsign(), k, root.scale / (k * form.shift))
    return arithmetic.divide(b, x, y)


class _Gate(NamedTuple):
    """``scale g(inner z) + shift``, or with two activations ``scale g(h(inner z)) + shift``."""

    names: tuple[str, ...]
    inner: float
    scale: float
    shift: float


def _gated(b: Builder, z: Value, form: _Gate, factor: float) -> Operand | None:
    """``factor z`` times the gate."""
    names, inner, scale, shift = form
    even, scale = shift == scale, factor * scale
    if names == ("sigmoid",) and shift == 0:
        return stretched(b, z, smooth.silu(), inner, scale / inner)
    if names == ("tanh", "softplus") and shift == 0 and inner == 1:
        return stretched(b, z, smooth.mish(), 1.0, scale)
    if names == ("erf",) and even:
        # z (1 + erf(c z)) = 2 z Phi(sqrt 2 c z)
        wide = math.sqrt(2) * inner
        return stretched(b, z, smooth.gelu(), wide, 2 * scale / wide)
    if names == ("tanh",) and even:
        # 1 + tanh(c z) = 2 sigmoid(2 c z)
        return stretched(b, z, smooth.silu(), 2 * inner, scale / inner)
    return None


def _gate(b: Builder, y: int, z: int) -> _Gate | None:
    """Node ``y`` as a function of node ``z``, if constants that are the same for every entry lead there."""
    outer = as_scaled(b, y, z)
    names: list[str] = []
    node, inner, offset = outer.node, 1.0, 0.0
    while node != z:
        item = b.nodes[node]
        name = _name(item) if isinstance(item, Activate) and len(names) < 2 else None
        if name is None or (names and inner != 1):
            return None
        names.append(name)
        assert isinstance(item, Activate)
        node, inner, offset = as_scaled(b, item.parent, z)
        if offset != 0 or inner == 0:
            return None
    return _Gate(tuple(names), inner, outer.scale, outer.shift) if names and outer.scale != 0 else None


class _Clip(NamedTuple):
    """``base + slope * (clip(z, low, high) - low)``."""

    low: float
    high: float
    base: float
    slope: float


def _clip(b: Builder, y: int, z: int) -> _Clip | None:
    """Node ``y`` as a clipped node ``z``: the difference of two ReLUs of shifted copies."""
    outer = as_scaled(b, y, z)
    item = b.nodes[outer.node]
    if not isinstance(item, Affine) or len(item.parents) != 2 or item.bias is not None:
        return None
    turns = []
    base = outer.shift
    for parent, m in item.terms:
        factor = factor_of(m)
        kink = as_scaled(b, parent, z)
        relu = b.nodes[kink.node]
        if factor is None or not isinstance(relu, Activate):
            return None
        if not isinstance(relu.activation, LeakyReLU) or relu.activation.alpha != 0.0:
            return None
        shifted = as_scaled(b, relu.parent, z)
        if shifted.node != z or shifted.scale <= 0:
            return None
        base += outer.scale * factor * kink.shift
        turns.append((-shifted.shift / shifted.scale, outer.scale * factor * kink.scale * shifted.scale))
    (low, slope), (high, back) = sorted(turns)
    return _Clip(low, high, base, slope) if slope == -back != 0 else None


def _name(item: Activate) -> str | None:
    if isinstance(item.activation, Smooth):
        return item.activation.name
    return "abs" if isinstance(item.activation, LeakyReLU) and item.activation.alpha == -1.0 else None


class Scaled(NamedTuple):
    """``scale * value of node + shift``."""

    node: int
    scale: float
    shift: float


def as_scaled(b: Builder, node: int, stop: int) -> Scaled:
    """What a node is a multiple of plus a constant, both equal for all entries, as far back as ``stop``."""
    scaled = Scaled(node, 1.0, 0.0)
    while scaled.node != stop and (before := _step(b, scaled)) is not None:
        scaled = before
    return scaled


def roots(b: Builder, node: int) -> Iterator[Scaled]:
    """The node, and what it is a multiple of."""
    scaled: Scaled | None = Scaled(node, 1.0, 0.0)
    while scaled is not None and scaled.shift == 0 and scaled.scale != 0:
        yield scaled
        scaled = _step(b, scaled)


def _step(b: Builder, scaled: Scaled) -> Scaled | None:
    item = b.nodes[scaled.node]
    if not isinstance(item, Affine) or len(item.parents) != 1:
        return None
    factor, offset = factor_of(item.maps[0]), 0.0
    if factor is None:
        return None
    if item.bias is not None:
        offset = float(item.bias[0])
        if not bool((item.bias == offset).all()):
            return None
    return Scaled(item.parents[0], scaled.scale * factor, scaled.shift + scaled.scale * offset)


def factor_of(m: LinearMap) -> float | None:
    """The number by which a map multiplies every entry, if it does no more than that."""
    if isinstance(m, Scale) and bool((m.factor == m.factor[0]).all()):
        return float(m.factor[0])
    return 1.0 if isinstance(m, Identity) else None
