"""``auto``: the best interval that fits in the time, cheap bounds first."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, final

import torch

from lipcompare.budget import Budget, Clock
from lipcompare.domain import Space
from lipcompare.gates import has_patterns
from lipcompare.methods.attack import Attack
from lipcompare.methods.base import Method
from lipcompare.methods.baselines import Naive
from lipcompare.methods.combine import intersect
from lipcompare.methods.each import example_by_example, within
from lipcompare.methods.exact import Exact
from lipcompare.methods.lbp import Lbp
from lipcompare.methods.linear import Linear, linear_bounds
from lipcompare.methods.sdp import Sdp, come_first
from lipcompare.problem import Problem
from lipcompare.result import Bound, Status, closed

_ATTACK = 0.2
"""Share of the time that linear bounds leave for the search for a lower bound: what ``bab`` alone takes for it."""
_FEW = 64
"""Up to this many inputs, halving boxes gains over the best bound on the whole one."""


@final
@dataclasses.dataclass(frozen=True)
class Auto(Method):
    """An interval within the time limit, as tight as the time allows.

    1. ``lbp``, of all examples together and as it runs alone.
    2. ``attack`` for at most a fifth of what is left: a lower bound with a witness. Where the time that is left is
       little for the next step, ``sdp`` comes before it, of all examples together and as it runs alone, and ``attack``
       may take all that this leaves.
    3. Example by example, where the gap is still open, the sharpest method that applies, which goes on from these
       bounds and points: ``exact`` for ReLU-like activations (its interval holds when the time runs out), else ``sdp``,
       and then ``exact`` too where the inputs are few enough to halve.

    Given the same time its upper end is never above that of ``lbp``, as the same code comes first in the same share of
    it, and where the time is short never above that of ``sdp`` either; its lower end comes from a search with less time
    than ``attack`` has alone.

    Methods that do not work on a ball or on all inputs are passed over; on all inputs ``naive`` runs too.
    """

    name: ClassVar[str] = "auto"
    proves: ClassVar[str] = "interval"
    summary: ClassVar[str] = "the tightest interval that fits in the time: cheap bounds first, then the sharpest"
    reference: ClassVar[str] = "shi2022lipschitz"
    balls: ClassVar[bool] = True
    everywhere: ClassVar[bool] = True

    def supports(self, problem: Problem) -> str | None:
        return None

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock, double = Clock(budget), problem.double()
        clock.note(Lbp.name)
        linear = linear_bounds(double, clock)
        ran, done = [Lbp.name], [Lbp().upper_result(double, clock, linear.upper, linear.hurried)]
        if isinstance(problem.box, Space):
            ran.append(Naive.name)
            done.append(Naive().run(double, within(clock, clock.left).budget))
        hasty = come_first(linear, clock.left) and Sdp().domain_reason(double) is None
        last, plan = done[0], _plan(double)
        if hasty:
            clock.note(Sdp.name)
            ran.append(Sdp.name)
            found = Sdp().after(linear, double, within(clock, clock.left))
            last = _named(Sdp(), found)
            done.append(last)
            linear = dataclasses.replace(linear, upper=torch.from_numpy(found.upper).to(linear.upper))
            plan = [method for method in plan if not isinstance(method, Sdp)]
        self._attack(double, clock, 1.0 if hasty else _ATTACK, ran, done)
        merged = intersect(done, gap=budget.gap)
        status = merged.status
        if status is not Status.EXACT:
            known = dataclasses.replace(merged, detail=last.detail if hasty else "", status=Status.COMPLETE)
            if plan:
                merged = last = example_by_example(
                    problem, known, clock,
                    lambda b, share: self._sharper(linear.part(b), known.example(b), share, plan, ran),
                )  # fmt: skip
            exact = closed(merged.lower, merged.upper, budget.gap)
            status = Status.EXACT if exact else last.status if clock.running() else Status.TIME_LIMIT
        detail = f"Ran {', '.join(dict.fromkeys(ran))}. {last.detail}".strip()
        return self.result(
            problem, clock, lower=merged.lower, upper=merged.upper, status=status, detail=detail,
            witnesses=merged.witnesses,
        )  # fmt: skip

    def _attack(self, problem: Problem, clock: Clock, share: float, ran: list[str], done: list[Bound]) -> None:
        """Search for a lower bound; its name is added to ``ran``, its result to ``done``."""
        clock.note(Attack.name)
        ran.append(Attack.name)
        done.append(Attack().run(problem, within(clock, share * clock.left).budget))
        if done[-1].status is Status.INTERRUPTED:
            raise KeyboardInterrupt  # what it had found is kept, as that of the others

    def _sharper(
        self, linear: Linear, known: Bound, clock: Clock, plan: Sequence[Sdp | Exact], ran: list[str]
    ) -> Bound:
        """What the sharper methods make of one example; their names are added to ``ran``."""
        problem, done = linear.problem, [known]
        for method in plan:
            if done[-1].status is Status.EXACT or not clock.running():
                break
            if method.domain_reason(problem) is not None or method.supports(problem) is not None:
                continue
            clock.note(method.name)
            ran.append(method.name)
            share = within(clock, clock.left)
            if isinstance(method, Sdp):
                found = method.after(linear, problem, share)
            else:
                found = method.after(linear, problem, share, known.witnesses)
            if found.status is Status.INTERRUPTED:
                return found  # what it had found is kept, as that of the others
            both = intersect([done[-1], found], gap=clock.budget.gap)
            status = both.status if both.status is Status.EXACT else found.status
            done.append(dataclasses.replace(both, status=status, detail=_named(method, found).detail))
        return done[-1]


def _plan(problem: Problem) -> list[Sdp | Exact]:
    """The sharper methods, one after another."""
    patterns, boxes = has_patterns(problem.network), Exact().domain_reason(problem) is None
    plan: list[Sdp | Exact] = [] if patterns and boxes else [Sdp()]
    if boxes and (patterns or problem.network.in_size <= _FEW):
        plan.append(Exact())
    return plan


def _named(method: Method, found: Bound) -> Bound:
    """What a method found, whose name its detail begins with."""
    return dataclasses.replace(found, detail=f"{method.name}: {found.detail}" if found.detail else "")
