"""Bounds on single entries of the Jacobian over a domain, and on its product with vectors."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import torch
from torch import Tensor

from lipcompare.budget import Copies, Deadline, core_seconds, fitting, tensor_bytes
from lipcompare.domain import Norm, Space
from lipcompare.errors import InvalidInput, known_keywords
from lipcompare.gates import Gates
from lipcompare.jacobian import Relaxation, interval_gradient, relaxation_named
from lipcompare.jacobian.relaxations import combined
from lipcompare.network.environment import computing
from lipcompare.network.interval import Interval
from lipcompare.preactivation import ForwardBound, Tightening, preactivation_bounds
from lipcompare.problem import Problem
from lipcompare.questions.ending import Ending
from lipcompare.result import Status

_TOGETHER = 0.1
"""Seconds of a processor that directions of one pass should take: no clock is looked at meanwhile."""


@dataclasses.dataclass(frozen=True, eq=False)
class EntryBounds:
    """Bounds on entries of the Jacobian, or on its products with vectors.

    Attributes:
        lower, upper: (batch, rows, entries), rounded outward; both 0 where the gates prove that nothing passes.
        status: why it ended; bounds of interval arithmetic stand in for those that were not finished.
    """

    lower: np.ndarray
    upper: np.ndarray
    status: Status = Status.COMPLETE


@computing()
def entry_bounds(
    problem: Problem,
    relaxation: str = "lbp",
    *,
    tightening: Tightening = Tightening.ALPHA_CROWN,
    time_limit: float = float("inf"),
    memory: int = 2**30,
) -> EntryBounds:
    """Bounds on every entry over whole domains, as :func:`~lipcompare.questions.jacobian_bounds` begins with."""
    chosen = relaxation_named(relaxation)
    with torch.no_grad():
        entries = _at_once(problem, memory)
        with Ending(Deadline.after(time_limit)) as ending:
            gates, forward = gates_and_lines(problem, chosen, tightening, memory, ending.deadline)
            gradients = chosen.gradients(
                problem.network, gates, problem.functionals, norm=Norm.TWO, forward=forward, memory=memory,
                deadline=ending.deadline,
            )  # fmt: skip
            entries = gradients.intervals[0]
    return _as_arrays(entries, ending.status)


@known_keywords
@computing()
def directional_bounds(
    problem: Problem,
    directions: Tensor | np.ndarray,
    relaxation: str = "lbp",
    *,
    tightening: Tightening = Tightening.ALPHA_CROWN,
    time_limit: float = float("inf"),
    memory: int = 2**30,
) -> EntryBounds:
    """Bounds on Jacobian-vector products: the derivative of every functional along every direction.

    Args:
        directions: (directions, inputs), of any length.
        relaxation: a name of the table (:mod:`lipcompare.jacobian.relaxations`).
        time_limit: seconds, after which bounds are left as loose as they are.

    Returns:
        Bounds of shape (batch, rows, directions). They are at least as tight as what the bounds on the entries say.
    """
    vectors = torch.as_tensor(directions).to(problem.box.lower)
    if vectors.ndim == 1:
        vectors = vectors.unsqueeze(0)
    if vectors.ndim != 2 or vectors.shape[1] != problem.network.in_size:
        raise InvalidInput(
            f"Directions have shape (directions, {problem.network.in_size}); got {tuple(vectors.shape)}."
        )
    chosen, network, rows = relaxation_named(relaxation), problem.network, problem.functionals
    with torch.no_grad():
        derivatives = combined(_at_once(problem, memory), vectors)
        with Ending(Deadline.after(time_limit)) as ending:
            gates, forward = gates_and_lines(problem, chosen, tightening, memory, ending.deadline)
            gradients = chosen.gradients(
                network, gates, rows, norm=None, forward=forward, memory=memory, deadline=ending.deadline
            )
            each = tensor_bytes(2 * Copies.TANGENT, problem.batch * problem.rows * network.widest, problem.box.lower)
            along: list[Interval] = []
            for some in vectors.split(min(fitting(memory, each), _in_time(problem))):
                if along and ending.deadline.passed():
                    break
                along.append(chosen.along(network, gates, rows, gradients, some, forward))
            done = sum(bounded.lower.shape[-1] for bounded in along)
            along.append(combined(gradients.intervals[0], vectors[done:]))
            derivatives = Interval(*(torch.cat(ends, -1) for ends in zip(*along, strict=True)))
    return _as_arrays(derivatives, ending.status)


def _in_time(problem: Problem) -> int:
    """How many directions to go along before the clock is asked; at least one."""
    each = core_seconds(2.0 * problem.batch * problem.rows * problem.network.products, problem.device)
    return max(1, int(_TOGETHER / each)) if each else sys.maxsize


def gates_and_lines(
    problem: Problem,
    relaxation: Relaxation,
    tightening: Tightening,
    memory: int,
    deadline: Deadline | None = None,
) -> tuple[Gates, ForwardBound | None]:
    """The gates over the problem's domain, and what bounds functionals of pre-activations if the relaxation uses it."""
    region = problem.box.region
    bounds = preactivation_bounds(problem.network, region, tightening, memory=memory, deadline=deadline)
    joint = relaxation.planes and not isinstance(problem.box, Space)
    gates = Gates.from_preactivations(problem.network, bounds, lines=joint)
    return gates, ForwardBound.of(problem.network, region, bounds) if gates.lines else None


def _at_once(problem: Problem, memory: int) -> Interval:
    """Entries (batch, rows, inputs) by interval arithmetic, which takes no time."""
    bounds = preactivation_bounds(problem.network, problem.box.region, Tightening.INTERVAL, memory=memory)
    gates = Gates.from_preactivations(problem.network, bounds)
    return interval_gradient(problem.network, gates, problem.functionals)


def _as_arrays(entries: Interval, status: Status) -> EntryBounds:
    # NaN: numbers out of range cancelled, and nothing is known.
    lower = torch.where(entries.lower.isnan(), -torch.inf, entries.lower)
    upper = torch.where(entries.upper.isnan(), torch.inf, entries.upper)
    low, high = (t.cpu().double().numpy() for t in (lower, upper))
    return EntryBounds(low, high, status)
