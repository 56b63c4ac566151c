"""What a run may spend: time, memory, progress; and the one clock for everything that may be stopped."""

from __future__ import annotations

import dataclasses
import enum
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class TracePoint(NamedTuple):
    """The overall interval at one moment, the largest value over the batch of each end."""

    seconds: float
    lower: float
    upper: float


class Kept(NamedTuple):
    """What a run has proved so far about some consecutive examples; it stands whatever ends the run.

    Attributes:
        first: the first of the examples.
        upper: (examples, rows).
        witnesses: :class:`~lipcompare.result.Witnesses` of these examples, if there are any yet.
    """

    first: int
    upper: np.ndarray
    witnesses: Any = None


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a method may spend, when it may stop, and whom it tells.

    Attributes:
        time_limit: seconds of wall clock; methods that cannot stop midway run to their end.
        gap: relative gap at which an interval counts as exact.
        memory: bytes of working memory that batched passes respect.
        threads: processors for searches that can share their work; torch's own threads are set apart from this.
        on_progress: called with each point of the trace.
        on_note: called with what a search is doing, in words.
        on_kept: called with what is proved so far, or with a function that says so when it is asked at the end.
    """

    time_limit: float = float("inf")
    gap: float = 1e-4
    memory: int = 2**30
    threads: int = 1
    on_progress: Callable[[TracePoint], None] | None = None
    on_note: Callable[[str], None] | None = None
    on_kept: Callable[[Kept | Callable[[], Kept]], None] | None = None

    def __post_init__(self) -> None:
        # Numbers of numpy hand their types on to whatever is computed from them: a comparison of times becomes a
        # numpy.bool, which torch takes for a number when it meets a mask.
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.generic):
                object.__setattr__(self, field.name, value.item())


class Clock:
    """Time since the start of a run, against its limit; collects the trace and hands on what is proved so far."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.started = time.perf_counter()
        self.trace: list[TracePoint] = []

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.started

    @property
    def left(self) -> float:
        return self.budget.time_limit - self.elapsed

    def running(self) -> bool:
        return self.left > 0

    def record(self, lower: float, upper: float) -> None:
        """A point of the trace: the overall interval now."""
        point = TracePoint(self.elapsed, lower, upper)
        self.trace.append(point)
        if self.budget.on_progress is not None:
            self.budget.on_progress(point)

    def keep(self, kept: Kept | Callable[[], Kept]) -> None:
        """Have this returned if the run ends before its result: by an interrupt, an error, or for want of memory.

        A search whose state says what it has proved gives a function once; it is asked when the run has ended.
        """
        if self.budget.on_kept is not None:
            self.budget.on_kept(kept)

    def note(self, text: str) -> None:
        """Tell whoever watches what is going on."""
        if self.budget.on_note is not None:
            self.budget.on_note(text)


@dataclasses.dataclass(eq=False)
class Deadline:
    """Asked before every expensive piece of work that a bound can do without.

    Attributes:
        at: in the time of ``time.perf_counter``.
        missed: whether any work was left out because of it.
    """

    at: float = math.inf
    missed: bool = False

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The moment so many seconds from now."""
        return cls(time.perf_counter() + float(seconds))

    @property
    def left(self) -> float:
        """Seconds until then."""
        return self.at - time.perf_counter()

    def passed(self, ahead: float = 0.0) -> bool:
        """True once the moment is less than ``ahead`` seconds away; the caller then leaves its work out."""
        late = time.perf_counter() + ahead > self.at
        self.missed |= late
        return late


_CPU_TILE = 2**24
"""Bytes: passes whose tensors stay in the processor's cache run two to three times faster than larger ones."""

CACHED_ENTRIES = 2**19
"""Numbers (4 MiB of float64) in the matrices of a batch of programs: more fall out of the cache that cores share, and
fewer take their time for calls of operators (docs/performance.md)."""

BLOCK_ENTRIES = 2**24
"""Numbers (128 MiB of float64) in a dense block that is made only to be summed up or stored sparsely."""


_RATE = 3e9
"""Multiply-adds a second that one core does on dense matrices in double precision, about."""


def core_seconds(products: float, device: torch.device) -> float:
    """About how long so many multiply-adds take at the least: for work that cannot ask the clock on its way.

    Nothing is said of accelerators, which are faster by orders of magnitude.
    """
    return products / _RATE if device.type == "cpu" else 0.0


class Copies(enum.IntEnum):
    """Tensors of the size of a pass's widest value that are alive at its peak, for each item that it treats."""

    PLANE = 6
    """CROWN, per functional: it, its parts by sign, their products with the slopes, and the sum that goes on."""
    DESCENT = 12
    """Optimised slopes, per functional and activation: a plane's six, which autograd keeps, and as many for choices,
    their gradients, both moments and what an update makes in between. Splits keep planes and half-spaces likewise."""
    MULTIPLIER = 13
    """The dual simplex method, per functional: its state in single precision, and numbers. Half a one is added for the
    row of every pivot."""
    SUBDOMAIN = 8
    """CROWN over many boxes: a plane's six and both ends."""
    TANGENT = 5
    """The recursion of gradients, per functional: it, its absolute value, what goes on, and two for the constant."""
    STATE = 8
    """The gradients of all neurons, per row: both ends, the lines of the gates, their scale, and what makes them."""
    POINT = 4
    """A gradient at a point: the values and slopes that it is made with, itself and what goes on."""
    SAMPLE = 8
    """Gradients at many points at once, with the ends over them and where those were seen."""
    EXAMPLE = 64
    """All of propagation, per row of an example; generous, as nothing that it calls may run out of memory: intervals,
    lines and gates of all layers, and passes for tiles of targets."""
    PROGRAM = 40
    """The interior point method, in matrices of a program's size: iterate, directions and Newton system; generous."""


def tensor_bytes(copies: int, entries: int, like: Tensor) -> int:
    """Memory of ``copies`` tensors of ``entries`` numbers each, in the precision of ``like``."""
    return copies * entries * like.element_size()


def pass_bytes(memory: int, device: torch.device) -> int:
    """Bytes that one pass should take: all of the budget on an accelerator, a cache-sized tile of it on a CPU."""
    return min(memory, _CPU_TILE) if device.type == "cpu" else memory


def chunk_size(memory: int, device: torch.device, bytes_each: int) -> int:
    """How many items of ``bytes_each`` one pass should treat; at least one."""
    return fitting(pass_bytes(memory, device), bytes_each)


def fitting(memory: int, each: int) -> int:
    """How many items fit, of which each takes so much; at least one."""
    return max(1, memory // max(1, each))


def counted(number: int, noun: str) -> str:
    """A number of things, in words: ``1 box``, ``2 boxes``."""
    plural = {"box": "boxes", "study": "studies", "process": "processes"}.get(noun, f"{noun}s")
    return f"{number} {noun if number == 1 else plural}"


def duration(seconds: float) -> str:
    """``0.3 s``, ``42 s``, ``7 min`` or ``3.5 h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
