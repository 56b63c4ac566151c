"""The quadratic-gate bound in the tree (docs/quadratic-gates.md), solved as far as it helps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from lipcompare.branching.bounds.base import Relaxed, Settings, SubdomainBound
from lipcompare.branching.bounds.lbp import LinearBound
from lipcompare.branching.cuts import FIRST, MOST_SIGNS, NamedCuts, solve_with_cuts
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.heuristics import Area, Candidates, Heuristic, Moments
from lipcompare.branching.multipliers import gate_numbers, recall, remember
from lipcompare.branching.subdomains import Subdomains
from lipcompare.budget import CACHED_ENTRIES, fitting
from lipcompare.gates import Gates
from lipcompare.network.interval import Interval
from lipcompare.problem import Norm
from lipcompare.quadratic.bound import sdp_bound
from lipcompare.quadratic.cuts.separation import tightened_bytes
from lipcompare.quadratic.memory import first_seconds, maps_bytes, program_bytes
from lipcompare.quadratic.patterns import Patterns, evaluate, explore, improve, joined
from lipcompare.quadratic.program import GateMaps, SdpData, coordinate_count, gate_maps, l1_data, l2_data
from lipcompare.quadratic.solver.certificate import certify
from lipcompare.quadratic.solver.dual import Dual
from lipcompare.quadratic.solver.interior_point import SdpSolution, solve
from lipcompare.rounding import root_above

_UNDER = 1 - 1e-9
"""Share of a target that is aimed at: what comes out is raised by its rounding and must still not be above it."""
_PARTS = 10
"""At least so many programs must fit in the time that is left for one of a part of the box to be worth its time."""
_WORTH = 1.03
"""Bounds above so much of the target are worth cuts."""
_LARGE = 80
"""Coordinates of a program that begins with cuts: smaller ones are so quick without them that more of them get further
in the same time."""
_NEAR = 0
"""Decisions up to which a subdomain begins with cuts: a row that does without them at the root is not tried again."""
_AGAIN = 4
"""Every so many decisions inherited cuts are exchanged for better ones."""
_PAYS = 0.2
"""Share of the distance to the target that cuts must gain, else the subdomain and its parts go without: a program with
cuts takes five to ten times as long."""
_STEPS = 10
"""Iterations of a program, about."""


@final
class Sdp:
    """The quadratic-gate bound: a subdomain costs more and closes sooner."""

    name: ClassVar[str] = "sdp"
    propagation: ClassVar[str] = "lbp"
    pivots: ClassVar[int] = 6
    passes: ClassVar[int] = 2
    shares: ClassVar[bool] = False

    def has_moments(self, norm: Norm) -> bool:
        return norm is not Norm.ONE  # one program per entry there, and none of them speaks for the subdomain

    def default_heuristic(self, norm: Norm) -> str:
        return "mixed" if self.has_moments(norm) else "area"

    def on(self, numbering: Numbering, norm: Norm, heuristic: Heuristic, settings: Settings) -> SubdomainBound:
        return QuadraticBound(numbering, norm, heuristic, settings)


@dataclasses.dataclass(frozen=True, eq=False)
class QuadraticBound:
    """Programs of a batch of subdomains, solved together where they are of a size.

    Near the root, subdomains that stay well above the target get up to ``cuts`` cutting planes, which their parts
    inherit (:mod:`~lipcompare.branching.cuts`) if they pay.
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
        cut = (batch.cuts.nu > 0).sum(-1)
        # The one time that the numbers are needed here.
        columns = torch.stack([size, count, lost.to(size.dtype), batch.depth, cut]).cpu().numpy()
        solved, order = [], []
        kind = np.where(columns[2] > 0, -1, np.where(columns[4] > 0, 1 + (columns[3] % _AGAIN == 0), 0))
        together = _cached if size.device.type == "cpu" else self._fitting
        for index in _batches(columns[0] + columns[4], kind, batch.linear.cpu().numpy(), together):
            largest, n = (int(columns[i][index].max()) for i in (0, 1))
            some = batch.select(torch.from_numpy(index).to(size.device))
            fits = not bool(columns[2][index[0]]) and self._fits(n, largest - n, columns[3][index], some.linear.device)
            solved.append((self._solve if fits else self._fallback)(some, floor, target))
            order.append(index)
        back = torch.from_numpy(np.argsort(np.concatenate(order))).to(size.device)
        fields = [f.name for f in dataclasses.fields(Relaxed) if f.name != "cuts"]
        return Relaxed(
            **{name: torch.cat([getattr(group, name) for group in solved])[back] for name in fields},
            cuts=NamedCuts.joined([group.cuts for group in solved]).select(back),
        )

    def _fitting(self, size: int) -> int:
        """How many programs of so many coordinates, signs and cuts fit in memory together, with the cuts to come."""
        settings = self.settings
        each = max(maps_bytes(self.numbering.network, size, 1), program_bytes(size, 0))
        return fitting(settings.memory, max(each, tightened_bytes(size, settings.cuts, False) if settings.cuts else 0))

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
        aim = torch.full_like(batch.linear, target * _UNDER)
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
        gates, linear, settings, aim = batch.gates, batch.linear, self.settings, target
        maps = gate_maps(self.numbering.network, gates, batch.functionals, batch.gradients)
        index = torch.arange(len(linear), device=linear.device)
        row = torch.zeros_like(index)
        squared = self.norm is Norm.TWO
        if squared:
            data = l2_data(maps, linear.square(), index, row)  # a scale: no more is asked of it than not to be 0
            floor, target = floor**2, target**2
        else:
            data = l1_data(maps, batch.gradients, linear, index, row)
        patterns = explore(data)
        goal = target * _UNDER / data.scale - data.offset
        if bool((batch.cuts.nu > 0).any()):
            again = int(bool((batch.depth % _AGAIN == 0).any()))
            upper, solution, cuts = self._with_cuts(data, maps, batch, None, goal, again)
        else:
            start = recall(data, batch.multipliers, self.numbering)
            solution = solve(data, tolerance=settings.tolerance, target=goal, start=start, deadline=settings.deadline)
            upper, cuts = certify(data, solution.dual), NamedCuts.none(len(linear), linear)
            worth = (upper * data.scale > _WORTH * target) & (batch.depth <= _NEAR)
            if self._affords_cuts(data) and bool(worth.any()):
                upper, solution, cuts = self._begun(data, maps, batch, upper, solution, goal, worth)
        upper = upper * data.scale
        patterns = joined(patterns, _rounded(data, solution))
        best = patterns.values.argmax(-1)
        value = patterns.values[index, best] * data.scale
        if squared:
            upper = root_above(upper, linear.square())
            value = value.clamp(min=0).sqrt()
        upper, moments = torch.minimum(linear, upper), Moments(data, solution)
        return Relaxed(
            upper=upper,
            score=self.heuristic(Candidates.above(aim, upper, self.numbering, self.norm, batch, moments)),
            slopes=self._slopes(data, gates, patterns.high[index, best]),
            value=value,
            multipliers=remember(data, solution.dual, self.numbering),
            cuts=cuts,
        )

    def _affords_cuts(self, data: SdpData) -> bool:
        """Whether programs are to have cuts, and these fit in memory and time."""
        settings, signs = self.settings, data.entries.shape[-1]
        if not settings.cuts or self.norm is not Norm.INF or not 0 < signs <= MOST_SIGNS or data.size < _LARGE:
            return False
        if tightened_bytes(data.size, settings.cuts, False) > settings.memory:
            return False
        each = first_seconds(self.numbering.network, data.size, signs + settings.cuts, data.row.device)
        return not settings.deadline.passed(_PARTS * _STEPS * data.problems * each)

    def _begun(
        self,
        data: SdpData,
        maps: GateMaps,
        batch: Subdomains,
        upper: Tensor,
        solution: SdpSolution,
        goal: Tensor,
        worth: Tensor,
    ) -> tuple[Tensor, SdpSolution, NamedCuts]:
        """Cuts for those programs that are worth them, kept where they pay."""
        some = worth.nonzero().squeeze(-1)
        before = upper[some]
        after, solved, cuts = self._with_cuts(
            data.select(some), maps, batch.select(some), solution.moments[some], goal[some], FIRST
        )
        pay = (before - after >= _PAYS * (before - goal[some])).nonzero().squeeze(-1)
        paying = some[pay]
        upper = upper.index_copy(0, some, torch.minimum(before, after))
        return upper, _replaced(solution, paying, solved.select(pay)), cuts.select(pay).put(paying, len(upper))

    def _with_cuts(
        self, data: SdpData, maps: GateMaps, batch: Subdomains, moments: Tensor | None, goal: Tensor, rounds: int
    ) -> tuple[Tensor, SdpSolution, NamedCuts]:
        """Bounds in scaled units, solutions and cuts of programs."""
        made = solve_with_cuts(
            data,
            maps,
            Interval(*(v.squeeze(1) for v in batch.gradients.intervals[0])),
            self.numbering,
            batch.multipliers,
            batch.cuts,
            moments,
            most=self.settings.cuts,
            rounds=rounds,
            tolerance=self.settings.tolerance,
            target=goal,
            deadline=self.settings.deadline,
        )
        return made.upper, made.solution, made.cuts

    def _slopes(self, data: SdpData, gates: Gates, high: Tensor) -> Tensor:
        """Slopes (subdomains, gates) of patterns (subdomains, n)."""
        low = self.numbering.join({k: s.lower for k, s in gates.slopes.items()})
        top = self.numbering.join({k: s.upper for k, s in gates.slopes.items()})
        number = gate_numbers(data, self.numbering)
        chosen = torch.zeros_like(low, dtype=torch.bool)
        chosen.scatter_(1, number[:, 1:], high[:, 1:] & data.mask[:, 1:])
        return torch.where(chosen, top, low)


def _cached(size: int) -> int:
    """How many programs of so many coordinates, signs and cuts fit in a processor's cache together."""
    return max(1, CACHED_ENTRIES // max(1, size**2))


def _batches(
    size: np.ndarray, kind: np.ndarray, linear: np.ndarray, together: Callable[[int], int]
) -> Iterator[np.ndarray]:
    """Subdomains (some,) to be solved together; those with a program of their own by their bounds, largest first.

    Args:
        size: numbers (subdomains,) of coordinates, signs and cuts.
        kind: -1 for those without a program, then without cuts, with cuts, and with new ones.
        linear: their linear bounds.
        together: how many programs of a size are to be solved together.
    """
    alone = np.array([together(int(n)) < 2 for n in size])
    order = np.lexsort([-linear, np.where(kind < 0, -1, np.where(alone, size.max(), size)), kind])
    start = 0
    while start < len(order):
        # Programs of a batch are padded to the largest.
        stop = start + 1
        while (
            stop < len(order)
            and stop + 1 - start <= together(int(size[order[stop]]))
            and kind[order[stop]] == kind[order[start]]
        ):
            stop += 1
        yield order[start:stop]
        start = stop


def _replaced(solution: SdpSolution, some: Tensor, other: SdpSolution) -> SdpSolution:
    """The solution with that of the programs ``some`` (some,) exchanged."""

    def put(old: Tensor, new: Tensor) -> Tensor:
        return old.index_copy(0, some, new)

    dual = Dual(*(put(getattr(solution.dual, n), getattr(other.dual, n)) for n in ("theta", "lam", "d")))
    return dataclasses.replace(solution, dual=dual, moments=put(solution.moments, other.moments))


def _rounded(data: SdpData, solution: SdpSolution) -> Patterns:
    """Patterns near the moment matrix: gates as the mean point has them, then local search."""
    moments = solution.moments
    mean = moments[..., 0] / moments[:, :1, 0]
    incoming = mean - 2 * (mean.unsqueeze(-2) @ data.columns).squeeze(-2)
    high = mean * incoming > 0.5 * incoming.square()
    high[:, 0] = True
    return improve(data, evaluate(data, high.unsqueeze(1)), 4)
