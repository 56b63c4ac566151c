"""How much memory one batched pass may take."""

from __future__ import annotations

import torch

_CPU_TILE = 2**24
"""Bytes: passes whose tensors stay in the processor's cache run two to three times faster than larger ones."""


def pass_bytes(budget: int, device: torch.device) -> int:
    """Bytes that one pass should take: all of the budget on an accelerator, a cache-sized tile of it on a CPU."""
    return min(budget, _CPU_TILE) if device.type == "cpu" else budget


def chunk_size(budget: int, device: torch.device, bytes_each: int) -> int:
    """How many items of ``bytes_each`` one pass may hold; at least one."""
    return max(1, pass_bytes(budget, device) // max(1, bytes_each))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory left."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error).lower()  # torch's CPU allocator raises a plain RuntimeError
    return "can't allocate memory" in text or "not enough memory" in text or "out of memory" in text
