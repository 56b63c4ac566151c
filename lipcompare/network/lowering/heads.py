"""Heads that no bound is asked for: softmax, which classifiers end in."""

from __future__ import annotations

from typing import NoReturn

from lipcompare.errors import InvalidInput
from lipcompare.network.lowering.builder import NotLinear


def softmax(*_: object, **__: object) -> NoReturn:
    """Softmax and its logarithm mix their entries by products: no linear map, and no elementwise activation."""
    raise NotLinear(
        "bound the logits that a softmax reads; where it is the model's last operation, load(..., logits=True) or "
        "--logits leaves it out"
    )


def no_softmax(last: str) -> InvalidInput:
    """What to say to somebody who asks for logits of a model that ends in something else."""
    return InvalidInput(
        f"logits=True (--logits) leaves out a softmax at the end, and the model ends in {last!r}: drop it."
    )
