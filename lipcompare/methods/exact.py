"""``exact``: the exact method that suits the problem."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple, final

import torch
from torch import Tensor

from lipcompare.branching.roots import first_points
from lipcompare.budget import Budget, Clock, Deadline
from lipcompare.combine import intersect
from lipcompare.domain import Space
from lipcompare.gates import Gates, has_patterns
from lipcompare.methods.bab import Bab
from lipcompare.methods.base import Method
from lipcompare.methods.each import example_by_example, within
from lipcompare.methods.linear import Linear, linear_bounds
from lipcompare.methods.lipbab import LipBab
from lipcompare.methods.milp import Milp
from lipcompare.problem import Norm, Problem
from lipcompare.programs.preactivation import seen_ranges
from lipcompare.quadratic.bound import sdp_bound
from lipcompare.result import Attained, Bound, Status, Witnesses
from lipcompare.witness import as_witnesses

_FEW, _SEEN = 6, 3
"""Up to so many gates that CROWN leaves undecided, of which samples see no more than the second both open and closed,
regions one by one are the fastest: no search for points, no relaxation."""
_SOME = 10
"""Up to this many a mixed-integer program is."""
_MORE, _MOST, _ROWS = 20, 30, 2
"""So it is up to the first, if the quadratic-gate bound leaves no more than so many rows above what points attain (each
has a program of its own), and up to the second if besides little is open."""
_LITTLE = 1.08
"""Ratio of that bound to what points attain up to which a program closes with little branching."""
_LITTLE_ONE, _MANY = 1.3, 100
"""The same for p = 1, from ``_MOST`` gates up to the second; with more the relaxation takes long, and the program is
tried anyway."""
_SAMPLES = 256
"""Enough to see the signs of a few gates."""
_TOLERANCE = 1e-2
"""Relative, of that relaxation."""
_SEARCH, _SEARCH_SECONDS = 0.2, 2.0
"""At most this share of the time, and so many seconds, for those points, from which the chosen method goes on."""
_CHOOSING = 0.1
"""Share of the time for bounds that are not there yet, and for that relaxation."""
_PATIENCE = 30.0
"""Seconds after which a program that is not solved gives way to branch and bound, which goes on where it stopped."""


class Choice(NamedTuple):
    """A method, and points to beat that were found on the way to it (None: no search was due)."""

    method: Bab | LipBab | Milp
    known: Witnesses | None


@final
@dataclasses.dataclass(frozen=True)
class Exact(Method):
    """Picks an exact method by how many gates the linear bounds leave undecided, and how much they leave open.

    1. At most six, at most three of them seen with both signs: ``lipbab``, which tries their regions. For p = 2 at most
       six.
    2. At most ten: ``milp`` where it applies; up to twenty too if the quadratic-gate bound leaves at most two rows
       above what a few points attain, and up to thirty if besides it is within 8 % of that; for p = 1 on any network up
       to thirty, and beyond if it is within three tenths (there one entry of the gradient decides, a linear objective
       that integer programming bounds well and where the quadratic relaxation needs a program per entry). What it has
       not solved after half a minute goes on to ``bab``.
    3. Everything else with ReLU-like activations: ``bab`` on the quadratic-gate bound.
    4. Smooth activations: ``bab``, which halves boxes there. It reaches the gap for few inputs; for many the time limit
       leaves an interval.

    What choosing computes (linear bounds, points) is what the chosen method begins with. The rule is from measurements
    on the reference networks (``python -m experiments.questions --only exact``).
    """

    name: ClassVar[str] = "exact"
    proves: ClassVar[str] = "exact"
    summary: ClassVar[str] = "the exact method that suits the problem: lipbab, milp or bab"
    reference: ClassVar[str] = "jordan2020lipmip"

    everywhere: ClassVar[bool] = True

    def supports(self, problem: Problem) -> str | None:
        return Bab().supports(problem)

    def choose(self, linear: Linear, clock: Clock, known: Witnesses | None = None) -> Choice:
        """The method that the decision list picks for one example; ``known``: points to beat, if there are any."""
        problem, memory = linear.problem, clock.budget.memory
        network, norm = problem.network, problem.norm
        if not has_patterns(network) or isinstance(problem.box, Space) or linear.leave_little(clock.left):
            return Choice(Bab(), known)
        if linear.hurried:
            return Choice(Bab(), known)  # too large for programs
        if not network.activations:
            return Choice(LipBab(), known)
        gates = linear.propagated(memory, _CHOOSING * clock.left).gates
        count = int(gates.unstable_count.max())
        if count <= _SEEN or (count <= _FEW and (norm is Norm.TWO or _seen(problem, gates) <= _SEEN)):
            return Choice(LipBab(), known)
        if Milp().supports(problem) is not None:
            return Choice(Bab(), known)
        if count <= _SOME or (norm is Norm.ONE and not _MOST < count <= _MANY):
            return Choice(Milp(), known)
        if norm is not Norm.ONE and count > _MOST:
            return Choice(Bab(), known)
        if known is None:
            searching = Deadline.after(min(_SEARCH * clock.left, _SEARCH_SECONDS))
            found = Attained(problem.rows, first_points(problem, 0, searching, memory))
            known = as_witnesses(problem, [found])
        best = float(known.values.max())
        if norm is Norm.ONE:
            upper = linear.upper[0]
            if float(upper.max()) > _LITTLE_ONE * best:
                upper = _lifted(linear, clock)
            return Choice(Milp() if float(upper.max()) <= _LITTLE_ONE * best else Bab(), known)
        upper = _lifted(linear, clock)
        few = int((upper > best * (1 + clock.budget.gap)).sum()) <= _ROWS
        little = count <= _MORE or float(upper.max()) <= _LITTLE * best
        return Choice(Milp() if few and little else Bab(), known)

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        return self.after(linear_bounds(problem.double(), clock), problem, clock)

    def after(self, linear: Linear, problem: Problem, clock: Clock, known: Witnesses | None = None) -> Bound:
        """Go on from the linear bounds of the problem, in float64, to the end of the clock's time.

        ``known``: points to beat; without any, the methods look for some themselves.
        """
        start = self.upper_result(problem, clock, linear.upper, linear.hurried)

        def sharper(b: int, share: Clock) -> Bound:
            points = None if known is None else known.part(slice(b, b + 1))
            return self._example(linear.part(b), share, points)

        merged = example_by_example(start, clock, sharper)
        return self.result(
            problem, clock, lower=merged.lower, upper=merged.upper, status=merged.status, detail=merged.detail,
            witnesses=merged.witnesses,
        )  # fmt: skip

    def _example(self, linear: Linear, clock: Clock, known: Witnesses | None) -> Bound:
        problem, budget = linear.problem, clock.budget
        chosen, points = self.choose(linear, clock, known)
        patient = isinstance(chosen, Milp)
        first = within(clock, min(_PATIENCE, clock.left) if patient else clock.left)
        if isinstance(chosen, LipBab):
            results = [chosen.after(linear, problem, first)]
        elif isinstance(chosen, Bab) or problem.device.type == "cpu":
            results = [chosen.after(linear, problem, first, points)]
        else:
            results = [chosen.run(problem, first.budget)]
        if patient and results[0].status is Status.TIME_LIMIT and clock.running():
            results.append(Bab().after(linear, problem, within(clock, clock.left), points))
        if len(results) == 1:
            return dataclasses.replace(results[0], detail=f"Took {chosen.name}. {results[0].detail}".strip())
        both = intersect(results, gap=budget.gap)
        status = both.status if both.status is Status.EXACT else results[-1].status
        return dataclasses.replace(both, status=status, detail=f"Took milp, then bab. {results[-1].detail}")


def _seen(problem: Problem, gates: Gates) -> int:
    """How many undecided gates are on either side of their kink on samples of one box."""
    network = problem.network
    ranges = seen_ranges(network, problem.box.interval, samples=_SAMPLES)
    both = [((z.lower < 0) & (z.upper > 0) & gates.unstable(k)[0]).sum() for k, z in ranges.items()]
    return int(torch.stack(both).sum()) if both else 0


def _lifted(linear: Linear, clock: Clock) -> Tensor:
    """The quadratic-gate bound (rows,) over the whole box."""
    problem, memory = linear.problem, clock.budget.memory
    found = linear.propagated(memory, _CHOOSING * clock.left)
    with torch.no_grad():
        bound = sdp_bound(
            problem.network, found.gates, problem.functionals, found.gradients, problem.norm,
            tolerance=_TOLERANCE, memory=memory, deadline=Deadline.after(_CHOOSING * clock.left).at,
        )  # fmt: skip
    return bound.upper[0]
