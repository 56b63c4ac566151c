"""The quadratic-gate bound in the tree (docs/quadratic-gates.md), solved as far as it helps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from lipcompare.branching.bounds.base import Relaxed, Settings, SubdomainBound
from lipcompare.branching.bounds.lbp import LinearBound
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.heuristics import Area, Candidates, Heuristic, Moments
from lipcompare.branching.multipliers import gate_numbers, recall, remember
from lipcompare.branching.subdomains import Subdomains
from lipcompare.budget import CACHED_ENTRIES
from lipcompare.gates import Gates
from lipcompare.problem import Norm
from lipcompare.quadratic.bound import sdp_bound
from lipcompare.quadratic.cuts.separation import tighten
from lipcompare.quadratic.memory import first_seconds, program_bytes
from lipcompare.quadratic.patterns import Patterns, evaluate, explore, improve, joined
from lipcompare.quadratic.program import SdpData, coordinate_count, gate_maps, l1_data, l2_data
from lipcompare.quadratic.solver.certificate import certify
from lipcompare.quadratic.solver.interior_point import SdpSolution, solve
from lipcompare.rounding import raised, root_above

_PARTS = 10
"""At least so many programs must fit in the time that is left for one of a part of the box to be worth its time."""
_STEPS = 10
"""Iterations of a program, about."""


@final
class Sdp:
    """The quadratic-gate bound: a subdomain costs more and closes sooner."""

    name: ClassVar[str] = "sdp"
    propagation: ClassVar[str] = "lbp"
    sweeps: ClassVar[int] = 3
    passes: ClassVar[int] = 2

    def has_moments(self, norm: Norm) -> bool:
        return norm is not Norm.ONE  # one program per entry there, and none of them speaks for the subdomain

    def default_heuristic(self, norm: Norm) -> str:
        return "moment" if self.has_moments(norm) else "area"

    def on(self, numbering: Numbering, norm: Norm, heuristic: Heuristic, settings: Settings) -> SubdomainBound:
        return QuadraticBound(numbering, norm, heuristic, settings)


@dataclasses.dataclass(frozen=True, eq=False)
class QuadraticBound:
    """Programs of a batch of subdomains, solved together where they are of a size.

    Subdomains of at most ``cut_depth`` decisions that stay above the target are tightened by ``cuts`` cutting planes.
    """

    numbering: Numbering
    norm: Norm
    heuristic: Heuristic
    settings: Settings

    def __call__(self, batch: Subdomains, floor: float, target: float) -> Relaxed:
        if self.norm is Norm.ONE:
            return self._entries(batch, floor, target)
        count = coordinate_count(batch.gates, batch.gradients)
        size = count
        if self.norm is Norm.INF:
            lower, upper = batch.gradients.intervals[0]
            size = size + ((lower < 0) & (upper > 0)).sum((-2, -1))
        # A square that underflowed has no program, and would say nothing of its root.
        lost = (batch.linear > 0) & (batch.linear.square() == 0) & (self.norm is Norm.TWO)
        # The one time that the numbers are needed here.
        columns = torch.stack([size, count, lost.to(size.dtype), batch.depth]).cpu().numpy()
        solved, order = [], []
        for index in _batches(columns[0], columns[2] > 0, batch.linear.cpu().numpy()):
            largest, n = (int(columns[i][index].max()) for i in (0, 1))
            some = batch.select(torch.from_numpy(index).to(size.device))
            fits = not bool(columns[2][index[0]]) and self._fits(n, largest - n, columns[3][index], some.linear.device)
            solved.append((self._solve if fits else self._fallback)(some, floor, target))
            order.append(index)
        back = torch.from_numpy(np.argsort(np.concatenate(order))).to(size.device)
        fields = [f.name for f in dataclasses.fields(Relaxed)]
        return Relaxed(**{name: torch.cat([getattr(group, name) for group in solved])[back] for name in fields})

    def _fits(self, n: int, signs: int, depth: np.ndarray, device: torch.device) -> bool:
        """Whether programs of ``n`` coordinates fit in memory and time; ``depth`` is of each, (programs,)."""
        if program_bytes(n, signs) > self.settings.memory:
            return False
        deadline = self.settings.deadline
        first = len(depth) * first_seconds(self.numbering.network, n, signs, device)
        # The whole box is worth all of the time; a part of it only where there will be many.
        return not deadline.passed(first if not depth.all() else max(first, _PARTS * first * _STEPS))

    def _fallback(self, batch: Subdomains, floor: float, target: float) -> Relaxed:
        """The linear bound, where the program is not to be had."""
        heuristic = Area() if self.heuristic.reads_moments else self.heuristic
        return LinearBound(self.numbering, self.norm, heuristic)(batch, floor, target)

    def _entries(self, batch: Subdomains, floor: float, target: float) -> Relaxed:
        """p = 1: one program for every signed entry that might be above the target."""
        aim = torch.full_like(batch.linear, target * (1 - 1e-9))
        solved = sdp_bound(
            self.numbering.network,
            batch.gates,
            batch.functionals,
            batch.gradients,
            self.norm,
            tolerance=self.settings.tolerance,
            prune_below=aim,
            target=aim,
            memory=self.settings.memory,
            deadline=self.settings.deadline.at,
        )
        relaxed = self._fallback(batch, floor, target)
        return dataclasses.replace(relaxed, upper=torch.minimum(batch.linear, solved.upper.squeeze(1)))

    def _solve(self, batch: Subdomains, floor: float, target: float) -> Relaxed:
        gates, linear, settings = batch.gates, batch.linear, self.settings
        maps = gate_maps(self.numbering.network, gates, batch.functionals, batch.gradients)
        index = torch.arange(len(linear), device=linear.device)
        row = torch.zeros_like(index)
        squared = self.norm is Norm.TWO
        if squared:
            data = l2_data(maps, raised(linear.square(), 1), index, row)
            floor, target = floor**2, target**2
        else:
            data = l1_data(maps, batch.gradients, linear, index, row)
        patterns = explore(data)
        goal = target * (1 - 1e-9) / data.scale - data.offset
        start = recall(data, batch.multipliers, self.numbering)
        solution = solve(data, tolerance=settings.tolerance, target=goal, start=start, deadline=settings.deadline)
        upper = certify(data, solution.dual) * data.scale
        near = (batch.depth <= settings.cut_depth) & (upper > target)
        if settings.cuts and self.norm is Norm.INF and bool(near.any()):
            some = near.nonzero().squeeze(-1)
            tightened = tighten(
                data.select(some),
                solution.select(some),
                maps,
                some,
                row[some],
                cuts=settings.cuts,
                tolerance=settings.tolerance,
                deadline=settings.deadline,
            )
            upper[some] = torch.minimum(upper[some], tightened.upper)
        patterns = joined(patterns, _rounded(data, solution))
        best = patterns.values.argmax(-1)
        value = patterns.values[index, best] * data.scale
        if squared:
            upper = root_above(upper, linear.square())
            value = value.clamp(min=0).sqrt()
        return Relaxed(
            upper=torch.minimum(linear, upper),
            score=self.heuristic(Candidates(self.numbering, self.norm, batch, Moments(data, solution))),
            slopes=self._slopes(data, gates, patterns.high[index, best]),
            value=value,
            multipliers=remember(data, solution.dual, self.numbering),
        )

    def _slopes(self, data: SdpData, gates: Gates, high: Tensor) -> Tensor:
        """Slopes (subdomains, gates) of patterns (subdomains, n)."""
        low = self.numbering.join({k: s.lower for k, s in gates.slopes.items()})
        top = self.numbering.join({k: s.upper for k, s in gates.slopes.items()})
        number = gate_numbers(data, self.numbering)
        chosen = torch.zeros_like(low, dtype=torch.bool)
        chosen.scatter_(1, number[:, 1:], high[:, 1:] & data.mask[:, 1:])
        return torch.where(chosen, top, low)


def _batches(size: np.ndarray, lost: np.ndarray, linear: np.ndarray) -> Iterator[np.ndarray]:
    """Subdomains (some,) to be solved together; those with a program of their own by their bounds, largest first.

    Args:
        size: numbers (subdomains,) of coordinates and signs.
        lost: which have no program.
        linear: their linear bounds.
    """
    alone = 2 * size**2 > CACHED_ENTRIES
    order = np.lexsort([-linear, np.where(lost, -1, np.where(alone, size.max(), size))])
    start = 0
    while start < len(order):
        # Programs of a batch are padded to the largest.
        stop = start + 1
        while (
            stop < len(order)
            and (stop + 1 - start) * size[order[stop]] ** 2 <= CACHED_ENTRIES
            and lost[order[stop]] == lost[order[start]]
        ):
            stop += 1
        yield order[start:stop]
        start = stop


def _rounded(data: SdpData, solution: SdpSolution) -> Patterns:
    """Patterns near the moment matrix: gates as the mean point has them, then local search."""
    moments = solution.moments
    mean = moments[..., 0] / moments[:, :1, 0]
    incoming = mean - 2 * (mean.unsqueeze(-2) @ data.columns).squeeze(-2)
    high = mean * incoming > 0.5 * incoming.square()
    high[:, 0] = True
    return improve(data, evaluate(data, high.unsqueeze(1)), 4)
