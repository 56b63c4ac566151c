"""Activation regions in the order of the layers, each checked by a linear program (LipBaB, Bhowmick et al. 2021).

The next neuron to decide is always the first undecided one, so that its pre-activation is affine where the earlier
decisions hold and a linear program says whether a subdomain is empty. Gradients are bounded by interval arithmetic.

A subdomain that has a point of the one it was split from needs no program, and what a program said holds for all rows:
they are decided in the same order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lipcompare.branching.decisions import Numbering
from lipcompare.branching.driver import EMPTY, Assessment
from lipcompare.branching.tree import Subdomain
from lipcompare.budget import Deadline
from lipcompare.gates import Gates
from lipcompare.jacobian import interval_gradient
from lipcompare.network.interval import Interval
from lipcompare.preactivation.split import split_bounds
from lipcompare.problem import Problem
from lipcompare.regions.program import Deepest, deepest, fitting_regions, regions_of
from lipcompare.result import Witness
from lipcompare.rounding import raised
from lipcompare.witness import clarke

_ENTRY, _SHARE = 300, 0.25
"""Bytes of an entry of a table besides its numbers, and the most that points of regions may take of the memory."""

Measure = Callable[[Tensor], Tensor]
"""From Jacobians (..., rows, inputs) to functions of them (..., functions), which those of absolute entries that bound
theirs are not below."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Located:
    """A point of a region, up to rounding.

    Attributes:
        point: (inputs,)
        slopes: (neurons,) there; NaN for neurons at their kink, or too near to tell.
        above: of a region with one Jacobian, the functions of it, rounded upward.
    """

    point: np.ndarray
    slopes: np.ndarray
    above: list[float] | None = None


class _Attained(NamedTuple):
    """What the functions attain at a point, and the slopes there as :class:`_Located` has them; None: no point."""

    witnesses: tuple[Witness, ...]
    slopes: np.ndarray | None


class _Found(NamedTuple):
    """What a linear program has just said of a region."""

    located: Deepest
    attained: _Attained


@dataclasses.dataclass(eq=False)
class RegionEvaluator:
    """Bounds functions of the Jacobian that grow with the absolute value of every entry.

    Attributes:
        problem: one example, float64.
        bounds: pre-activation bounds over the whole box, (1, neurons) per activation node.
        measure: what is bounded; the driver's rows are its functions.
        programs: linear programs solved so far.
        deadline: when it has passed, bounds are left as loose as they are and no program is begun.
        located: a point of a region by its decisions, in order; None where it is empty. Forgotten where they take up
            too much memory, which costs programs alone.
    """

    problem: Problem
    bounds: Mapping[int, Interval]
    measure: Measure
    memory: int = 2**30
    programs: int = 0
    deadline: Deadline = dataclasses.field(default_factory=Deadline)
    located: dict[tuple[int, ...], _Located | None] = dataclasses.field(default_factory=dict)

    def evaluate(self, nodes: Sequence[Subdomain], floor: float, target: float) -> list[Assessment]:
        """See :class:`~lipcompare.branching.driver.Evaluator`."""
        network, count = self.problem.network, len(nodes)
        numbering = Numbering(network)
        signs, _ = numbering.signs([np.array(node.decisions, dtype=np.int64) for node in nodes])
        device = self.problem.device
        signs = {k: s.to(device) for k, s in signs.items()}
        box = Interval(*(v.expand(count, -1) for v in self.problem.box.interval))
        split = split_bounds(
            network, box, signs, self.bounds, pivots=1, passes=1, memory=self.memory, deadline=self.deadline
        )
        functionals = self.problem.functionals.expand(count, -1, -1)
        gradients = interval_gradient(network, split.gates, functionals)
        # The norm of a magnitude is a sum without cancellation, or a singular value.
        upper = raised(self.measure(gradients.magnitude), 8 * sum(gradients.lower.shape[-2:]))
        low, high = (numbering.join({k: s[end] for k, s in split.gates.slopes.items()}) for end in (0, 1))
        some = upper[torch.arange(count, device=device), torch.tensor([node.row for node in nodes], device=device)]
        values = torch.where(split.empty, -torch.inf, some).tolist()
        undecided = high > low
        first = torch.where(undecided.any(-1), undecided.to(torch.uint8).argmax(-1), -1).tolist()
        # Bounds may have decided a gate where a region was split and leave it open here, by the rounding of another
        # batch. Later pre-activations are not affine until it is decided, so no program may speak of them.
        open_ = [
            i
            for i, node in enumerate(nodes)
            if values[i] > target and (first[i] < 0 or all(d >> 1 <= first[i] for d in node.decisions))
        ]
        found = self._found(numbering, {tuple(nodes[i].decisions): high[i] for i in open_})
        results = [
            Assessment(value, (2 * g + 1,) if g >= 0 and value > target else ())
            for value, g in zip(values, first, strict=True)
        ]
        for i in open_:
            results[i] = self._settle(numbering, nodes[i], results[i], high[i], found)
        return results

    def _found(self, numbering: Numbering, slopes: Mapping[tuple[int, ...], Tensor]) -> dict[tuple[int, ...], _Found]:
        """What linear programs say of the regions of some decisions of which nothing is known, all at once.

        Args:
            slopes: (neurons,) in the region of each.
        """
        for made, here in slopes.items():
            if made not in self.located:
                self._inherit(made, here)
        new = [made for made in slopes if made not in self.located]
        most = fitting_regions(self.problem.network, max(map(len, new), default=0), self.memory)
        found: dict[tuple[int, ...], _Found] = {}
        # Without a program nothing is found out, which only costs splits.
        while len(found) < len(new) and most and not self.deadline.passed():
            part = new[len(found) : len(found) + most]
            high = torch.stack([slopes[made] for made in part])
            located = self._programs(numbering, part, high)
            points = {i: one.point for i, one in enumerate(located) if one.point is not None}
            attained = self._attained(list(points.values()), high[list(points)]) if points else []
            at = dict(zip(points, attained, strict=True))
            found |= {made: _Found(located[i], at.get(i, _Attained((), None))) for i, made in enumerate(part)}
        return found

    def _settle(
        self,
        numbering: Numbering,
        node: Subdomain,
        bounded: Assessment,
        high: Tensor,
        found: Mapping[tuple[int, ...], _Found],
    ) -> Assessment:
        """What becomes of a region that its interval bound does not close; slopes (neurons,) of its gates.

        Args:
            bounded: what follows from its interval bound alone.
            found: what programs have just said of this region, if they were asked.
        """
        value, chain = bounded.upper, bounded.chain
        slopes, made = numbering.split(high), tuple(node.decisions)
        known = self.located.get(made)
        witnesses: tuple[Witness, ...] = ()
        if known is not None:
            if not chain and bool(np.isnan(known.slopes).any()):
                # At a kink the point may take what slopes this region has.
                ((witnesses, _),) = self._attained([known.point], high.unsqueeze(0))
        elif made in self.located:
            return EMPTY
        elif made not in found:
            return bounded
        elif found[made].located.empty:
            self._remember(made, None)
            return EMPTY
        else:
            point, (witnesses, there) = found[made].located.point, found[made].attained
            if point is not None and there is not None:
                known = _Located(point, there)
                self._remember(made, known)
        if chain:
            return Assessment(value, chain, witnesses=witnesses)
        above = None if known is None else known.above
        if above is None:
            above = self._values_above(slopes)
            if known is not None:
                self._remember(made, dataclasses.replace(known, above=above))
        return Assessment(min(value, above[node.row]), witnesses=witnesses)

    def _programs(self, numbering: Numbering, made: Sequence[tuple[int, ...]], high: Tensor) -> list[Deepest]:
        """What linear programs say of the regions of these decisions; slopes (regions, neurons)."""
        network, problem = self.problem.network, self.problem
        slopes = numbering.split(high)
        active = {k: slopes[k] == network.activation(k).slopes_anywhere(slopes[k]).upper for k in network.activations}
        rows = torch.zeros(high.shape, dtype=torch.bool)
        for i, decisions in enumerate(made):
            rows[i, [d >> 1 for d in decisions]] = True
        self.programs += len(made)
        box = Interval(*(v.expand(len(made), -1) for v in problem.box.interval))
        regions = regions_of(network, box, slopes, active, numbering.split(rows.to(high.device)))
        return deepest(regions, time_limit=self.deadline.left)

    def _inherit(self, made: tuple[int, ...], slopes: Tensor) -> None:
        """A region needs no program if the point of the one that it was split from is on its side of the last gate."""
        before = self.located.get(made[:-1]) if made else None
        if before is not None and before.slopes[made[-1] >> 1] == float(slopes[made[-1] >> 1]):
            self._remember(made, dataclasses.replace(before, above=None))

    def _remember(self, made: tuple[int, ...], located: _Located | None) -> None:
        each = 8 * (len(made) + self.problem.network.in_size + self.problem.network.neurons) + _ENTRY
        if (len(self.located) + 1) * each > _SHARE * self.memory:
            self.located.clear()
        self.located[made] = located

    def _attained(self, points: Sequence[np.ndarray], pattern: Tensor) -> list[_Attained]:
        """What every function attains at points, with the slopes there, or with those of patterns (points, neurons) at
        their kinks."""
        network, numbering = self.problem.network, Numbering(self.problem.network)
        at = clarke(network, torch.from_numpy(np.stack(points)).to(self.problem.box.lower))
        plain = numbering.join(at.slopes)
        kinks, doubtful = numbering.join(at.kinks), numbering.join(at.doubtful)
        bent = torch.where(kinks, pattern, plain)
        sure = plain.masked_fill(kinks | doubtful, torch.nan)
        columns = (self._values(plain), self._values(bent), (bent != plain).any(-1), bent, sure)
        results = []
        for point, here, other, differs, slopes, known in zip(points, *(v.cpu().numpy() for v in columns), strict=True):
            witnesses = [Witness(row, float(value), point) for row, value in enumerate(here)]
            if differs:
                witnesses += [Witness(row, float(value), point, slopes) for row, value in enumerate(other)]
            results.append(_Attained(tuple(witnesses), known))
        return results

    def _values_above(self, slopes: Mapping[int, Tensor]) -> list[float]:
        """The same, rounded upward: those of the middle of an enclosure, and what its radius adds to a norm."""
        pattern = {k: Interval(slope.unsqueeze(0), slope.unsqueeze(0)) for k, slope in slopes.items()}
        entries = interval_gradient(self.problem.network, Gates(pattern), self.problem.functionals)
        center = entries.center
        radius = raised(torch.maximum(entries.upper - center, center - entries.lower), 1)
        size = 8 * sum(center.shape[-2:])
        above = raised(raised(self.measure(center[0]), size) + raised(self.measure(radius[0]), size), 1)
        values: list[float] = above.tolist()
        return values

    def _values(self, slopes: Tensor) -> Tensor:
        """The functions (patterns, functions) of the Jacobians under slopes (patterns, neurons)."""
        by_node = {k: v.unsqueeze(-2) for k, v in Numbering(self.problem.network).split(slopes).items()}
        functionals = self.problem.functionals.expand(len(slopes), -1, -1)
        return self.measure(self.problem.network.pull_back(by_node, functionals))
