"""The interface of a method, and what every method needs: a budget, a clock, and a way to state its result."""

from __future__ import annotations

import dataclasses
import math
import platform
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lipcompare.budget import Budget, Clock, Copies, Kept, fitting, tensor_bytes
from lipcompare.domain import NormBall, Space
from lipcompare.errors import InvalidInput
from lipcompare.problem import Problem
from lipcompare.result import Bound, Status, Witnesses

HURRIED = "Some intervals are those of interval arithmetic: more time, or a cheaper tightening, may help."
"""Detail of a result whose refinements did not all fit in the time."""
INFINITE = "Some bounds are infinite: numbers on the way to them are out of range, or slopes have no bound."
"""Detail of a result that ran to its end and has no number."""


class Method(ABC):
    """A way to bound local Lipschitz constants. Subclasses are final frozen dataclasses; their fields are options."""

    name: ClassVar[str]
    proves: ClassVar[str]
    """``upper``, ``lower``, ``exact``, or ``interval`` (both ends, not always exact)."""
    summary: ClassVar[str]
    """One line for the list of methods."""
    reference: ClassVar[str]
    """Key in CITATIONS.bib."""
    balls: ClassVar[bool] = False
    """Whether its points stay inside l_1 and l_2 balls (an upper bound needs no such care: the box around does)."""
    everywhere: ClassVar[bool] = False
    """Whether it works on the whole space."""

    def domain_reason(self, problem: Problem) -> str | None:
        """None if the method works on this kind of domain, else a sentence that says why not."""
        if isinstance(problem.box, Space) and not self.everywhere:
            return "It needs a bounded set of inputs: give a box."
        if isinstance(problem.box, NormBall) and not self.balls and self.proves != "upper":
            return f"It searches boxes, not l_{problem.box.norm.value} balls: give a box."
        return None

    def upper_result(self, problem: Problem, clock: Clock, upper: Tensor, hurried: bool) -> Bound:
        """The result of a method that only bounds from above; ``hurried``: whether the time ran out on the way."""
        status, detail = (Status.TIME_LIMIT, HURRIED) if hurried else (Status.COMPLETE, "")
        return self.result(problem, clock, upper=upper, status=status, detail=detail)

    def at_least(self, least: int, *names: str) -> None:
        """Refuse options below that; None stands for a default.

        Raises:
            InvalidInput: one of them is.
        """
        for name in names:
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise InvalidInput(f"Option {name!r} of {self.name!r} cannot be {value!r}: at least {least}.")

    @abstractmethod
    def supports(self, problem: Problem) -> str | None:
        """None if the method applies to the problem, else a sentence that says why not."""

    @abstractmethod
    def run(self, problem: Problem, budget: Budget) -> Bound:
        """Bound the problem. Call it through :func:`lipcompare.bound`, which checks and completes the result."""

    def result(
        self,
        problem: Problem,
        clock: Clock,
        *,
        lower: Tensor | np.ndarray | None = None,
        upper: Tensor | np.ndarray | None = None,
        status: Status = Status.COMPLETE,
        detail: str = "",
        witnesses: Witnesses | None = None,
    ) -> Bound:
        """The result of a run of this method, in the shapes that :class:`Bound` wants; missing ends prove nothing."""
        shape = (problem.batch, problem.rows)
        low = np.zeros(shape) if lower is None else as_array(lower)
        high = np.full(shape, np.inf) if upper is None else as_array(upper)
        if upper is not None and status is Status.COMPLETE and not detail and not np.isfinite(high).all():
            detail = INFINITE
        clock.keep(Kept(0, high, witnesses))
        if not clock.trace or clock.trace[-1][1:] != (low.max(), high.max()):
            clock.record(float(low.max()), float(high.max()))
        return Bound(
            lower=low,
            upper=high,
            status=status,
            method=self.name,
            seconds=clock.elapsed,
            detail=detail,
            options=options_of(self),
            trace=tuple(clock.trace),
            witnesses=witnesses,
            device=str(problem.device),
            dtype=str(problem.dtype).removeprefix("torch."),
            versions=versions(),
        )


def options_of(method: Method) -> dict[str, Any]:
    """The fields of a method as plain values."""
    return {f.name: getattr(method, f.name) for f in dataclasses.fields(method)}  # type: ignore[arg-type]


def changed_options(method: Method) -> dict[str, Any]:
    """Those of them that are not the default."""
    defaults = {f.name: f.default for f in dataclasses.fields(method)}  # type: ignore[arg-type]
    return {name: value for name, value in options_of(method).items() if value != defaults[name]}


@cache
def versions() -> dict[str, str]:
    """Versions of this package, of Python and of what computes."""
    found = {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}
    for package in ("lipcompare", "scipy", "highspy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


class Piece(NamedTuple):
    """Some consecutive examples of a batch that are bounded together.

    Attributes:
        problem: the problem of these examples.
        first: the first of them.
        seconds: their share of the time that is left when their turn comes.
    """

    problem: Problem
    first: int
    seconds: float


REFINING = 0.9
"""Share of the time for refining intervals; the rest is for what cannot be left out."""


def pieces(problem: Problem, clock: Clock, bytes_each: int) -> Iterator[Piece]:
    """The batch in pieces whose work fits in memory, ``bytes_each`` for one example."""
    size = fitting(clock.budget.memory, bytes_each)
    if problem.batch <= size:
        yield Piece(problem, 0, clock.left)
        return
    for start in range(0, problem.batch, size):
        some = problem.slice(start, start + size)
        left = clock.left
        yield Piece(some, start, left if math.isinf(left) else left * some.batch / (problem.batch - start))


def propagation_bytes(problem: Problem) -> int:
    """What bound propagation takes per example."""
    return tensor_bytes(Copies.EXAMPLE, problem.rows * problem.network.widest, problem.box.lower)


def joined(parts: Iterable[Tensor]) -> Tensor:
    """The pieces' tensors as one batch."""
    return torch.cat(list(parts))


def as_array(values: Tensor | np.ndarray) -> np.ndarray:
    """The values in float64 on the CPU."""
    array: np.ndarray = (
        values.detach().cpu().double().numpy() if isinstance(values, Tensor) else np.asarray(values, float)
    )
    return array
