"""Branch and bound in the whole input space: nothing is propagated forwards there, and regions may be unbounded.

A decision on a gate says nothing of the others, so a subdomain is a set of decided gates, and its bound that of its
gates alone. A pattern counts unless the exact certificate of :mod:`lipcompare.regions.unbounded` says that its closed
region is empty; the gates that contradict each other are decided next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from lipcompare import jacobian
from lipcompare.branching.bounds import Relaxed, SubdomainBound
from lipcompare.branching.cuts import NamedCuts
from lipcompare.branching.decisions import LAST, SCORELESS, Numbering
from lipcompare.branching.driver import Assessment
from lipcompare.branching.subdomains import Subdomains
from lipcompare.branching.tree import Subdomain
from lipcompare.budget import Deadline
from lipcompare.gates import Gates
from lipcompare.jacobian import pattern_bound
from lipcompare.network.interval import Interval
from lipcompare.problem import Problem
from lipcompare.regions.unbounded import WholeSpace
from lipcompare.result import Witness
from lipcompare.rounding import TIE


def all_slopes(numbering: Numbering, like: Tensor) -> Interval:
    """The slopes (gates,) on both sides of every kink."""
    network = numbering.network
    zeros = {k: like.new_zeros(network.nodes[k].size) for k in network.activations}
    ends = {k: network.activation(k).slopes_anywhere(z) for k, z in zeros.items()}
    return Interval(*(numbering.join({k: e[side] for k, e in ends.items()}) for side in (0, 1)))


def decided_ranges(numbering: Numbering, ends: Interval, nodes: Sequence[Subdomain]) -> Interval:
    """Slope ranges (subdomains, gates) that decisions alone leave."""
    signs, _ = numbering.signs([np.array(node.decisions, dtype=np.int64) for node in nodes])
    sign = numbering.join(signs).to(ends.lower.device)
    low = torch.where(sign > 0, ends.upper, ends.lower)
    return Interval(low, torch.where(sign < 0, ends.lower, ends.upper))


@dataclasses.dataclass(eq=False)
class EverywhereEvaluator:
    """Bounds subdomains of the whole space for a network with patterns, in float64.

    Attributes:
        problem: one example.
        bound: what bounds the gradient beyond ``propagation``, which comes first.
        programs: linear programs solved so far.
        deadline: when it has passed, no program is begun.
        shares: rows go their own ways.
    """

    shares: ClassVar[bool] = False

    problem: Problem
    bound: SubdomainBound
    propagation: jacobian.Relaxation = jacobian.RELAXATIONS["lbp"]
    memory: int = 2**30
    programs: int = 0
    deadline: Deadline = dataclasses.field(default_factory=Deadline)

    def __post_init__(self) -> None:
        network = self.problem.network
        self.numbering, self.space = Numbering(network), WholeSpace(network)
        like = self.problem.functionals
        self.ends = all_slopes(self.numbering, like)
        self.reference = self.numbering.join(network.slopes(network.values(self.problem.box.window.center[0])))

    def evaluate(self, nodes: Sequence[Subdomain], floor: float, target: float) -> list[Assessment]:
        """See :class:`~lipcompare.branching.driver.Evaluator`."""
        network, norm = self.problem.network, self.problem.norm
        like = self.problem.functionals
        low, high = decided_ranges(self.numbering, self.ends, nodes)
        lows, highs = self.numbering.split(low), self.numbering.split(high)
        gates = Gates({k: Interval(lows[k], highs[k]) for k in network.activations})
        functionals = self.problem.functionals[0, [node.row for node in nodes]].unsqueeze(1)
        gradients = self.propagation.gradients(network, gates, functionals, norm=norm, memory=self.memory)
        linear = self.propagation.norms(network, gates, functionals, gradients, norm).squeeze(1)
        batch = Subdomains(
            gates=gates,
            functionals=functionals,
            gradients=gradients,
            linear=linear,
            multipliers=like.new_zeros(len(nodes), 1 + self.numbering.count),
            cuts=NamedCuts.none(len(nodes), like),
            depth=torch.tensor([len(node.decisions) for node in nodes], device=like.device),
        )
        results = [Assessment(value) for value in linear.tolist()]
        open_ = (linear > target).nonzero().squeeze(-1)
        if not len(open_):
            return results
        batch = batch.select(open_)
        relaxed = self.bound(batch, floor, target)
        for position, i in enumerate(open_.tolist()):
            results[i] = self._settle(batch, relaxed, position, nodes[i].row, low[i], high[i], floor, target)
        return results

    def _settle(
        self, batch: Subdomains, relaxed: Relaxed, i: int, row: int, low: Tensor, high: Tensor, floor: float,
        target: float,
    ) -> Assessment:  # fmt: skip
        """What to do with one subdomain: close it, or split it."""
        upper = float(relaxed.upper[i])
        if upper <= target:
            return Assessment(upper)
        undecided = high > low
        reach = {k: v.magnitude[i, 0] for k, v in batch.gradients.intervals.items() if k in batch.gates.slopes}
        present = {k: reach[k] > 0 if k in reach else s.lower[i] > torch.inf for k, s in batch.gates.slopes.items()}
        relevant = undecided & self.numbering.join(present)
        score = relaxed.score[i][: self.numbering.gates]
        first = torch.where(relevant, score + SCORELESS, torch.where(undecided, LAST, 0.0))
        chain = (2 * int(first.argmax()) + 1,) if bool(undecided.any()) else ()
        if bool(relevant.any()):
            slopes = torch.where(relevant, relaxed.slopes[i], torch.where(undecided, self.reference, low))
            if float(relaxed.value[i]) <= floor * (1 + TIE):
                return Assessment(upper, chain)
        else:
            slopes = torch.where(undecided, self.reference, low)
            pattern = {k: v.unsqueeze(0) for k, v in self.numbering.split(slopes).items()}
            norm = self.problem.norm
            upper = min(upper, float(pattern_bound(self.problem.network, pattern, batch.functionals[i : i + 1], norm)))
            if upper <= target:
                return Assessment(upper)
        if self.deadline.passed():
            return Assessment(upper, chain)
        self.programs += 1
        sides = slopes == self.ends.upper
        located = self.space.deepest(
            self.numbering.split(slopes), self.numbering.split(sides), time_limit=self.deadline.left
        )
        if located.empty:
            return self._exclude(upper, chain, first, undecided, located.conflict)
        witnesses = self._attained(row, located.point)
        return Assessment(upper, chain if bool(relevant.any()) else (), witnesses=witnesses)

    def _exclude(
        self, upper: float, chain: tuple[int, ...], score: Tensor, undecided: Tensor, conflict: tuple[int, ...]
    ) -> Assessment:
        """Split so that the contradiction is left behind soon: on a gate in it, or one on which it rests."""
        node_of = self.numbering.node_of
        last = max(node_of[g] for g in conflict)
        open_ = undecided.cpu().numpy()
        together = [g for g in range(len(open_)) if open_[g] and (g in conflict or node_of[g] < last)]
        if not together:
            return Assessment(-np.inf)
        named = [g for g in conflict if open_[g]]
        return Assessment(upper, (2 * max(named or together, key=lambda g: float(score[g])) + 1,))

    def _attained(self, row: int, point: np.ndarray | None) -> tuple[Witness, ...]:
        if point is None:
            return ()
        network = self.problem.network
        x = torch.as_tensor(point).to(self.problem.functionals)
        gradient = network.pull_back(network.slopes(network.values(x)), self.problem.functionals[0, row])
        return (Witness(row, float(self.problem.norm.dual.of(gradient)), point),)
