"""The linear bounds of a whole batch: what ``lbp`` ends with, and what every sharper method begins with.

The same code in the same share of the time, so that no method that goes on from here is looser than ``lbp``. What this
leaves of the time is theirs. All examples come first, together where memory allows, so that a batch for which the time
is short has a bound everywhere before anything is done about one of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from lipcompare.budget import Clock, Copies, Deadline, Kept, counted, fitting, tensor_bytes
from lipcompare.errors import BeyondMemory
from lipcompare.gates import Gates
from lipcompare.jacobian import RELAXATIONS, Relaxation, interval_gradient
from lipcompare.jacobian.norms import interval_norm
from lipcompare.methods.base import REFINING, as_array, pieces, propagation_bytes
from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.problem import Problem
from lipcompare.propagation import Enough, Propagated, propagate

LBP = "lbp"
"""The relaxation that sharper methods begin with."""


@dataclasses.dataclass(frozen=True, eq=False)
class Linear:
    """The linear bounds of a batch, and how they came about.

    Attributes:
        problem: what was bounded, in the precision of the bounds.
        tightening: of the pre-activations, at least.
        upper: (batch, rows).
        hurried: whether the time ran out before they were as tight as they could be.
        remarks: what there is to say of their precision.
        seconds: what an example took, of all of them together.
        stages: the stages of propagation, where all examples fitted in memory together.
    """

    problem: Problem
    tightening: Tightening
    relaxation: Relaxation
    joint: bool
    upper: Tensor
    hurried: bool
    remarks: tuple[str, ...]
    seconds: float
    stages: Propagated | None

    def part(self, first: int, count: int = 1) -> Linear:
        """Those of some consecutive examples."""
        if count == self.problem.batch:
            return self
        some = slice(first, first + count)
        stages = None if self.stages is None else self.stages.part(some)
        return dataclasses.replace(
            self, problem=self.problem.slice(first, first + count), upper=self.upper[some], stages=stages
        )

    def propagated(self, memory: int, seconds: float = math.inf) -> Propagated:
        """The stages of propagation; made again in that time where they were too many to be kept."""
        if self.stages is not None:
            return self.stages
        stages = propagate(
            self.problem, self.tightening, self.relaxation, joint=self.joint, memory=memory, seconds=seconds
        )
        return dataclasses.replace(stages, upper=torch.minimum(stages.upper, self.upper))

    def leave_little(self, seconds: float) -> bool:
        """Whether so many seconds are little for what is sharper, which then comes before anything else."""
        return seconds < _ROOM * self.problem.batch * self.seconds

    @property
    def ahead(self) -> float:
        """Seconds that :meth:`propagated` takes, about."""
        return self.problem.batch * self.seconds if self.stages is None else 0.0


COARSE = "Rounding is over 1 % of some bounds in this precision: float64 gives tighter ones."
AGAIN = "Rounding is over 1 % of some bounds in this precision: these are from float64."
_CHEAP = 1e9
"""Multiply-adds (examples, neurons, weights) up to which such bounds are computed again at once."""

_SMALL = 2**24
"""Bytes that are never refused: the libraries take more when they are loaded."""

_ROOM = 10
"""Times that linear bounds took: with less than this, sharper bounds of the same box may take all of the time."""


def linear_bounds(
    problem: Problem,
    clock: Clock,
    tightening: Tightening = Tightening.ALPHA_CROWN,
    relaxation: Relaxation = RELAXATIONS[LBP],
    *,
    joint: bool = True,
    enough: Enough | None = None,
) -> Linear:
    """Problem -> pre-activations -> gates -> Jacobian bound of every example, each of which is kept at once.

    Where single precision costs much of the bounds and double precision costs little, the better of both.

    Args:
        joint, enough: as for :func:`~lipcompare.propagation.propagate`.

    Raises:
        BeyondMemory: the gradients of one example are more than fit; what interval arithmetic says is kept.
    """
    began, memory, whole = clock.elapsed, clock.budget.memory, problem.batch
    uppers: list[Tensor] = []
    remarks: set[str] = set()
    stages: Propagated | None = None
    reached, hurried = tightening, False
    _require_room(problem, clock)
    for piece in pieces(problem, clock, propagation_bytes(problem)):

        def told(upper: Tensor, first: int = piece.first, some: int = piece.problem.batch) -> None:
            clock.keep(Kept(first, as_array(upper)))
            if some == whole:
                clock.record(0.0, float(upper.max()))

        def passed(part: Problem, seconds: float, report: Callable[[Tensor], None] = told) -> Propagated:
            return propagate(
                part, tightening, relaxation, joint=joint, memory=memory, seconds=seconds, enough=enough, report=report
            )

        ends = Deadline.after(REFINING * piece.seconds)
        stages = passed(piece.problem, ends.left)
        upper = stages.upper
        if problem.dtype is not torch.float64 and stages.coarse(piece.problem):
            again = _cost(piece.problem) <= _CHEAP and not stages.hurried and not ends.passed()
            remarks.add(AGAIN if again else COARSE)
            if again:
                stages = passed(piece.problem.double(), ends.left)
                upper = torch.minimum(upper.double(), stages.upper)
        clock.keep(Kept(piece.first, as_array(upper)))
        uppers.append(upper)
        hurried |= stages.hurried
        if stages.tightening is not tightening:
            reached = stages.tightening
    clock.record(0.0, float(max(upper.max() for upper in uppers)))
    return Linear(
        problem=problem,
        tightening=reached,
        relaxation=relaxation,
        joint=joint,
        upper=torch.cat(uppers),
        hurried=hurried,
        remarks=tuple(sorted(remarks)),
        seconds=(clock.elapsed - began) / whole,
        stages=stages if len(uppers) == 1 else None,
    )


def _require_room(problem: Problem, clock: Clock) -> None:
    """Whether the gradients of one example's rows, at every activation and the input, fit in the memory limit."""
    network, memory = problem.network, clock.budget.memory
    size = network.in_size + sum(network.nodes[k].size for k in network.activations)
    needed = tensor_bytes(Copies.STATE, problem.rows * size, problem.box.lower)
    if needed <= max(memory, _SMALL):
        return
    each = tensor_bytes(Copies.EXAMPLE, problem.batch * network.widest, problem.box.lower)
    bounds = preactivation_bounds(network, problem.box.region, Tightening.INTERVAL, memory=memory)
    gates = Gates.from_preactivations(network, bounds)
    upper = torch.cat(
        [
            interval_norm(interval_gradient(network, gates, some), problem.norm)
            for some in problem.functionals.split(fitting(memory, each), 1)
        ],
        -1,
    )
    clock.keep(Kept(0, as_array(upper)))
    clock.record(0.0, float(upper.max()))
    raise BeyondMemory(
        f"The gradients of {counted(problem.rows, 'functional')} take {-(-needed // 2**20):,} MiB, more than the "
        f"memory limit of {memory / 2**20:,.0f} MiB: raise it (--memory on the command line, memory=... in Python) or "
        "ask for fewer functionals at a time."
    )


def _cost(problem: Problem) -> float:
    """Of a backward pass for all pre-activations."""
    return float(problem.batch) * problem.network.neurons * problem.network.products
