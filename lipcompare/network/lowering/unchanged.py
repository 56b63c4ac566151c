"""Operations that leave a real number as it is, once the model is evaluated."""

from __future__ import annotations

from lipcompare.network.lowering.builder import Builder, NotLinear, Operand


def dropout(x: Operand, *, training: bool) -> Operand:
    """Dropout in evaluation."""
    if training:
        raise NotLinear("dropout in training mode draws random numbers; export the model in evaluation mode")
    return x


def cast(x: Operand, *, to: str | None) -> Operand:
    """A cast between floating-point types; ``to`` is the other type where it is none of them."""
    if to is not None:
        raise NotLinear(f"a cast to {to} is not piecewise linear")
    return x


def same(b: Builder, x: Operand, *_: object, **__: object) -> Operand:
    """``x``."""
    return x
