"""What a GPU would make the processor wait for, counted without one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Waits(TorchDispatchMode):
    """Counts the operations whose result, or the shape of it, the processor has to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_") and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        if masks or name in ("_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "equal"):
            self.count[name] += 1
        return func(*args, **(kwargs or {}))
