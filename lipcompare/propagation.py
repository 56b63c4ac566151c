"""From a problem to its linear bound, keeping what lies between: pre-activation bounds, gates, gradient intervals."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from lipcompare.budget import Deadline
from lipcompare.domain import NormBall, Space
from lipcompare.gates import Coupling, Gates, PreactivationBounds
from lipcompare.jacobian import Gradients, Relaxation, gradient_intervals, norm_bound
from lipcompare.jacobian.lines import chords
from lipcompare.jacobian.norms import interval_norm
from lipcompare.jacobian.patches import plan
from lipcompare.jacobian.relaxations import Lbp
from lipcompare.jacobian.shared import intersected, shared_gradients
from lipcompare.network.interval import Interval
from lipcompare.preactivation import ForwardBound, Tightening, preactivation_bounds
from lipcompare.preactivation.interval import pass_errors
from lipcompare.preactivation.probing import probe
from lipcompare.problem import Problem
from lipcompare.rounding import allowance

Enough = Callable[[PreactivationBounds], bool]
"""Whether bounds on every pre-activation, (batch, neurons) per activation node, will do."""

_FIRST = 0.8
"""Share of the time after which pre-activations are no longer refined."""
_STAGE = 0.8
"""The same where one pass for all rows follows, which takes a third of the time of plain CROWN or less."""
_OVER = 0.1
"""Of the time, what that pass may take beyond it: half of it gives nothing."""
_MUCH = 3e9
"""Multiply-adds of the recursion (a second) from which on it comes last."""
_GROUP = 8
"""Rows that go through the recursion together, after the first one."""


_COARSE = 0.01
"""Share of a bound from which on its allowance for rounding is worth a word."""


@dataclasses.dataclass(frozen=True, eq=False)
class Propagated:
    """The stages of linear bound propagation on one batch.

    Attributes:
        upper: (batch, rows).
        tightening: of the pre-activations.
        hurried: whether the time ran out, so that some intervals are not as tight as they could be.
    """

    bounds: PreactivationBounds
    gates: Gates
    gradients: Gradients
    upper: Tensor
    tightening: Tightening
    hurried: bool = False

    def part(self, some: slice) -> Propagated:
        """The stages of some examples."""
        return Propagated(
            bounds={k: Interval(z.lower[some], z.upper[some]) for k, z in self.bounds.items()},
            gates=self.gates.of(some),
            gradients=self.gradients.part(some),
            upper=self.upper[some],
            tightening=self.tightening,
            hurried=self.hurried,
        )

    def coarse(self, problem: Problem) -> bool:
        """Whether the allowance for rounding is much of any row's bound, or of the range of any pre-activation that
        could have either sign, or numbers are out of range; float64 would then tighten them."""
        network, scale = problem.network, self.gradients.scales[0]
        share = allowance(2 * network.operations, scale.dtype) * problem.norm.dual.of(scale)
        much = [((share > _COARSE * self.upper) | self.upper.isinf()).any()]
        for k, error in pass_errors(network, problem.box.region, self.bounds).items():
            if all(p == 0 for p in network.nodes[network.nodes[k].parents[0]].parents):
                continue  # an affine function of the input, where interval arithmetic has an error of its own alone
            width = self.bounds[k].upper - self.bounds[k].lower
            much.append((self.gates.unstable(k) & (error > _COARSE * width)).any())
        return bool(torch.stack(much).any())


def propagate(
    problem: Problem,
    tightening: Tightening,
    relaxation: Relaxation,
    *,
    joint: bool,
    memory: int,
    seconds: float = math.inf,
    enough: Enough | None = None,
    report: Callable[[Tensor], None] = lambda upper: None,
) -> Propagated:
    """Problem -> pre-activation bounds -> gates -> gradient intervals -> norm bound (arXiv 2210.07394, section 3).

    ``joint`` also relaxes the slopes of smooth activations jointly with the gradient that they multiply, and takes the
    better of the two; networks with kinks only have no such slopes.

    ``seconds``: time for refining intervals, most of it for those of pre-activations: where both do not fit, they
    matter more. What interval arithmetic gives takes as long as it takes.

    ``enough`` says of CROWN's pre-activations whether they will do; images that go through in stages do not ask.

    ``report`` is given bounds (batch, rows) on the way where there are any: on large images (:func:`_in_stages`), where
    rows that are not the largest keep the bound of an early stage.
    """
    if _costs_much(problem, relaxation):
        return _in_stages(problem, tightening, memory=memory, seconds=seconds, report=report)
    first, second = Deadline.after(_FIRST * seconds), Deadline.after(seconds)
    network, region, functionals = problem.network, problem.box.region, problem.functionals
    bounds, reached = _bounds(problem, tightening, enough, memory, first)
    bounded = not isinstance(problem.box, Space)  # elsewhere pre-activations say nothing about slopes
    gates = Gates.from_preactivations(network, bounds, lines=joint and bounded and relaxation.planes)
    forward = ForwardBound.of(network, region, bounds) if gates.lines else None
    gradients = relaxation.gradients(
        network, gates, functionals, norm=problem.norm, forward=forward, memory=memory, deadline=second
    )
    upper = relaxation.norms(network, gates, functionals, gradients, problem.norm, forward)
    hurried = first.missed or second.missed
    return Propagated(bounds=bounds, gates=gates, gradients=gradients, upper=upper, tightening=reached, hurried=hurried)


def _bounds(
    problem: Problem, tightening: Tightening, enough: Enough | None, memory: int, deadline: Deadline
) -> tuple[PreactivationBounds, Tightening]:
    """Bounds on pre-activations, and what gave them: CROWN where that is enough."""
    bound = functools.partial(
        preactivation_bounds, problem.network, problem.box.region, memory=memory, deadline=deadline
    )
    if enough is None or tightening is not Tightening.ALPHA_CROWN or isinstance(problem.box, Space):
        return bound(tightening), tightening
    crown = bound(Tightening.CROWN)
    if enough(crown):
        return crown, Tightening.CROWN
    return bound(tightening, crown=crown), tightening


def _costs_much(problem: Problem, relaxation: Relaxation) -> bool:
    """Whether the recursion for all entries at the input takes so long that an order of work pays off."""
    if not isinstance(relaxation, Lbp) or isinstance(problem.box, (NormBall, Space)):
        return False
    if not problem.network.piecewise_linear:
        return False
    how = plan(problem.network, 0)
    entries = problem.batch * problem.rows * problem.network.in_size
    return how is not None and how.costs.windows * entries > _MUCH


def _in_stages(
    problem: Problem,
    tightening: Tightening,
    *,
    memory: int,
    seconds: float,
    report: Callable[[Tensor], None],
) -> Propagated:
    """The bound of :func:`propagate` for large images, in an order that gives useful numbers early.

    One pass with middle slopes bounds all rows. The rows that may still be the largest ones then get the recursion,
    few at a time; the others keep what they have. Slopes of pre-activations are optimised last.
    """
    deadline, late = Deadline.after(seconds), Deadline.after((1 + _OVER) * seconds)
    levels = [Tightening.CROWN, Tightening.ALPHA_CROWN] if tightening is Tightening.ALPHA_CROWN else [tightening]
    network = problem.network
    upper: Tensor | None = None
    propagated: Propagated | None = None
    hurried = False
    for level in levels:
        if propagated is not None and deadline.passed():
            break
        first = Deadline.after(_STAGE * deadline.left)
        crown = propagated.bounds if propagated is not None else None
        bounds = preactivation_bounds(network, problem.box.region, level, memory=memory, crown=crown, deadline=first)
        gates = Gates.from_preactivations(network, bounds)
        gradients = shared_gradients(network, gates, problem.functionals, memory=memory, deadline=late)
        if propagated is not None:
            gradients = intersected(gradients, propagated.gradients.intervals, gates, memory=memory)
        bound = interval_norm(gradients.intervals[0], problem.norm)
        upper = bound if upper is None else torch.minimum(upper, bound)
        report(upper)
        if not deadline.passed():
            upper = torch.minimum(upper, norm_bound(network, problem.functionals, gradients, problem.norm))
            report(upper)
        upper = _largest_rows(problem, gates, gradients, upper, memory, deadline, report)
        hurried |= first.missed
        propagated = Propagated(bounds=bounds, gates=gates, gradients=gradients, upper=upper, tightening=level)
    assert propagated is not None
    return dataclasses.replace(propagated, hurried=hurried or deadline.missed or late.missed)


def _largest_rows(
    problem: Problem,
    gates: Gates,
    gradients: Gradients,
    upper: Tensor,
    memory: int,
    deadline: Deadline,
    report: Callable[[Tensor], None],
) -> Tensor:
    """The recursion for rows that may be the largest ones: (batch, rows) bounds; ``gradients`` are updated."""
    order = upper.argsort(dim=-1, descending=True, stable=True)
    intervals, upper = gradients.intervals, upper.clone()
    best = upper.new_full(upper.shape[:1], -torch.inf)
    done, group = 0, 1
    while done < problem.rows and not deadline.passed():
        rows = order[:, done : done + group]
        left = upper.gather(1, rows)
        examples = (left[:, 0] > best).nonzero().squeeze(-1)
        if not len(examples):
            break
        # Rows that cannot be the largest are at the end; a few of them may be done with the others.
        some = rows[examples][:, : int((left[examples] > best[examples].unsqueeze(-1)).sum(-1).max())]
        index = (examples.unsqueeze(-1), some)
        within = {k: Interval(v.lower[index], v.upper[index]) for k, v in intervals.items()}
        some_gates, functionals = gates.of(examples), problem.functionals[index]
        refined = gradient_intervals(
            problem.network, some_gates, functionals, chords,
            norm=problem.norm, within=within, memory=memory, deadline=deadline,
        )  # fmt: skip
        bound = norm_bound(problem.network, functionals, refined, problem.norm)
        for k, interval in refined.intervals.items():
            intervals[k].lower[index], intervals[k].upper[index] = interval
        for k, line in refined.lines.items():
            gradients.lines[k].slope_spread[index] = line.slope_spread
            gradients.lines[k].offset_spread[index] = line.offset_spread
        upper[index] = torch.minimum(upper[index], bound)
        best[examples] = torch.maximum(best[examples], upper[index].amax(-1))
        report(upper)
        done, group = done + group, _GROUP
    return upper


def coupled(
    problem: Problem, propagated: Propagated, *, memory: int, seconds: float = math.inf
) -> tuple[Propagated, Coupling]:
    """Go on from ``propagated`` with probing, and keep what that says of states that exclude each other.

    For networks with one kink, at the origin (:func:`~lipcompare.gates.has_patterns`). The norm bound is
    never above the one before. ``seconds``: time for probing and for refining gradient intervals.
    """
    network, box = problem.network, problem.box.interval
    first, second = Deadline.after(seconds / 2), Deadline.after(seconds)
    bounds, conflicts = probe(network, box, propagated.bounds, memory=memory, deadline=first)
    gates = Gates.from_preactivations(network, bounds)
    gradients = gradient_intervals(
        network, gates, problem.functionals, norm=problem.norm, memory=memory, deadline=second
    )
    upper = norm_bound(network, problem.functionals, gradients, problem.norm)
    hurried = propagated.hurried or first.missed or second.missed
    upper = torch.minimum(upper, propagated.upper)
    probed = dataclasses.replace(
        propagated, bounds=bounds, gates=gates, gradients=gradients, upper=upper, hurried=hurried
    )
    return probed, Coupling(box, bounds, conflicts)
