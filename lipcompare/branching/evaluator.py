"""From decisions to bounds: the evaluator that puts re-propagation, a bound and the linear program together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lipcompare import jacobian
from lipcompare.branching.bounds import Relaxed, SubdomainBound
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.driver import Assessment
from lipcompare.branching.inheritance import inherited_bounds, inherited_multipliers, pack_multipliers, pack_sides
from lipcompare.branching.subdomains import Subdomains, select_gates
from lipcompare.branching.tree import Subdomain
from lipcompare.budget import Deadline
from lipcompare.gates import Gates
from lipcompare.jacobian import Gradients, pattern_bound
from lipcompare.network.interval import Interval
from lipcompare.preactivation.split import split_bounds
from lipcompare.problem import Problem
from lipcompare.propagation import Propagated
from lipcompare.regions.program import Deepest, deepest, fits, region_of
from lipcompare.result import Witness
from lipcompare.witness import clarke

_CHAIN = 3
"""Contradictions of at most this many undecided gates are excluded in one split."""
_HALVINGS = 25
"""An input is halved at most this often: where many gates meet in a point, halving the box never separates them."""
_SAMPLES = 24
"""Points of a box that is halved at which the gradient is looked at."""
_EMPTY = Assessment(-np.inf)


@dataclasses.dataclass(eq=False)
class NetworkEvaluator:
    """Bounds subdomains of one example of a piecewise linear network, in float64.

    Attributes:
        problem: one example.
        bounds: pre-activation bounds over the whole box, (1, neurons) per activation node.
        bound: what bounds the gradient beyond ``propagation``, which comes first.
        sweeps, passes: effort for the decisions' half-spaces in re-propagation.
        memory: bytes that one pass may take.
        programs: linear programs solved so far.
        deadline: when it has passed, bounds of large networks are left as loose as they are.
        whole: the whole box with its linear bound, one subdomain per row; without it, it is bounded like any other.
    """

    problem: Problem
    bounds: Mapping[int, Interval]
    bound: SubdomainBound
    propagation: jacobian.Relaxation = jacobian.RELAXATIONS["lbp"]
    sweeps: int = 3
    passes: int = 2
    memory: int = 2**30
    programs: int = 0
    deadline: Deadline = dataclasses.field(default_factory=Deadline)
    whole: Subdomains | None = None

    def __post_init__(self) -> None:
        network = self.problem.network
        self.numbering = Numbering(network)
        self.box = Interval(self.problem.box.lower[0], self.problem.box.upper[0])
        root = Gates.from_preactivations(network, self.bounds)
        self.open = {k: root.unstable(k)[0] for k in network.activations}
        self.steep = self.numbering.join({k: self._ends(k)[1] for k in network.activations})
        self.flat = self.numbering.join({k: self._ends(k)[0] for k in network.activations})
        # The middle of a box, and some points spread over the rest of it.
        spread = torch.quasirandom.SobolEngine(network.in_size, scramble=True, seed=0).draw(_SAMPLES - 1)
        self.scatter = torch.cat([torch.zeros(1, network.in_size), 2 * spread - 1]).to(self.box.lower)
        self.smallest = self.box.radius * 2.0**-_HALVINGS
        # Where nothing asks for a side, a gate takes the one that it has here.
        self.reference = self._slopes_at(self.box.center)

    def _ends(self, k: int) -> Interval:
        zero = self.box.lower.new_zeros(self.problem.network.nodes[k].size)
        return self.problem.network.activation(k).slopes_anywhere(zero)

    def _slopes_at(self, point: Tensor) -> Tensor:
        network = self.problem.network
        return self.numbering.join(network.slopes(network.values(point)))

    def evaluate(self, nodes: Sequence[Subdomain], floor: float, target: float) -> list[Assessment]:
        """See :class:`~lipcompare.branching.driver.Evaluator`."""
        if self.whole is not None and not any(node.decisions for node in nodes):
            row = torch.tensor([node.row for node in nodes], device=self.box.lower.device)
            box = Interval(*(v.expand(len(nodes), -1) for v in self.box))
            sides = pack_sides(self.numbering, self.bounds) * len(nodes)
            none = torch.zeros_like(row, dtype=torch.bool)
            return self._assessed(self.whole.select(row), none, box, row, sides, floor, target)
        results = [_EMPTY] * len(nodes)
        network = self.problem.network
        made = [np.array(node.decisions, dtype=np.int64) for node in nodes]
        signs, entries = self.numbering.signs(made)
        device = self.box.lower.device
        signs, entries = {k: s.to(device) for k, s in signs.items()}, entries.to(device)
        box = self.numbering.boxes(made, self.box)
        start = inherited_bounds(self.numbering, [node.inherited for node in nodes], self.bounds)
        effort = {"sweeps": self.sweeps, "passes": self.passes, "memory": self.memory}
        split = split_bounds(network, box, signs, start, **effort, deadline=self.deadline)
        sides = pack_sides(self.numbering, split.bounds)
        alive = (~split.empty).nonzero().squeeze(-1)
        if not len(alive):
            return results
        some = [nodes[i] for i in alive.tolist()]
        row = torch.tensor([node.row for node in some], device=device)
        multipliers = inherited_multipliers(self.numbering, [node.inherited for node in some]).to(device)
        depth = torch.tensor([len(node.decisions) for node in some], device=device)
        crossed, batch = self._bounded(select_gates(split.gates, alive), row, entries[alive], multipliers, depth)
        box = Interval(*(v[alive] for v in box))
        assessed = self._assessed(batch, crossed, box, row, [sides[i] for i in alive.tolist()], floor, target)
        for i, result in zip(alive.tolist(), assessed, strict=True):
            results[i] = result
        return results

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
            _EMPTY if gone else Assessment(value)
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
        self, gates: Gates, row: Tensor, entries: Tensor, multipliers: Tensor, depth: Tensor
    ) -> tuple[Tensor, Subdomains]:
        """Subdomains with their linear bound, and which of them the signs of gradient entries empty."""
        network, norm = self.problem.network, self.problem.norm
        functionals = self.problem.functionals[0][row].unsqueeze(1)
        gradients = self.propagation.gradients(
            network, gates, functionals, norm=norm, memory=self.memory, deadline=self.deadline
        )
        crossed, gradients = _with_signs(gradients, entries)
        linear = self.propagation.norms(network, gates, functionals, gradients, norm).squeeze(1)
        return crossed, Subdomains(
            gates=gates,
            functionals=functionals,
            gradients=gradients,
            linear=linear,
            multipliers=multipliers,
            depth=depth,
        )

    def _relax(self, batch: Subdomains, box: Interval, row: Tensor, floor: float, target: float) -> list[Assessment]:
        """The relaxation's bound, and what to do with subdomains that it does not close."""
        relaxed = self.bound(batch, floor, target)
        unsettled = _Unsettled(
            owner=self,
            box=box,
            gates=batch.gates,
            gradients=batch.gradients,
            relaxed=relaxed,
            functionals=batch.functionals[:, 0],
            row=row,
        )
        packed = pack_multipliers(relaxed.multipliers)
        return [dataclasses.replace(unsettled.finish(i, floor, target), inherited=p) for i, p in enumerate(packed)]

    def _halve(self, batch: Subdomains, box: Interval, row: Tensor, floor: float, target: float) -> list[Assessment]:
        """Splits of boxes along the input that matters most to the bound: widest in terms of the gradient.

        Some points of each box are looked at meanwhile, for a better value.
        """
        network = self.problem.network
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
            )
            for i, (bound, j, number, value) in enumerate(
                zip(batch.linear.tolist(), along, row.tolist(), values.tolist(), strict=True)
            )
        ]

    def locate(self, slopes: Tensor, box: Interval) -> Deepest:
        """Where in ``box`` (inputs,) the pattern ``slopes`` (gates,) holds, if anywhere.

        Where the program would not fit in memory nothing is found out, which only costs splits.
        """
        network = self.problem.network
        undecided = sum(int(mask.sum()) for mask in self.open.values())
        if not fits(network, undecided, self.memory):
            return Deepest(None, -np.inf)
        self.programs += 1
        split, active = self.numbering.split(slopes), self.numbering.split(self.active(slopes))
        return deepest(region_of(network, box, split, active, self.open), time_limit=self.deadline.left)

    def active(self, slopes: Tensor) -> Tensor:
        """Which side of the kink each slope belongs to."""
        return (slopes - self.steep).abs() <= (slopes - self.flat).abs()


@dataclasses.dataclass(eq=False)
class _Unsettled:
    """Subdomains whose linear bound does not close them."""

    owner: NetworkEvaluator
    box: Interval
    gates: Gates
    gradients: Gradients
    relaxed: Relaxed
    functionals: Tensor  # (subdomains, outputs)
    row: Tensor  # (subdomains,)

    def __post_init__(self) -> None:
        join = self.owner.numbering.join
        slopes = self.gates.slopes
        self.low = join({k: s.lower for k, s in slopes.items()})
        self.high = join({k: s.upper for k, s in slopes.items()})
        self.undecided = self.high > self.low
        reach = {k: self.gradients.intervals[k].magnitude[:, 0] for k in slopes if k in self.gradients.intervals}
        present = {
            k: reach[k] > 0 if k in reach else torch.zeros_like(s.lower, dtype=torch.bool) for k, s in slopes.items()
        }
        self.relevant = self.undecided & join(present)

    def finish(self, i: int, floor: float, target: float) -> Assessment:
        """What to do with subdomain ``i``: close it, or split it."""
        upper = float(self.relaxed.upper[i])
        if upper <= target:
            return Assessment(upper)
        leaf = not bool(self.relevant[i].any())
        if leaf:
            slopes = torch.where(self.undecided[i], self.owner.reference, self.low[i])
            value, problem = self._norm(i, slopes), self.owner.problem
            pattern = {k: v.unsqueeze(0) for k, v in self.owner.numbering.split(slopes).items()}
            rows = self.functionals[i].reshape(1, 1, -1)
            upper = min(upper, float(pattern_bound(problem.network, pattern, rows, problem.norm)))
            if upper <= target:
                return Assessment(upper)
        else:
            slopes, value = self.relaxed.slopes[i], float(self.relaxed.value[i])
            slopes = torch.where(self.undecided[i] & ~self.relevant[i], self.owner.reference, slopes)
            if value <= floor * (1 + 1e-9):  # no gain: do not look for a point
                return self._split(i, upper)
        located = self.owner.locate(slopes, Interval(self.box.lower[i], self.box.upper[i]))
        if located.empty:
            return self._exclude(i, upper, slopes, located.conflict)
        witnesses = self._attained(i, located.point, slopes)
        best = max((witness.value for witness in witnesses), default=0.0)
        if leaf and (best >= value * (1 - 1e-9) or not bool(self.undecided[i].any())):
            # Exact; or a region too thin for a point in floating point. Its bound stands in either case.
            return Assessment(upper, witnesses=witnesses)
        return self._split(i, upper, witnesses)

    def _norm(self, i: int, slopes: Tensor) -> float:
        problem = self.owner.problem
        by_node = self.owner.numbering.split(slopes)
        return float(problem.norm.dual.of(problem.network.pull_back(by_node, self.functionals[i])))

    def _attained(self, i: int, point: np.ndarray | None, slopes: Tensor) -> tuple[Witness, ...]:
        """The value at the program's point: with the slopes there, or with the pattern where its kinks allow that."""
        if point is None:
            return ()
        owner, network = self.owner, self.owner.problem.network
        at = clarke(network, torch.as_tensor(point).to(owner.box.lower).unsqueeze(0))
        plain = owner.numbering.join(at.slopes)[0]
        row, value = int(self.row[i]), self._norm(i, plain)
        bent = torch.where(owner.numbering.join(at.kinks)[0], slopes, plain)
        kinked = self._norm(i, bent) if bool((bent != plain).any()) else 0.0
        if kinked > value * (1 + 1e-9):  # a tie is not worth a pattern
            return (Witness(row, kinked, point, bent.cpu().numpy()),)
        return (Witness(row, value, point),)

    def _decision(self, gate: int, slopes: Tensor) -> int:
        return 2 * gate + int(self.owner.active(slopes)[gate])

    def _exclude(self, i: int, upper: float, slopes: Tensor, conflict: tuple[int, ...]) -> Assessment:
        """Split so that a contradictory pattern is left out."""
        node_of = self.owner.numbering.node_of
        open_ = self.undecided[i].cpu().numpy()
        named = [g for g in conflict if open_[g]]
        # The constraints of these neurons are affine only where the earlier ones are decided as the pattern has them.
        last = max(node_of[g] for g in conflict)
        earlier = np.flatnonzero(open_ & (node_of < last))
        together = sorted({*named, *earlier.tolist()})
        score = self.relaxed.score[i]
        if not together:
            return _EMPTY
        if len(together) <= _CHAIN:
            together.sort(key=lambda g: -float(score[g]))
            return Assessment(upper, tuple(self._decision(g, slopes) for g in together), closed=True)
        gate = max(named or together, key=lambda g: float(score[g]))
        return Assessment(upper, (self._decision(gate, slopes),))

    def _split(self, i: int, upper: float, witnesses: tuple[Witness, ...] = ()) -> Assessment:
        """Split where the relaxation asks for it."""
        score = self.relaxed.score[i].clone()
        gates = self.owner.numbering.gates
        score[:gates] *= self.relevant[i]
        if bool((score > 0).any()):
            return Assessment(upper, (2 * int(score.argmax()) + 1,), witnesses=witnesses)
        rest = (self.relevant[i] if bool(self.relevant[i].any()) else self.undecided[i]).nonzero()
        if len(rest):
            return Assessment(upper, (2 * int(rest[0]) + 1,), witnesses=witnesses)
        return Assessment(upper, witnesses=witnesses)


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
        depth=torch.zeros(rows, dtype=torch.int64, device=root.upper.device),
    )


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
    cut = Interval(torch.minimum(lower, upper), torch.maximum(lower, upper))
    return empty, dataclasses.replace(gradients, intervals={**gradients.intervals, 0: cut})
