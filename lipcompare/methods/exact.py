"""``exact``: the exact method that suits the problem."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, final

import torch

from lipcompare.attack.search import Effort, search
from lipcompare.budget import Budget, Clock, Deadline
from lipcompare.combine import intersect
from lipcompare.domain import Space
from lipcompare.gates import Gates, has_patterns
from lipcompare.jacobian import RELAXATIONS
from lipcompare.methods.bab import Bab
from lipcompare.methods.base import Method
from lipcompare.methods.each import example_by_example, within
from lipcompare.methods.linear import Linear, linear_bounds
from lipcompare.methods.lipbab import LipBab
from lipcompare.methods.milp import Milp
from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.problem import Norm, Problem
from lipcompare.quadratic.bound import sdp_bound
from lipcompare.result import Bound, Status, Witnesses
from lipcompare.witness import gradient_norms

_FEW = 6
"""Up to this many gates that CROWN leaves undecided, regions one by one are the fastest: no search, no relaxation."""
_SOME, _SOME_SHALLOW = 10, 30
"""Up to this many a mixed-integer program is; with at most two layers of gates up to the second, if little is open."""
_LITTLE = 1.1
"""Ratio of the whole box's relaxation to what samples attain up to which a program closes with little branching."""
_LITTLE_ONE = 1.3
"""The same for p = 1 beyond the second, up to this many:"""
_MANY = 100
"""With more the relaxation takes long, and the program is tried anyway."""
_SAMPLES = Effort(samples=256, starts=1, ascent_steps=0, rounds=0, regions=0)
_TOLERANCE = 1e-2
"""Relative, of that relaxation."""
_CHOOSING = 0.1
"""Share of the time for choosing."""
_PATIENCE = 30.0
"""Seconds after which a program that is not solved gives way to branch and bound, which goes on where it stopped."""


@final
@dataclasses.dataclass(frozen=True)
class Exact(Method):
    """Picks an exact method by how many gates CROWN leaves undecided, and how deep the network is.

    1. At most six: ``lipbab``, which tries their regions.
    2. At most ten: ``milp`` where it applies; up to thirty too, with no more than two layers of gates, if the
       quadratic-gate bound is within a tenth of what a few samples attain; for p = 1 on any network up to thirty, and
       beyond if it is within three tenths (there one entry of the gradient decides, a linear objective that integer
       programming bounds well and where the quadratic relaxation needs a program per entry). What it has not solved
       after half a minute goes on to ``bab``.
    3. Everything else with ReLU-like activations: ``bab`` on the quadratic-gate bound.
    4. Smooth activations: ``bab``, which halves boxes there. It reaches the gap for few inputs; for many the time limit
       leaves an interval.

    The rule is from measurements on the reference networks (``python -m experiments.questions --only exact``).
    """

    name: ClassVar[str] = "exact"
    proves: ClassVar[str] = "exact"
    summary: ClassVar[str] = "the exact method that suits the problem: lipbab, milp or bab"
    reference: ClassVar[str] = "jordan2020lipmip"

    everywhere: ClassVar[bool] = True

    def supports(self, problem: Problem) -> str | None:
        return Bab().supports(problem)

    def choose(self, problem: Problem, budget: Budget = Budget()) -> Bab | LipBab | Milp:
        """The method that the decision list picks, in a small part of the time."""
        if not has_patterns(problem.network) or isinstance(problem.box, Space):
            return Bab()
        network = problem.network
        deadline = Deadline.after(_CHOOSING * budget.time_limit)
        bounds = preactivation_bounds(
            network, problem.box.region, Tightening.CROWN, memory=budget.memory, deadline=deadline
        )
        if deadline.missed:
            return Bab()  # too large for programs
        if not bounds:
            return LipBab()
        gates = Gates.from_preactivations(network, bounds)
        count = int(gates.unstable_count.max())
        if count <= _FEW:
            return LipBab()
        if Milp().supports(problem) is not None:
            return Bab()
        some = count <= _SOME_SHALLOW
        if count <= _SOME or (problem.norm is Norm.ONE and (some or count > _MANY)):
            return Milp()
        little = 0.0
        if problem.norm is Norm.ONE:
            little = _LITTLE_ONE
        elif some and len(network.activations) <= 2:
            little = _LITTLE
        return Milp() if little and _openness(problem, gates, budget.memory, deadline) <= little else Bab()

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
        chosen = Bab() if linear.leave_little(clock.left) else self.choose(problem, budget)
        patient = isinstance(chosen, Milp)
        first = within(clock, min(_PATIENCE, clock.left) if patient else clock.left)
        if isinstance(chosen, Bab):
            results = [chosen.after(linear, problem, first, known)]
        elif isinstance(chosen, LipBab) or problem.device.type == "cpu":
            results = [chosen.after(linear, problem, first)]
        else:
            results = [chosen.run(problem, first.budget)]
        if patient and results[0].status is Status.TIME_LIMIT and clock.running():
            results.append(Bab().after(linear, problem, within(clock, clock.left), known))
        if len(results) == 1:
            return dataclasses.replace(results[0], detail=f"Took {chosen.name}. {results[0].detail}".strip())
        both = intersect(results, gap=budget.gap)
        status = both.status if both.status is Status.EXACT else results[-1].status
        return dataclasses.replace(both, status=status, detail=f"Took milp, then bab. {results[-1].detail}")


def _openness(problem: Problem, gates: Gates, memory: int, deadline: Deadline) -> float:
    """Ratio of the quadratic-gate bound over the whole box to what samples attain."""
    double = problem.double()
    network, functionals, norm, gates = double.network, double.functionals, double.norm, gates.double()
    with torch.no_grad():
        points = search(double, _SAMPLES, memory=memory, deadline=deadline)  # (1, rows, inputs)
        attained = gradient_norms(network, functionals[0], points[0], norm).max()
        gradients = RELAXATIONS["lbp"].gradients(
            network, gates, functionals, norm=norm, memory=memory, deadline=deadline
        )
        bound = sdp_bound(
            network, gates, functionals, gradients, norm, tolerance=_TOLERANCE, memory=memory, deadline=deadline.at
        )
    return float(bound.upper.max() / attained)  # infinite, or NaN, where no sample has a gradient
