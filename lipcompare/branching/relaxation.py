"""What bounds a subdomain: the paper's linear relaxation or the quadratic-gate one, with scores for splitting.

A relaxation is a function of the gates, as everything in ``jacobian``; it also says how promising a split on each gate
and on each sign of the input gradient is, and proposes a pattern of the gates that might attain its value.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Protocol

import torch
from torch import Tensor

from lipcompare.branching.decisions import Numbering
from lipcompare.branching.multipliers import gate_numbers, recall, remember
from lipcompare.branching.tangents import gate_weights
from lipcompare.gates import Gates
from lipcompare.jacobian import Gradients
from lipcompare.network.interval import Interval
from lipcompare.problem import Norm
from lipcompare.quadratic.bound import sdp_bound
from lipcompare.quadratic.cuts.separation import tighten
from lipcompare.quadratic.patterns import Patterns, evaluate, explore, improve
from lipcompare.quadratic.program import SdpData, coordinate_count, gate_maps, l1_data, l2_data
from lipcompare.quadratic.solver.certificate import certify
from lipcompare.quadratic.solver.interior_point import Solution, solve

_CACHE = 2**17
"""Matrix entries of a batch of programs: more than this falls out of a processor's caches."""


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A batch of subdomains with one row each.

    Attributes:
        gates: slope ranges.
        functionals: (subdomains, 1, outputs).
        gradients: intervals and lines of the gradients.
        linear: (subdomains,) the linear bound.
        kept: (subdomains, 1 + gates + inputs) multipliers that the parents left (:class:`Relaxed`).
        depth: (subdomains,) number of decisions that lead there.
    """

    gates: Gates
    functionals: Tensor
    gradients: Gradients
    linear: Tensor
    kept: Tensor
    depth: Tensor

    def select(self, index: Tensor) -> Part:
        """Some of the subdomains."""
        return Part(
            select_gates(self.gates, index),
            self.functionals[index],
            select_gradients(self.gradients, index),
            self.linear[index],
            self.kept[index],
            self.depth[index],
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Relaxed:
    """Bounds on a batch of subdomains, one row each.

    Attributes:
        upper: (subdomains,) certified.
        score: (subdomains, gates + inputs) how much a split should gain; 0 where there is nothing to split.
        slopes: (subdomains, gates) a pattern that might attain the bound.
        value: (subdomains,) what this pattern gives if an input attains it; 0 for no proposal.
        kept: (subdomains, 1 + gates + inputs) multipliers for the parts to start from, zeros for none.
    """

    upper: Tensor
    score: Tensor
    slopes: Tensor
    value: Tensor
    kept: Tensor


class Relaxation(Protocol):
    """Bounds a batch of subdomains."""

    def __call__(self, part: Part, floor: float, target: float) -> Relaxed:
        """Bound the subdomains.

        Args:
            part: subdomains whose linear bound is above ``target``.
            floor: the best value attained so far.
            target: a smaller bound is of no use.
        """


class Heuristic(enum.Enum):
    """Which gate to split."""

    DEFAULT = "default"
    AREA = "area"
    BABSR = "babsr"
    MOMENT = "moment"


def linear_scores(numbering: Numbering, part: Part, norm: Norm, heuristic: Heuristic) -> Tensor:
    """The paper's two scores, (subdomains, gates + inputs); only gates that are undecided have one.

    ``area``: the area between the two chords around ``a J``, times the weight with which the bound uses the gate (arXiv
    2210.07394, section 3.4). ``babsr``: what the chords' constants add to the bound (Bunel et al. 2020, arXiv
    1909.06588, applied to the backward network).
    """
    gates, gradients = part.gates, part.gradients
    weights = gate_weights(numbering.network, part.functionals, gradients, norm)
    scores = {}
    for k in numbering.network.activations:
        slope = gates.slopes[k]
        if k not in gradients.intervals or k not in weights:
            scores[k] = torch.zeros_like(slope.lower)
            continue
        lower, upper = (v.squeeze(1) for v in gradients.intervals[k])
        below, above = lower.clamp(max=0), upper.clamp(min=0)
        width = slope.upper - slope.lower
        if heuristic is Heuristic.AREA:
            score = width * (
                above.square() + below.square() - (lower.clamp(min=0).square() + upper.clamp(max=0).square())
            )
        else:
            score = width * above * -below / (above - below).clamp(min=1e-300)
        # A gate whose gradient has a sign costs the linear bound nothing, but its decision may settle others.
        known = torch.where(width > 0, 1e-6 * torch.maximum(above, -below), 0.0)
        scores[k] = (score * weights[k].squeeze(1) + known) * (width > 0)
    flat = numbering.join(scores)
    return torch.cat([flat, flat.new_zeros(len(flat), numbering.network.in_size)], -1)


@dataclasses.dataclass(frozen=True, eq=False)
class LinearRelaxation:
    """The paper's bound: nothing to add to the linear bound but the scores."""

    numbering: Numbering
    norm: Norm
    heuristic: Heuristic

    def __call__(self, part: Part, floor: float, target: float) -> Relaxed:
        score = linear_scores(self.numbering, part, self.norm, self.heuristic)
        slopes = self.numbering.join({k: s.upper for k, s in part.gates.slopes.items()})
        return Relaxed(part.linear, score, slopes, torch.zeros_like(part.linear), torch.zeros_like(part.kept))


@dataclasses.dataclass(frozen=True, eq=False)
class QuadraticRelaxation:
    """The quadratic-gate bound (docs/quadratic-gates.md), solved as far as it helps.

    ``heuristic`` MOMENT scores a gate by how far the moments are from those of a single point, weighted with the
    gate's multiplier: what the gate contributes to the difference between the bound and the value at the mean point.
    Subdomains of at most ``cut_depth`` decisions that stay above the target are tightened by ``cuts`` cutting planes.
    """

    numbering: Numbering
    norm: Norm
    heuristic: Heuristic
    tolerance: float
    memory: int = 2**30
    cuts: int = 0
    cut_depth: int = 0

    def __call__(self, part: Part, floor: float, target: float) -> Relaxed:
        if self.norm is Norm.ONE:
            return self._entries(part, floor, target)
        size = coordinate_count(part.gates, part.gradients)
        if self.norm is Norm.INF:
            lower, upper = part.gradients.intervals[0]
            size = size + ((lower < 0) & (upper > 0)).sum((-2, -1))
        parts, order = [], torch.argsort(size, stable=True)
        start = 0
        while start < len(order):
            # Programs of a batch are padded to the largest.
            stop = start + 1
            while stop < len(order) and (stop + 1 - start) * int(size[order[stop]]) ** 2 <= _CACHE:
                stop += 1
            index = order[start:stop]
            fits = 8 * 40 * int(size[index].max()) ** 2 <= self.memory
            parts.append((self._solve if fits else self._fallback)(part.select(index), floor, target))
            start = stop
        back = torch.argsort(order)
        return Relaxed(*(torch.cat([getattr(p, f.name) for p in parts])[back] for f in dataclasses.fields(Relaxed)))

    def _fallback(self, part: Part, floor: float, target: float) -> Relaxed:
        """The linear bound, where the program is not to be had."""
        heuristic = Heuristic.AREA if self.heuristic is Heuristic.MOMENT else self.heuristic
        return LinearRelaxation(self.numbering, self.norm, heuristic)(part, floor, target)

    def _entries(self, part: Part, floor: float, target: float) -> Relaxed:
        """p = 1: one program for every signed entry that might be above the target."""
        aim = torch.full_like(part.linear, target * (1 - 1e-9))
        solved = sdp_bound(
            self.numbering.network, part.gates, part.functionals, part.gradients, self.norm, tolerance=self.tolerance,
            prune_below=aim, target=aim, memory=self.memory,
        )  # fmt: skip
        relaxed = self._fallback(part, floor, target)
        return dataclasses.replace(relaxed, upper=torch.minimum(part.linear, solved.upper.squeeze(1)))

    def _solve(self, part: Part, floor: float, target: float) -> Relaxed:
        gates, linear = part.gates, part.linear
        maps = gate_maps(self.numbering.network, gates, part.functionals, part.gradients)
        here = torch.arange(len(linear), device=linear.device)
        row = torch.zeros_like(here)
        squared = self.norm is Norm.TWO
        if squared:
            data = l2_data(maps, linear.square() * (1 + 1e-15), here, row)
            floor, target = floor**2, target**2
        else:
            data = l1_data(maps, part.gradients, linear, here, row)
        found = explore(data)
        goal = target * (1 - 1e-9) / data.scale - data.offset
        solution = solve(data, tolerance=self.tolerance, target=goal, start=recall(data, part.kept, self.numbering))
        upper = certify(data, solution.dual) * data.scale
        near = (part.depth <= self.cut_depth) & (upper > target)
        if self.cuts and self.norm is Norm.INF and bool(near.any()):
            some = near.nonzero().squeeze(-1)
            tightened = tighten(
                data.select(some), solution.select(some), maps, some, row[some],
                cuts=self.cuts, tolerance=self.tolerance,
            )  # fmt: skip
            upper[some] = torch.minimum(upper[some], tightened.upper)
        found = _better(found, _rounded(data, solution))
        best = found.values.argmax(-1)
        value = found.values[here, best] * data.scale
        if squared:
            upper, value = upper.clamp(min=0).sqrt() * (1 + 1e-15), value.clamp(min=0).sqrt()
        if self.heuristic is Heuristic.MOMENT:
            score = self._scores(data, solution)
        else:
            score = linear_scores(self.numbering, part, self.norm, self.heuristic)
        slopes = self._slopes(data, gates, found.high[here, best])
        left = remember(data, solution.dual, self.numbering)
        return Relaxed(torch.minimum(linear, upper), score, slopes, value, left)

    def _scores(self, data: SdpData, solution: Solution) -> Tensor:
        moments = solution.moments
        mean = moments[..., 0] / moments[:, :1, 0]
        incoming = mean - 2 * (mean.unsqueeze(-2) @ data.columns).squeeze(-2)
        spread = (mean * (incoming - mean)).abs()
        variance = (moments.diagonal(dim1=-2, dim2=-1) - mean.square()).clamp(min=0)
        gate = solution.dual.theta.abs() * (spread + 0.1 * variance) * data.mask
        number = gate_numbers(data, self.numbering)
        score = mean.new_zeros(len(mean), self.numbering.count)
        score.scatter_add_(1, number[:, 1:], gate[:, 1:])
        if data.entries.shape[-1]:
            second = ((data.entries.mT @ moments) * data.entries.mT).sum(-1).clamp(min=0)
            first_moment = (mean.unsqueeze(-2) @ data.entries).squeeze(-2)
            loss = (second.sqrt() - first_moment.abs()).clamp(min=0) * data.entry_mask
            score.scatter_add_(1, self.numbering.gates + data.entry, loss)
        return score

    def _slopes(self, data: SdpData, gates: Gates, high: Tensor) -> Tensor:
        low = self.numbering.join({k: s.lower for k, s in gates.slopes.items()})
        top = self.numbering.join({k: s.upper for k, s in gates.slopes.items()})
        number = gate_numbers(data, self.numbering)
        chosen = torch.zeros_like(low, dtype=torch.bool)
        chosen.scatter_(1, number[:, 1:], high[:, 1:] & data.mask[:, 1:])
        return torch.where(chosen, top, low)


def _rounded(data: SdpData, solution: Solution) -> Patterns:
    """Patterns near the moment matrix: gates as the mean point has them, then local search."""
    moments = solution.moments
    mean = moments[..., 0] / moments[:, :1, 0]
    incoming = mean - 2 * (mean.unsqueeze(-2) @ data.columns).squeeze(-2)
    high = mean * incoming > 0.5 * incoming.square()
    high[:, 0] = True
    return improve(data, evaluate(data, high.unsqueeze(1)), 4)


def _better(first: Patterns, second: Patterns) -> Patterns:
    return Patterns(*(torch.cat(pair, 1) for pair in zip(
        (first.high, first.points, first.values), (second.high, second.points, second.values), strict=True
    )))  # fmt: skip


def select_gates(gates: Gates, index: Tensor) -> Gates:
    return Gates({k: Interval(s.lower[index], s.upper[index]) for k, s in gates.slopes.items()})


def select_gradients(gradients: Gradients, index: Tensor) -> Gradients:
    """The gradients of some subdomains."""

    def pick(value: Tensor) -> Tensor:
        return value[index] if value.shape[0] > 1 else value

    lines = {
        k: line._replace(**{name: pick(value) for name, value in line._asdict().items() if value is not None})
        for k, line in gradients.lines.items()
    }
    intervals = {k: Interval(s.lower[index], s.upper[index]) for k, s in gradients.intervals.items()}
    return Gradients(intervals, lines, gradients.constant)
