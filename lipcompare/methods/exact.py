"""``exact``: the exact method that suits the problem."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, final

import torch
from torch import Tensor

from lipcompare.branching.driver import threshold
from lipcompare.branching.roots import first_points
from lipcompare.budget import Budget, Clock, Deadline
from lipcompare.domain import Space
from lipcompare.gates import has_patterns
from lipcompare.methods.bab import Bab
from lipcompare.methods.base import Method
from lipcompare.methods.combine import intersect
from lipcompare.methods.each import example_by_example, within
from lipcompare.methods.linear import Linear, linear_bounds
from lipcompare.methods.lipbab import LipBab
from lipcompare.methods.milp import Milp
from lipcompare.network.interval import Interval
from lipcompare.preactivation import Tightening
from lipcompare.problem import Norm, Problem
from lipcompare.quadratic.bound import sdp_bound
from lipcompare.result import Attained, Bound, Status, Witnesses
from lipcompare.witness import as_witnesses

_SOME = 12
"""Gates that CROWN leaves undecided up to which regions are the fastest. They need no points to beat."""
_REGIONS = 2**15
"""Regions up to which they are the fastest where it is few inputs that allow no more of them."""
_NEAR = 4 / 3
"""Ratio of the linear bound to what points attain up to which it is near. An integer program bounds its subdomains
about as well as that."""
_ROWS = 2
"""Rows above what points attain that may have a program each; of more, regions and subdomains decide several at
once."""
_FAR = 1.5
"""Ratio of plain CROWN's bound from which optimised slopes are not near either."""
_MORE, _MOST = 20, 30
"""Gates up to which integer programs need no near bound for p = inf, and up to which they are tried at all; for p = 1
they need none up to the second, and are tried beyond where it is near."""
_TOLERANCE = 3e-3
"""Relative, of that relaxation."""
_SEARCH, _SEARCH_SECONDS = 0.2, 2.0
"""At most this share of the time, and so many seconds, for those points, from which the chosen method goes on."""
_CHOOSING = 0.1
"""Share of the time for bounds that are not there yet, and for that relaxation."""
_PATIENCE = 30.0
"""Seconds after which a program that is not solved gives way to branch and bound, which goes on where it stopped."""


class Choice(NamedTuple):
    """A method, and points to beat that were found on the way to it (None: no search was due)."""

    method: Bab | Milp
    known: Witnesses | None


@final
@dataclasses.dataclass(frozen=True)
class Exact(Method):
    """Picks an exact method by how many gates the linear bounds leave undecided, and how much they leave open.

    1. At most twelve: ``lipbab``, which tries their regions; and where the inputs that move allow no more regions than
       half of the patterns, and at most 2^15.
    2. ``milp`` where it applies: up to twenty if the linear or the quadratic-gate bounds leave at most two rows open,
       and up to thirty if besides the linear bound is within a third; for p = 1 on any network up to thirty, and beyond
       if the linear bound is within a third (there one entry of the gradient decides, and the quadratic relaxation
       needs a program per entry). What it has not solved after half a minute goes on to ``bab``.
    3. Everything else with ReLU-like activations: ``bab`` on the quadratic-gate bound.
    4. Smooth activations: ``bab``, which halves boxes there. It reaches the gap for few inputs; for many the time limit
       leaves an interval.

    What choosing computes (linear and quadratic-gate bounds, points) is what the chosen method begins with. The rule is
    from measurements on reference networks and random ones (``python -m experiments.questions --only exact``).
    """

    name: ClassVar[str] = "exact"
    proves: ClassVar[str] = "exact"
    summary: ClassVar[str] = "the exact method that suits the problem: lipbab, milp or bab"
    reference: ClassVar[str] = "jordan2020lipmip"

    everywhere: ClassVar[bool] = True

    def supports(self, problem: Problem) -> str | None:
        return Bab().supports(problem)

    def choose(self, sharper: _Sharper, count: int | None, clock: Clock, known: Witnesses | None) -> Choice:
        """The method that the decision list picks for one example where it is not regions at once.

        ``count``: undecided gates, None where they decide nothing; ``known``: points to beat, if there are any.
        """
        problem, memory = sharper.problem, clock.budget.memory
        norm = problem.norm
        if count is None or Milp().supports(problem) is not None:
            return Choice(Bab(), known)
        if norm is Norm.ONE and count <= _MOST:
            return Choice(Milp(), known)
        if norm is not Norm.ONE and count > _MOST:
            return Choice(Bab(), known)
        if known is None:
            searching = Deadline.after(min(_SEARCH * clock.left, _SEARCH_SECONDS))
            found = Attained(problem.rows, first_points(problem, 0, searching, memory))
            known = as_witnesses(problem, [found])
        best, gap = float(known.values.max()), clock.budget.gap
        near, few = sharper.near(best), _rows_open(sharper.linear.upper[0], best, gap) <= _ROWS
        if norm is not Norm.ONE and (near or count <= _MORE):
            few = few or _rows_open(sharper.lifted(best), best, gap) <= _ROWS
            return Choice(Milp() if few else Bab(), known)
        return Choice(Milp() if near and norm is Norm.ONE else Bab(), known)

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock, double = Clock(budget), problem.double()
        # Optimised slopes take longer than a few regions.
        regions = has_patterns(double.network) and not isinstance(double.box, Space)
        enough = functools.partial(_are_few, inputs=_moving(double)) if regions else None
        return self.after(linear_bounds(double, clock, enough=enough), problem, clock)

    def after(self, linear: Linear, problem: Problem, clock: Clock, known: Witnesses | None = None) -> Bound:
        """Go on from the linear bounds of the problem, in float64, to the end of the clock's time.

        ``known``: points to beat; without any, the methods look for some themselves.
        """
        start = self.upper_result(problem, clock, linear.upper, linear.hurried)

        def sharper(b: int, share: Clock) -> Bound:
            points = None if known is None else known.part(slice(b, b + 1))
            return self._example(linear.part(b), share, points)

        merged = example_by_example(problem, start, clock, sharper)
        return self.result(
            problem, clock, lower=merged.lower, upper=merged.upper, status=merged.status, detail=merged.detail,
            witnesses=merged.witnesses,
        )  # fmt: skip

    def _example(self, linear: Linear, clock: Clock, known: Witnesses | None) -> Bound:
        problem, gap = linear.problem, clock.budget.gap
        count, sharper = _undecided(linear, clock), _Sharper(linear, clock)
        if count is not None and _few_regions(count, _moving(problem)):
            return _taken([LipBab.name], [LipBab().after(linear, problem, within(clock, clock.left), known)], gap)
        chosen, known = self.choose(sharper, count, clock, known)
        linear, names = sharper.known, [chosen.name]
        patient = isinstance(chosen, Milp)
        first = within(clock, min(_PATIENCE, clock.left) if patient else clock.left)
        if isinstance(chosen, Milp) and problem.device.type != "cpu":
            results = [chosen.run(problem, first.budget, known)]
        else:
            results = [chosen.after(linear, problem, first, known)]
        if patient and results[0].status is Status.TIME_LIMIT and clock.running():
            names.append(Bab.name)
            results.append(Bab().after(linear, problem, within(clock, clock.left), known))
        return _taken(names, results, gap)


class _Sharper:
    """Sharper bounds over the whole box of one example, made when they are asked for."""

    def __init__(self, linear: Linear, clock: Clock) -> None:
        self.problem, self._begun, self._clock = linear.problem, linear, clock
        self._lifted: Tensor | None = None

    @functools.cached_property
    def linear(self) -> Linear:
        """The linear bounds, with optimised slopes."""
        if self._begun.tightening is Tightening.ALPHA_CROWN:
            return self._begun
        sharper = linear_bounds(self.problem, within(self._clock, self._clock.left))
        return dataclasses.replace(sharper, upper=torch.minimum(sharper.upper, self._begun.upper))

    def lifted(self, best: float) -> Tensor:
        """The quadratic-gate bound (rows,), no better than it has to be where ``best`` is attained."""
        if self._lifted is None:
            linear, memory = self.linear, self._clock.budget.memory
            found = linear.propagated(memory, _CHOOSING * self._clock.left)
            enough = linear.upper.new_tensor([threshold(best, self._clock.budget.gap)])
            with torch.no_grad():
                bound = sdp_bound(
                    self.problem.network, found.gates, self.problem.functionals, found.gradients, self.problem.norm,
                    tolerance=_TOLERANCE, prune_below=enough, target=enough, memory=memory,
                    deadline=Deadline.after(_CHOOSING * self._clock.left).at,
                )  # fmt: skip
            self._lifted = torch.minimum(bound.upper[0], linear.upper[0].to(bound.upper))
        return self._lifted

    def near(self, best: float) -> bool:
        """Whether the linear bounds are near to what is attained."""
        far = float(self._begun.upper.max()) > _FAR * best
        return not far and float(self.linear.upper.max()) <= _NEAR * best

    @property
    def known(self) -> Linear:
        """The linear bounds, and quadratic-gate bounds of the rows if they were asked for."""
        if self._lifted is None:
            return self.linear
        return dataclasses.replace(self.linear, upper=self._lifted.unsqueeze(0).to(self.linear.upper))


def _few_regions(gates: int, inputs: int) -> bool:
    """Whether regions are the fastest: few gates, or few inputs."""
    most = min(_REGIONS, 2 ** max(gates - 1, 0)) if gates < _REGIONS else 0
    return gates <= _SOME or _cells(gates, inputs, most) <= most


def _cells(gates: int, inputs: int, most: int) -> int:
    """The most regions that so many planes cut a space of inputs into, counted until it exceeds ``most``."""
    cells = term = 1
    for chosen in range(min(gates, inputs)):
        if cells > most:
            break
        term = term * (gates - chosen) // (chosen + 1)
        cells += term
    return cells


def _moving(problem: Problem) -> int:
    """Inputs that any example's box leaves free."""
    lower, upper = problem.box.interval
    return int((upper > lower).any(0).sum())


def _are_few(bounds: Mapping[int, Interval], inputs: int) -> bool:
    """Whether these bounds of a network of patterns leave so few gates open that regions are the fastest."""
    if not bounds:
        return True
    lower = torch.cat([z.lower for z in bounds.values()], -1)
    upper = torch.cat([z.upper for z in bounds.values()], -1)
    return _few_regions(int((lower * upper < 0).sum(-1).max()), inputs)


def _undecided(linear: Linear, clock: Clock) -> int | None:
    """Gates that the linear bounds of one example leave undecided; None where there are none, or no time to count."""
    problem = linear.problem
    if not has_patterns(problem.network) or isinstance(problem.box, Space):
        return None
    if linear.leave_little(clock.left) or linear.hurried:
        return None  # too large for programs
    if not problem.network.activations:
        return 0
    gates = linear.propagated(clock.budget.memory, _CHOOSING * clock.left).gates
    return int(gates.unstable_count.max())


def _rows_open(upper: Tensor, best: float, gap: float) -> int:
    """Rows whose bounds (rows,) are above what is attained."""
    return int((upper > threshold(best, gap)).sum())


def _taken(names: Sequence[str], results: Sequence[Bound], gap: float) -> Bound:
    """What methods proved one after another."""
    last = results[-1]
    detail = f"Took {', then '.join(names)}. {last.detail}".strip()
    if len(results) == 1:
        return dataclasses.replace(last, detail=detail)
    both = intersect(results, gap=gap)
    status = both.status if both.status is Status.EXACT else last.status
    return dataclasses.replace(both, status=status, detail=detail)
