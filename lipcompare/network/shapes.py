"""Which axis of a source model's input is the batch axis."""

from __future__ import annotations

from collections.abc import Sequence

from lipcompare.budget import counted
from lipcompare.errors import InvalidInput


def one_of_each(inputs: int, outputs: int) -> None:
    """A network takes one tensor and returns one tensor."""
    if (inputs, outputs) != (1, 1):
        raise InvalidInput(
            f"The model takes {counted(inputs, 'input')} and returns {counted(outputs, 'output')}: wrap it so that "
            "both are one tensor."
        )


def one_example(dims: Sequence[int | None], input_shape: Sequence[int] | None) -> tuple[tuple[int, ...], bool]:
    """Input shape of the source for a single example, and whether its axis 0 is a batch axis.

    Args:
        dims: axes of the source's input; None where the size is dynamic.
        input_shape: shape of one example without the batch axis, if the caller gave one.

    Raises:
        InvalidInput: a dynamic axis other than the batch, an ambiguous first axis, or shapes that do not fit.
    """
    shown = "(" + ", ".join("?" if n is None else str(n) for n in dims) + ("," if len(dims) == 1 else "") + ")"
    if input_shape is not None:
        wanted = tuple(int(n) for n in input_shape)
        if _fits(dims, wanted):
            return wanted, False
        if len(dims) and dims[0] in (None, 1) and _fits(dims[1:], wanted):
            return (1, *wanted), True
        hint = ""
        if len(dims) and _fits(dims[1:], wanted):
            hint = f"; it was exported for a fixed batch of {dims[0]}, so export it again with batch size 1"
        raise InvalidInput(f"input_shape {wanted} does not fit the model's input of shape {shown}{hint}.")
    batched = len(dims) >= 2 and dims[0] in (None, 1)
    rest = dims[1:] if batched else dims
    if any(n is None for n in rest):
        raise InvalidInput(
            f"The model's input has dynamic axes other than the batch, {shown}: give input_shape, the shape of one "
            "example."
        )
    if len(dims) >= 2 and not batched:
        raise InvalidInput(
            f"The first axis of the model's input {shown} may be a batch of {dims[0]}: export it again with batch "
            f"size 1, or give input_shape={tuple(dims)} if this is the shape of one example."
        )
    fixed = tuple(int(n) for n in rest if n is not None)
    return ((1, *fixed), True) if batched else (fixed, False)


def _fits(dims: Sequence[int | None], wanted: Sequence[int]) -> bool:
    return len(dims) == len(wanted) and all(n is None or n == w for n, w in zip(dims, wanted, strict=True))
