"""The quadratic-gate semidefinite relaxation as a method."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, final

import numpy as np
import torch

from lipcompare.budget import Budget, Clock, Deadline, Kept, counted
from lipcompare.domain import Space
from lipcompare.gates import has_patterns
from lipcompare.methods.base import HURRIED, REFINING, Method, as_array, joined, pieces, propagation_bytes
from lipcompare.methods.linear import Linear, linear_bounds
from lipcompare.preactivation import Tightening
from lipcompare.problem import Norm, Problem
from lipcompare.propagation import coupled
from lipcompare.quadratic.bound import SdpBound, sdp_bound
from lipcompare.quadratic.coordinates import coordinate_count
from lipcompare.quadratic.memory import first_seconds, sign_count
from lipcompare.result import Bound, Status

TOLERANCE = "The tolerance is a relative gap between 0 and 1."
_PROBING = 0.8
"""At most of the time that is left for what couples gates through the inputs, which cuts ask for."""
_STEPS = 10
"""Iterations of a program, about."""
_LINEAR, _PROGRAMS = 24, 3
"""Times that linear bounds took, and that the programs of the whole box take: with less than that a search is looser
than the programs alone, as it looks for points first and solves all of them to the end."""


@final
@dataclasses.dataclass(frozen=True)
class Sdp(Method):
    """Gates as quadratic equations ``v (K - v) = 0``, lifted to one semidefinite program per row.

    Never above ``lbp`` with the same pre-activation bounds. Runs in float64 whatever the problem's precision. Any
    iterate is a bound, checked against rounding, so a time limit ends it with what it has; rows that fall back to the
    linear bound are named in the detail. Where not all gates fit in memory, those that matter most are lifted.

    Attributes:
        tightening: pre-activation bounds that the gates come from.
        tolerance: relative gap at which a row stops.
        cuts: most cutting planes per row (0: none; p = inf only). Tighter, and many times slower. With piecewise linear
            activations they also know which gates exclude each other, and with at most 64 moving inputs the inputs.
        all_rows: solve every row to the tolerance; otherwise rows that cannot be the largest stop early, with a valid
            but looser bound.
    """

    name: ClassVar[str] = "sdp"
    proves: ClassVar[str] = "upper"
    summary: ClassVar[str] = "semidefinite relaxation with quadratic gates"
    reference: ClassVar[str] = "lipcompare"
    everywhere: ClassVar[bool] = True

    tightening: Tightening = Tightening.ALPHA_CROWN
    tolerance: float = 1e-4
    cuts: int = 0
    all_rows: bool = False

    def __post_init__(self) -> None:
        self.at_least(0, "cuts")

    def supports(self, problem: Problem) -> str | None:
        if not 0 < self.tolerance < 1:
            return TOLERANCE
        if self.cuts and problem.norm is not Norm.INF:
            return "Cuts are products with the signs of the l_1 norm: they need p = inf."
        return None

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        return self.after(linear_bounds(problem.double(), clock, self.tightening), problem, clock)

    def after(self, linear: Linear, problem: Problem, clock: Clock) -> Bound:
        """Go on from the linear bounds of the problem, in float64, to the end of the clock's time."""
        memory, double = clock.budget.memory, linear.problem
        upper, results, hurried = as_array(linear.upper).copy(), list[SdpBound](), linear.hurried
        for piece in pieces(double, clock, propagation_bytes(double)):
            some, deadline = piece.problem, Deadline.after(piece.seconds)
            part = linear.part(piece.first, some.batch)
            if deadline.passed(part.ahead):
                hurried = True
                break  # the bounds that the programs need took all the time there is
            found = part.propagated(memory, REFINING * piece.seconds)
            coupling = None
            if self.cuts and has_patterns(some.network) and not isinstance(some.box, Space):
                found, coupling = coupled(some, found, memory=memory, seconds=_PROBING * deadline.left)
            result = sdp_bound(
                some.network,
                found.gates,
                some.functionals,
                found.gradients,
                some.norm,
                tolerance=self.tolerance,
                cuts=self.cuts,
                coupling=coupling,
                only_maximum=not self.all_rows,
                memory=memory,
                deadline=deadline.at,
            )
            results.append(result)
            hurried |= found.hurried
            # The joint relaxation of smooth slopes knows what slope ranges do not.
            here = slice(piece.first, piece.first + some.batch)
            upper[here] = np.fmin(upper[here], as_array(torch.minimum(result.upper, found.upper)))
            clock.keep(Kept(0, upper))
        status = Status.TIME_LIMIT if hurried or any(r.no_time for r in results) else Status.COMPLETE
        if any(bool((r.no_memory | r.restricted).any()) for r in results):
            status = Status.MEMORY_LIMIT
        return self.result(problem, clock, upper=upper, status=status, detail=_detail(results, hurried))


def come_first(linear: Linear, seconds: float) -> bool:
    """Whether so many seconds are so little for a search that the bound of :class:`Sdp` is to come before it."""
    if linear.leave_little(seconds):
        return True
    return seconds < linear.problem.batch * (_LINEAR * linear.seconds + _PROGRAMS * _program_seconds(linear))


def _program_seconds(linear: Linear) -> float:
    """About what the programs of one example take; 0 where the stages that tell are not kept, and for p = 1, where a
    search over boxes has other ways."""
    problem, stages = linear.problem, linear.stages
    if stages is None or problem.norm is Norm.ONE or not problem.network.activations:
        return 0.0
    size = int(coordinate_count(stages.gates, stages.gradients).max())
    signs = int(sign_count(stages.gradients).max()) if problem.norm is Norm.INF else 0
    return _STEPS * problem.rows * first_seconds(problem.network, size, signs, problem.device)


def _detail(parts: list[SdpBound], hurried: bool) -> str:
    """What became of the rows, in words."""
    sentences = []
    if hurried:
        sentences.append(HURRIED)
    if not parts:
        return " ".join(sentences)
    too_long = int(joined(p.too_long for p in parts).sum())
    if too_long:
        sentences.append(
            f"A semidefinite program would have taken longer than there was time: {counted(too_long, 'example')}, with "
            "the linear bound."
        )
    if any(p.no_time and not bool(p.too_long.all()) for p in parts):
        sentences.append("The time ran out: some rows have the bound of an early iteration, or the linear one.")
    no_memory = int(joined(p.no_memory for p in parts).sum())
    if no_memory:
        sentences.append(f"Beyond the memory budget: {counted(no_memory, 'example')}, with the linear bound.")
    restricted = int(joined(p.restricted for p in parts).sum())
    if restricted:
        sentences.append(
            f"Beyond the memory budget: {counted(restricted, 'example')}, in a restricted variant, with quadratic "
            "constraints for the gates that matter most and intervals for the others."
        )
    fallen = joined(p.fell_back for p in parts).nonzero().tolist()
    if fallen:
        names = ", ".join(f"{b}:{row}" for b, row in fallen[:10]) + (", ..." if len(fallen) > 10 else "")
        sentences.append(f"With the linear bound: {counted(len(fallen), 'row')} (example:row {names}).")
    pruned = int(joined(p.pruned for p in parts).sum())
    if pruned:
        sentences.append(f"{counted(pruned, 'row')} stopped early, not being the largest.")
    return " ".join(sentences)
