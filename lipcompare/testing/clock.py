"""Clocks in place of the machine's: the processor's, and one that runs with the work, so that the same computation
takes the same time on any machine and whatever else runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

_CALL, _ENTRY, _PRODUCT = 5e-6, 5e-10, 1.5e-10
"""Seconds of a call, of a number that it reads or makes, and of an operation of a matrix product: one core, about."""
_ASKED = 1e-6
"""Seconds that a question of the clock takes, so that no loop which asks it goes on for ever."""


@contextlib.contextmanager
def processor() -> Iterator[None]:
    """The processor's clock in place of ``time.perf_counter``: limits and shares of time mean what they mean on an idle
    machine. What other processes and solvers that ask the machine do is not on it."""
    machine, time.perf_counter = time.perf_counter, time.process_time
    try:
        yield
    finally:
        time.perf_counter = machine


class WorkClock(TorchDispatchMode):
    """Stands in for ``time.perf_counter`` as a context, and counts what torch computes in this thread.

    Two methods that begin with the same work then end it at the same moment, so that which is tighter does not depend
    on the machine. What numpy and solvers do takes no time.

    Attributes:
        seconds: since the start.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seconds = 0.0
        self._machine: Callable[[], float] = time.perf_counter

    def now(self) -> float:
        """The time; asking takes some."""
        self.seconds += _ASKED
        return self.seconds

    def __enter__(self) -> WorkClock:
        self._machine, time.perf_counter = time.perf_counter, self.now
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, value, trace)  # type: ignore[no-untyped-call]
        time.perf_counter = self._machine

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        entries = sum(each.numel() for each in (*args, made) if isinstance(each, Tensor))
        products = flop_registry.get(func._overloadpacket)
        work = products(*args, **(kwargs or {}), out_val=made) if products is not None else 0
        self.seconds += _CALL + _ENTRY * entries + _PRODUCT * work
        return made
