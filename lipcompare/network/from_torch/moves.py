"""ATen operators that only move entries, and how any of them is lowered: by running it on labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lipcompare.network.lowering.builder import Builder, NotLinear, Operand, Value, rearrange

_NAMES = """
    view reshape _unsafe_view _reshape_alias view_as reshape_as flatten unflatten squeeze unsqueeze ravel
    permute transpose t mT adjoint numpy_T movedim moveaxis swapaxes swapdims
    select slice narrow index_select gather take_along_dim index take diagonal unfold im2col
    split split_with_sizes chunk unbind tensor_split unsafe_split unsafe_chunk unsafe_split_with_sizes
    expand expand_as broadcast_to repeat tile repeat_interleave flip fliplr flipud roll rot90
    pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle
    upsample_nearest1d upsample_nearest2d upsample_nearest3d
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
    reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d
    cat concat concatenate stack hstack vstack dstack column_stack
    slice_scatter select_scatter diagonal_scatter index_put copy fill where masked_fill tril triu
    alias detach clone contiguous lift_fresh_copy lift_fresh
"""
# Result entries are copies of operand entries (or zeros).
MOVEMENTS = frozenset(f"aten.{name}" for name in _NAMES.split())


def is_movement(operation: str) -> bool:
    """Whether the operator only moves entries."""
    return operation in MOVEMENTS


def aten(target: str) -> torch._ops.OpOverload[..., Any]:
    """The ATen operator of that name (``aten.add.Tensor``), if it is a function of its arguments alone.

    Raises:
        NotLinear: it is not an ATen operator, or it draws random numbers or reads files.
    """
    parts = target.split(".")
    if parts[0] != "aten" or len(parts) != 3 or parts[1] == "from_file":
        raise NotLinear("")
    packet = getattr(torch.ops.aten, parts[1], None)
    overload = getattr(packet, parts[2], None)
    if not isinstance(overload, torch._ops.OpOverload):
        raise NotLinear("")
    if torch.Tag.nondeterministic_seeded in overload.tags:
        raise NotLinear("it draws random numbers")
    return overload


def move(b: Builder, target: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run an operator that moves entries on labels, and read off where each entry went."""
    operation = aten(target)
    if target.startswith("aten.index_put") and (kwargs.get("accumulate") or any(a is True for a in args)):
        raise NotLinear("index_put that accumulates is not supported")
    operands: list[Operand] = []

    def collect(item: Any) -> Any:
        if isinstance(item, Value) or (isinstance(item, Tensor) and item.is_floating_point()):
            operands.append(item)
            return _Slot(len(operands) - 1)
        if isinstance(item, (list, tuple)):
            return [collect(part) for part in item]
        return item

    template = collect(args)
    for shape in result_shapes(target, args, kwargs):
        b.require(shape, copies=4)
    named = {k: v for k, v in kwargs.items() if k not in ("dtype", "device", "layout", "pin_memory")}

    def run(*labels: Tensor) -> Any:
        return operation(*_fill(template, labels), **named)

    results = run(*(torch.zeros(tuple(o.shape), dtype=torch.float64) for o in operands))
    if isinstance(results, Tensor):
        return rearrange(b, operands, run)
    return [rearrange(b, operands, lambda *labels, i=i: run(*labels)[i]) for i in range(len(results))]


def result_shapes(target: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """Shapes of an operator's results, by running it on tensors without memory; none where they depend on numbers."""

    def without_memory(item: Any) -> Any:
        if isinstance(item, (Value, Tensor)):
            dtype = item.dtype if isinstance(item, Tensor) else torch.float64
            return torch.empty(tuple(item.shape), dtype=dtype, device="meta")
        if isinstance(item, (list, tuple)):
            return [without_memory(part) for part in item]
        return item

    operation = aten(target)
    named = {k: without_memory(v) for k, v in kwargs.items() if k not in ("device", "pin_memory", "layout")}
    if any(argument.name == "device" for argument in operation._schema.arguments):
        named["device"] = torch.device("meta")
    try:
        results = operation(*without_memory(args), **named)
    except (NotImplementedError, RuntimeError):
        if target.startswith(_GROWING):
            raise NotLinear("the size of its result depends on the numbers in its operands") from None
        return []  # no more entries than its operands have, or an error that the real call repeats
    found = results if isinstance(results, (list, tuple)) else [results]
    return [tuple(r.shape) for r in found if isinstance(r, Tensor)]


# What returns more entries than it is given, as many as the numbers in its operands say.
_GROWING = ("aten.repeat_interleave", "aten.one_hot", "aten.bincount")


class _Slot(int):
    """Place of an operand in a template of arguments."""


def _fill(template: Any, labels: Sequence[Tensor]) -> Any:
    if isinstance(template, _Slot):
        return labels[template]
    return [_fill(part, labels) for part in template] if isinstance(template, list) else template
