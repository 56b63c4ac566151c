"""Operations that people meet often and that no network here can hold: the reason, where the name alone says little."""

from __future__ import annotations

from typing import NoReturn

from lipcompare.network.lowering.builder import NotLinear


def attention(*_: object, **__: object) -> NoReturn:
    """Attention: its weights and what they weigh both depend on the input."""
    raise NotLinear("attention multiplies values that both depend on the input: bound the part of the model before it")


def normalisation(*_: object, **__: object) -> NoReturn:
    """LayerNorm and its kin: they divide by statistics of their own input."""
    raise NotLinear(
        "normalisation by the statistics of its input is not piecewise linear, and has no bound here; batch norm with "
        "running statistics has"
    )
