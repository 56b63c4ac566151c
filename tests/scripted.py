"""A method that does what a test tells it to: for tests of what runs methods."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, final

import numpy as np

from lipcompare import Bound, Method, Problem, Status
from lipcompare.budget import Budget, Clock
from lipcompare.witness import make_witnesses


@final
@dataclasses.dataclass(frozen=True)
class Scripted(Method):
    """A method that does what the test tells it to."""

    name: ClassVar[str] = "scripted"
    proves: ClassVar[str] = "exact"
    summary: ClassVar[str] = "for tests"
    reference: ClassVar[str] = "none"

    failure: str = ""
    low: float = 1.0
    high: float = 2.0

    def supports(self, problem: Problem) -> str | None:
        return "Told to refuse." if self.failure == "refuse" else None

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        if self.failure == "memory":
            raise MemoryError
        if self.failure == "torch memory":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")
        if self.failure == "bug":
            raise RuntimeError("index out of range")
        if self.failure == "interrupt":
            raise KeyboardInterrupt
        shape = (problem.batch, problem.rows)
        status = Status.EXACT if self.failure == "exact" else Status.COMPLETE
        witnesses = None
        if self.failure == "witness":
            points = problem.box.interval.center.unsqueeze(1).expand(-1, problem.rows, -1)
            witnesses = make_witnesses(problem, points)
        return self.result(
            problem,
            clock,
            lower=np.full(shape, self.low),
            upper=np.full(shape, self.high),
            status=status,
            witnesses=witnesses,
        )
