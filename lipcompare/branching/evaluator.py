"""From decisions to bounds: the evaluator that puts re-propagation, a bound and the linear program together."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lipcompare import jacobian
from lipcompare.branching.bounds import SubdomainBound, TreeBound
from lipcompare.branching.cuts import NamedCuts
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.driver import EMPTY, Assessment
from lipcompare.branching.inheritance import (
    inherited_bounds,
    inherited_cuts,
    inherited_multipliers,
    pack_cuts,
    pack_multipliers,
    pack_sides,
    sides_of,
)
from lipcompare.branching.subdomains import Subdomains, select_gates
from lipcompare.branching.tree import Subdomain, groups_of
from lipcompare.branching.unsettled import Gatewise, Unsettled
from lipcompare.budget import Copies, Deadline, core_seconds, fitting, tensor_bytes
from lipcompare.gates import Gates
from lipcompare.jacobian import Gradients, gradient_intervals
from lipcompare.jacobian.patches import plan
from lipcompare.jacobian.relaxations import Lbp
from lipcompare.network.graph import Network
from lipcompare.network.interval import Interval
from lipcompare.preactivation.split import SplitBounds, split_bounds, without_contradictions
from lipcompare.preactivation.touched import Touched, touched_bounds, touched_gradients
from lipcompare.problem import Problem
from lipcompare.propagation import Propagated
from lipcompare.regions.program import UNKNOWN, Deepest, deepest, fitting_regions, regions_of
from lipcompare.result import Witness

_HALVINGS = 25
"""An input is halved at most this often: where many gates meet in a point, halving the box never separates them."""
_SAMPLES = 24
"""Points of a box that is halved at which the gradient is looked at."""
_MUCH = 3e8
"""Multiply-adds of one subdomain on whole images (a tenth of a second) from which on only what decisions touch is
bounded again, where that can be done on patches."""
_SHARED = 4, 2
"""Pivots and passes that pay where rows share them (docs/performance.md)."""
_TOGETHER = 0.5
"""Seconds of a processor that decisions of one batch should take: no clock is looked at meanwhile."""


@dataclasses.dataclass(eq=False)
class NetworkEvaluator:
    """Bounds subdomains of one example of a piecewise linear network, in float64.

    Attributes:
        problem: one example.
        bounds: pre-activation bounds over the whole box, (1, neurons) per activation node.
        bound: what bounds the gradient beyond ``propagation``, which comes first.
        pivots, passes: effort for the decisions' half-spaces in re-propagation.
        memory: bytes that one pass may take.
        programs: linear programs solved so far.
        deadline: when it has passed, bounds of large networks are left as loose as they are.
        whole: the whole box with its linear bound, one subdomain per row; without it, it is bounded like any other.
        shares: rows with the same decisions are split alike, as the one with the largest bound asks for, so that they
            go on with the same decisions, whose consequences for pre-activations are found once for all of them.
    """

    problem: Problem
    bounds: Mapping[int, Interval]
    bound: SubdomainBound
    propagation: jacobian.Relaxation = jacobian.RELAXATIONS["lbp"]
    pivots: int = 4
    passes: int = 2
    memory: int = 2**30
    programs: int = 0
    deadline: Deadline = dataclasses.field(default_factory=Deadline)
    whole: Subdomains | None = None
    shares: bool = False

    def __post_init__(self) -> None:
        network = self.problem.network
        self.numbering = Numbering(network)
        self.box = Interval(self.problem.box.lower[0], self.problem.box.upper[0])
        self.open = Gates.from_preactivations(network, self.bounds).undecided()
        undecided = sum(int(mask.sum()) for mask in self.open.values())
        how = plan(network, 0)
        self.inherits = isinstance(self.propagation, Lbp) and self.whole is not None and takes_much(network, undecided)
        self.inherits &= how is not None
        work = how.costs.windows * network.in_size if how is not None and self.inherits else _images(network, undecided)
        each = core_seconds(work, self.box.lower.device)
        self.together = max(1, int(_TOGETHER / each)) if each else sys.maxsize
        self.room = fitting(self.memory, tensor_bytes(Copies.STATE, network.neurons + network.in_size, self.box.lower))
        # The middle of a box, and some points spread over the rest of it.
        spread = torch.quasirandom.SobolEngine(network.in_size, scramble=True, seed=0).draw(_SAMPLES - 1)
        self.scatter = torch.cat([torch.zeros(1, network.in_size), 2 * spread - 1]).to(self.box.lower)
        self.smallest = self.box.radius * 2.0**-_HALVINGS
        flat, steep = (self.numbering.join({k: self._ends(k)[i] for k in network.activations}) for i in (0, 1))
        # Where nothing asks for a side, a gate takes the one that it has in the middle.
        self.gatewise = Gatewise(flat, steep, self._slopes_at(self.box.center))
        self.undecided = undecided

    def _ends(self, k: int) -> Interval:
        zero = self.box.lower.new_zeros(self.problem.network.nodes[k].size)
        return self.problem.network.activation(k).slopes_anywhere(zero)

    def _slopes_at(self, point: Tensor) -> Tensor:
        network = self.problem.network
        return self.numbering.join(network.slopes(network.values(point)))

    def evaluate(self, nodes: Sequence[Subdomain], floor: float, target: float) -> list[Assessment]:
        """See :class:`~lipcompare.branching.driver.Evaluator`."""
        results: list[Assessment] = []
        longest = 0.0
        while len(results) < len(nodes) and not (results and self.deadline.passed(longest)):
            left, rest = self.deadline.left, nodes[len(results) :]
            results += self._evaluate(rest[: self._at_once(rest)], floor, target)
            longest = max(longest, left - self.deadline.left) if math.isfinite(left) else 0.0
        return results

    def _at_once(self, nodes: Sequence[Subdomain]) -> int:
        """How many of the first subdomains are bounded at once: rows that share one together, if they fit in memory."""
        count = 0
        for size in list(map(len, groups_of(nodes)) if self.shares else [1] * len(nodes))[: self.together]:
            if count and count + size > self.room:
                break
            count += size
        return min(count, self.room)

    def _evaluate(self, nodes: Sequence[Subdomain], floor: float, target: float) -> list[Assessment]:
        """Some subdomains at once."""
        if self.whole is not None and not any(node.decisions for node in nodes):
            row = torch.tensor([node.row for node in nodes], device=self.box.lower.device)
            box = Interval(*(v.expand(len(nodes), -1) for v in self.box))
            sides = pack_sides(self.numbering, self.bounds) * len(nodes)
            none = torch.zeros_like(row, dtype=torch.bool)
            results = self._assessed(self.whole.select(row), none, box, row, sides, floor, target)
            return _split_alike(results, [0] * len(nodes), target, self.numbering) if self.shares else results
        results = [EMPTY] * len(nodes)
        parts, part_of = _parts(nodes, self.numbering)
        made = [np.array(node.decisions, dtype=np.int64) for node in parts]
        signs, entries = self.numbering.signs(made)
        device = self.box.lower.device
        signs, entries = {k: s.to(device) for k, s in signs.items()}, entries.to(device)
        box = self.numbering.boxes(made, self.box)
        start = inherited_bounds(self.numbering, [node.inherited for node in parts], self.bounds)
        split = self._propagated(box, signs, start)
        sides = pack_sides(self.numbering, split.bounds)
        empty = split.empty.cpu().numpy()
        alive = [i for i, part in enumerate(part_of) if not empty[part]]
        if not alive:
            return results
        some, places = [nodes[i] for i in alive], [part_of[i] for i in alive]
        row = torch.tensor([node.row for node in some], device=device)
        left = [node.inherited for node in some]
        multipliers = inherited_multipliers(self.numbering, left).to(device)
        cuts = inherited_cuts(self.numbering, left).to(device)
        depth = torch.tensor([len(node.decisions) for node in some], device=device)
        at = torch.tensor(places, device=device)
        crossed, batch = self._bounded(select_gates(split.gates, at), row, entries[at], multipliers, cuts, depth)
        box = Interval(*(v[at] for v in box))
        assessed = self._assessed(batch, crossed, box, row, [sides[part] for part in places], floor, target)
        if self.shares:
            assessed = _split_alike(assessed, places, target, self.numbering)
        for i, result in zip(alive, assessed, strict=True):
            results[i] = result
        return results

    def _propagated(
        self, box: Interval, signs: Mapping[int, Tensor], start: Mapping[int, Interval]
    ) -> SplitBounds | Touched:
        """Pre-activation bounds of subdomains (subdomains, inputs); arguments as for :func:`split_bounds`."""
        network, memory, deadline = self.problem.network, self.memory, self.deadline
        if self.inherits:
            moved = (box.lower != self.box.lower) | (box.upper != self.box.upper)
            return touched_bounds(network, box, signs, start, self.bounds, moved, memory=memory, deadline=deadline)
        split = split_bounds(
            network, box, signs, start,
            pivots=self.pivots, passes=self.passes, memory=memory, deadline=deadline,
        )  # fmt: skip
        return without_contradictions(split, box) if self.pivots else split

    def _gradients(self, gates: Gates, row: Tensor, functionals: Tensor) -> Gradients:
        """The linear bound's gradients of subdomains with one row each."""
        network, norm, memory, deadline = self.problem.network, self.problem.norm, self.memory, self.deadline
        if self.inherits:
            assert self.whole is not None
            before = self.whole.select(row)
            return gradient_intervals(
                network, gates, functionals, norm=norm, within=before.gradients.intervals,
                touched=touched_gradients(network, gates, before.gates), memory=memory, deadline=deadline,
            )  # fmt: skip
        return self.propagation.gradients(network, gates, functionals, norm=norm, memory=memory, deadline=deadline)

    def _assessed(
        self,
        batch: Subdomains,
        crossed: Tensor,
        box: Interval,
        row: Tensor,
        sides: Sequence[bytes],
        floor: float,
        target: float,
    ) -> list[Assessment]:
        """Close what the linear bound closes, or the signs of gradient entries (``crossed``), and split or relax the
        rest; ``sides`` is what children inherit."""
        network = self.problem.network
        results = [
            EMPTY if gone else Assessment(value)
            for value, gone in zip(batch.linear.tolist(), crossed.tolist(), strict=True)
        ]
        open_ = (batch.linear > target) & ~crossed
        large = (batch.gates.unstable_count > halving_threshold(network.in_size)) & (box.radius > self.smallest).any(-1)
        for index, settle in (((open_ & large), self._halve), ((open_ & ~large), self._relax)):
            chosen = index.nonzero().squeeze(-1)
            if len(chosen):
                settled = settle(batch.select(chosen), Interval(*(v[chosen] for v in box)), row[chosen], floor, target)
                for i, result in zip(chosen.tolist(), settled, strict=True):
                    results[i] = dataclasses.replace(result, inherited=sides[i] + result.inherited)
        return results

    def _bounded(
        self, gates: Gates, row: Tensor, entries: Tensor, multipliers: Tensor, cuts: NamedCuts, depth: Tensor
    ) -> tuple[Tensor, Subdomains]:
        """Subdomains with their linear bound, and which of them the signs of gradient entries empty."""
        network, norm = self.problem.network, self.problem.norm
        functionals = self.problem.functionals[0][row].unsqueeze(1)
        gradients = self._gradients(gates, row, functionals)
        crossed, gradients = _with_signs(gradients, entries)
        linear = self.propagation.norms(network, gates, functionals, gradients, norm).squeeze(1)
        return crossed, Subdomains(
            gates=gates,
            functionals=functionals,
            gradients=gradients,
            linear=linear,
            multipliers=multipliers,
            cuts=cuts,
            depth=depth,
        )

    def _relax(self, batch: Subdomains, box: Interval, row: Tensor, floor: float, target: float) -> list[Assessment]:
        """The relaxation's bound, and what to do with subdomains that it does not close."""
        relaxed = self.bound(batch, floor, target)
        unsettled = Unsettled(
            problem=self.problem,
            numbering=self.numbering,
            gatewise=self.gatewise,
            box=box,
            row=row,
            batch=batch,
            relaxed=relaxed,
            locate=self.locate,
        )
        packed = zip(pack_multipliers(relaxed.multipliers), pack_cuts(relaxed.cuts), strict=True)
        settled = unsettled.settle(floor, target)
        return [dataclasses.replace(result, inherited=m + c) for result, (m, c) in zip(settled, packed, strict=True)]

    def _halve(self, batch: Subdomains, box: Interval, row: Tensor, floor: float, target: float) -> list[Assessment]:
        """Splits of boxes along the input that matters most to the bound: widest in terms of the gradient.

        The relaxation, which takes long for so many gates, bounds the whole box alone: one program where many halvings
        would be needed. Some points of each box are looked at meanwhile, for a better value.
        """
        network, upper = self.problem.network, batch.linear
        inherited = [b""] * len(upper)
        whole = (batch.depth == 0).nonzero().squeeze(-1)
        if len(whole):
            relaxed = self.bound(batch.select(whole), floor, target)
            upper = upper.index_copy(0, whole, torch.minimum(upper[whole], relaxed.upper))
            for i, packed in zip(whole.tolist(), pack_multipliers(relaxed.multipliers), strict=True):
                inherited[i] = packed
        room = torch.where(box.radius > self.smallest, box.radius, 0.0)
        along = (batch.gradients.intervals[0].magnitude[:, 0] * room).argmax(-1).tolist()
        points = box.center.unsqueeze(1) + box.radius.unsqueeze(1) * self.scatter
        slopes = network.slopes(network.values(points))
        values, best = self.problem.norm.dual.of(
            network.pull_back(slopes, batch.functionals.expand(-1, points.shape[1], -1))
        ).max(-1)
        chosen = points[torch.arange(len(best), device=best.device), best].cpu().numpy()
        return [
            Assessment(
                bound,
                (2 * (self.numbering.count + j) + 1,),
                witnesses=(Witness(number, value, chosen[i]),),
                inherited=inherited[i],
            )
            for i, (bound, j, number, value) in enumerate(
                zip(upper.tolist(), along, row.tolist(), values.tolist(), strict=True)
            )
        ]

    def locate(self, slopes: Tensor, box: Interval) -> list[Deepest]:
        """Where in each box (patterns, inputs) the pattern ``slopes`` (patterns, gates) holds, if anywhere.

        Where programs do not fit in memory or time nothing is found out, which only costs splits.
        """
        network, device = self.problem.network, self.box.lower.device
        results: list[Deepest] = []
        together = fitting_regions(network, self.undecided, self.memory)
        # The pieces of a pattern, which no clock stops.
        each = core_seconds(network.products * min(self.undecided, network.in_size), device)
        for part in torch.arange(len(slopes), device=device).split(max(1, together)) if together else ():
            if self.deadline.passed(each * len(part)):
                break
            self.programs += len(part)
            split, active = (self.numbering.split(v) for v in (slopes[part], self.gatewise.active(slopes[part])))
            regions = regions_of(network, Interval(*(v[part] for v in box)), split, active, self.open)
            results += deepest(regions, time_limit=self.deadline.left)
        return results + [UNKNOWN] * (len(slopes) - len(results))


def _parts(nodes: Sequence[Subdomain], numbering: Numbering) -> tuple[list[Subdomain], list[int]]:
    """Subdomains of which one stands for all with the same decisions that know the same sides, and the number of the
    one that stands for each."""
    numbers: dict[tuple[tuple[int, ...], bytes], int] = {}
    part_of = [numbers.setdefault((n.decisions, sides_of(numbering, n.inherited)), len(numbers)) for n in nodes]
    stands = dict(zip(part_of, nodes, strict=True))
    return [stands[part] for part in range(len(stands))], part_of


def _split_alike(
    assessed: list[Assessment], places: Sequence[int], target: float, numbering: Numbering
) -> list[Assessment]:
    """The same with one way to split for all with the same decisions, ``places``, that of the largest bound.

    A contradiction between gates is one for every row; but a sign of the gradient is that of one row, which goes its
    own way if it asks for it.
    """
    leaders: dict[int, Assessment] = {}
    follows = [
        bool(said.chain)
        and said.upper > target
        and not any(2 * numbering.gates <= d < 2 * numbering.count for d in said.chain)
        for said in assessed
    ]
    for said, place, follow in zip(assessed, places, follows, strict=True):
        if follow and (place not in leaders or said.upper > leaders[place].upper):
            leaders[place] = said
    return [
        dataclasses.replace(said, chain=leaders[place].chain, closed=leaders[place].closed) if follow else said
        for said, place, follow in zip(assessed, places, follows, strict=True)
    ]


def whole_of(problem: Problem, root: Propagated) -> Subdomains:
    """The whole box of one example as a subdomain for each row, from what bound propagation says of it."""

    def by_row(value: Tensor) -> Tensor:
        return value.transpose(0, 1)

    rows, found = problem.rows, root.gradients
    lines = {
        k: line._replace(**{name: by_row(v) for name, v in line._asdict().items() if v is not None})
        for k, line in found.lines.items()
    }
    intervals = {k: Interval(*map(by_row, ends)) for k, ends in found.intervals.items()}
    scales = {k: by_row(scale) for k, scale in found.scales.items()}
    numbering = Numbering(problem.network)
    return Subdomains(
        gates=Gates({k: Interval(*(v.expand(rows, -1) for v in slope)) for k, slope in root.gates.slopes.items()}),
        functionals=by_row(problem.functionals),
        gradients=Gradients(intervals, lines, found.constant, scales),
        linear=root.upper[0],
        multipliers=inherited_multipliers(numbering, [b""] * rows).to(root.upper),
        cuts=NamedCuts.none(rows, root.upper),
        depth=torch.zeros(rows, dtype=torch.int64, device=root.upper.device),
    )


def shares_subdomains(bound: TreeBound, problem: Problem) -> bool:
    """Whether rows should share the subdomains of a tree by that bound. Where one propagation takes as long as the
    bounds of all rows, as on whole images, there is nothing to gain."""
    return bound.shares and problem.rows > 1 and not takes_much(problem.network, problem.network.neurons)


def effort(bound: TreeBound, shares: bool) -> tuple[int, int]:
    """Pivots and passes for a decision's consequences: what many rows profit from is worth what a tighter bound is."""
    return _SHARED if shares else (bound.pivots, bound.passes)


def takes_much(network: Network, undecided: int) -> bool:
    """Whether one propagation of a subdomain is work for several threads, with so many undecided gates."""
    return _images(network, undecided) > _MUCH


def _images(network: Network, undecided: int) -> int:
    """Multiply-adds of the images of undecided gates and of inputs, in both directions."""
    return 2 * network.products * (undecided + network.in_size)


def halving_threshold(inputs: int) -> float:
    """With more undecided gates than this, halving the box settles more of them than deciding one does.

    It takes ``2^inputs`` boxes to halve every side, so that many inputs speak for deciding gates. But no fewer than one
    gate per input: that many meet in a point, however small the box around it.
    """
    return max(inputs, min(16 * inputs, 2.0 ** min(inputs - 2, 60)))


def _with_signs(gradients: Gradients, entries: Tensor) -> tuple[Tensor, Gradients]:
    """Which subdomains (subdomains,) the signs of gradient entries empty, and intervals cut by the decided ones."""
    decided = entries.unsqueeze(1)
    lower, upper = gradients.intervals[0]
    # They are rounded outward, and both signs hold at 0.
    empty = ((decided > 0) & (upper < 0) | (decided < 0) & (lower > 0)).any(-1).any(-1)
    lower = torch.where(decided > 0, lower.clamp(min=0), lower)
    upper = torch.where(decided < 0, upper.clamp(max=0), upper)
    cut = {**gradients.intervals, 0: Interval(lower, upper).ordered}
    return empty, dataclasses.replace(gradients, intervals=cut)
