"""The largest singular value of the whole Jacobian in the tree (p = 2): gates are decided, the joint program bounds.

Subdomains, re-propagation and the linear program at the leaves are those of :mod:`lipcompare.branching.evaluator`; what
is bounded has all rows in it, so there is one root and no signs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lipcompare.branching.decisions import LAST, SCORELESS, Numbering
from lipcompare.branching.driver import EMPTY, Assessment
from lipcompare.branching.everywhere import all_slopes, decided_ranges
from lipcompare.branching.subdomains import select_gates
from lipcompare.branching.tree import Subdomain
from lipcompare.budget import CACHED_ENTRIES, Deadline
from lipcompare.domain import Space
from lipcompare.gates import Gates
from lipcompare.jacobian import RELAXATIONS, Gradients, interval_gradient
from lipcompare.jacobian.norms import spectral_norm
from lipcompare.network.interval import Interval
from lipcompare.preactivation.split import split_bounds
from lipcompare.problem import Problem
from lipcompare.quadratic.coordinates import coordinate_count
from lipcompare.quadratic.joint import JointBound, joint_bound
from lipcompare.quadratic.joint.program import JointData
from lipcompare.regions.program import UNKNOWN, Deepest, deepest, fitting_regions, regions_of
from lipcompare.regions.unbounded import WholeSpace
from lipcompare.result import Witness
from lipcompare.rounding import TIE, raised


@dataclasses.dataclass(eq=False)
class SpectralEvaluator:
    """Bounds the largest singular value over subdomains of one example, in float64.

    Attributes:
        problem: one example of a network with patterns; its rows together are what is bounded.
        bounds: pre-activation bounds over the whole box, (1, neurons) per activation node.
        tolerance: relative accuracy of each program.
        programs: linear programs solved so far.
    """

    problem: Problem
    bounds: Mapping[int, Interval]
    tolerance: float = 1e-3
    memory: int = 2**30
    deadline: Deadline = dataclasses.field(default_factory=Deadline)
    programs: int = 0

    def __post_init__(self) -> None:
        network = self.problem.network
        self.numbering = Numbering(network)
        self.box = Interval(self.problem.box.lower[0], self.problem.box.upper[0])
        self.open = Gates.from_preactivations(network, self.bounds).undecided()
        self.ends = all_slopes(self.numbering, self.box.lower)
        self.space = WholeSpace(network) if isinstance(self.problem.box, Space) else None
        # A gate that does not matter takes the side that it has in the middle.
        self.reference = self.numbering.join(network.slopes(network.values(self.problem.box.window.center[0])))

    def evaluate(self, nodes: Sequence[Subdomain], floor: float, target: float) -> list[Assessment]:
        """See :class:`~lipcompare.branching.driver.Evaluator`."""
        network, count = self.problem.network, len(nodes)
        results = [EMPTY] * count
        gates, alive = self._gates(nodes)
        if not len(alive):
            return results
        functionals = self.problem.functionals.expand(len(alive), -1, -1)
        gradients = RELAXATIONS["lbp"].gradients(network, gates, functionals, norm=None, memory=self.memory)
        order = coordinate_count(gates, gradients) + self.problem.rows
        for chunk in self._batches(order):
            some_gradients = _of(gradients, chunk)
            some_gates = select_gates(gates, chunk)
            bound = joint_bound(
                network, some_gates, functionals[chunk], some_gradients, tolerance=self.tolerance,
                target=functionals.new_full((len(chunk),), target), memory=self.memory, deadline=self.deadline,
            )  # fmt: skip
            settled = self._settled(some_gates, some_gradients, bound, floor, target)
            for i, result in zip(alive[chunk].tolist(), settled, strict=True):
                results[i] = result
        return results

    def _gates(self, nodes: Sequence[Subdomain]) -> tuple[Gates, Tensor]:
        """The gates of the subdomains that are not empty, and which ones these are."""
        network = self.problem.network
        if self.space is not None:
            slopes = (self.numbering.split(end) for end in decided_ranges(self.numbering, self.ends, nodes))
            low, high = slopes
            every = torch.arange(len(nodes), device=self.box.lower.device)
            return Gates({k: Interval(low[k], high[k]) for k in network.activations}), every
        signs, _ = self.numbering.signs([np.array(node.decisions, dtype=np.int64) for node in nodes])
        signs = {k: s.to(self.box.lower.device) for k, s in signs.items()}
        box = Interval(*(v.expand(len(nodes), -1) for v in self.box))
        split = split_bounds(network, box, signs, self.bounds, memory=self.memory, deadline=self.deadline)
        alive = (~split.empty).nonzero().squeeze(-1)
        return select_gates(split.gates, alive), alive

    def _batches(self, order: Tensor) -> list[Tensor]:
        """Subdomains of similar size together, as many as fit in a processor's cache."""
        ranked = order.argsort(stable=True)
        batches, start = [], 0
        while start < len(ranked):
            stop = start + 1
            while stop < len(ranked) and (stop + 1 - start) * int(order[ranked[stop]]) ** 2 <= CACHED_ENTRIES:
                stop += 1
            batches.append(ranked[start:stop])
            start = stop
        return batches

    def _settled(
        self, gates: Gates, gradients: Gradients, bound: JointBound, floor: float, target: float
    ) -> list[Assessment]:
        join, slopes = self.numbering.join, gates.slopes
        low, high = (join({k: s[end] for k, s in slopes.items()}) for end in (0, 1))
        reach = {
            k: gradients.intervals[k].magnitude.amax(1) if k in gradients.intervals else torch.zeros_like(s.lower)
            for k, s in slopes.items()
        }
        relevant = (high > low) & (join(reach) > 0)
        score, pattern = torch.zeros_like(low), torch.where(high > low, self.reference, low)
        if (
            bound.data is not None
            and bound.moments is not None
            and bound.theta is not None
            and bound.data.size > bound.data.rows
        ):
            score, chosen = _split(bound.data, bound.moments, bound.theta, self.numbering, low.shape)
            pattern = torch.where(relevant, torch.where(chosen, high, low), pattern)
        # Gates that only decide where others are open come last.
        score = torch.where(high > low, LAST, 0.0) + torch.where(relevant, score + SCORELESS * join(reach), 0.0)
        return [
            self._finish(float(bound.upper[i]), pattern[i], score[i], bool(relevant[i].any()), floor, target)
            for i in range(len(low))
        ]

    def _finish(
        self, upper: float, pattern: Tensor, score: Tensor, relevant: bool, floor: float, target: float
    ) -> Assessment:
        """What to do with one subdomain: close it, or split it.

        Args:
            pattern: slopes (gates,) that may attain the bound.
            score: (gates,) positive where there is something to split.
            relevant: whether any undecided gate changes the Jacobian.
        """
        if upper <= target:
            return Assessment(upper)
        chain = (2 * int(score.argmax()) + 1,) if bool((score > 0).any()) else ()
        if not relevant:
            upper = min(upper, self._above(pattern))
            if upper <= target:
                return Assessment(upper)
        elif self._norm(pattern) <= floor * (1 + TIE):
            return Assessment(upper, chain)
        located = self._locate(pattern)
        if located.empty:
            # With all gates decided that is the whole subdomain.
            return Assessment(upper, chain) if chain else EMPTY
        witnesses: tuple[Witness, ...] = ()
        if located.point is not None:
            network, x = self.problem.network, torch.as_tensor(located.point.copy()).to(self.box.lower)
            value = self._norm(self.numbering.join(network.slopes(network.values(x))))
            witnesses = (Witness(0, value, located.point),)
        # Where no gate changes the Jacobian and the region has a point, the value is exact.
        return Assessment(upper, chain if relevant else (), witnesses=witnesses)

    def _norm(self, slopes: Tensor) -> float:
        """The largest singular value under slopes (gates,), unchecked."""
        problem = self.problem
        jacobian = problem.network.pull_back(self.numbering.split(slopes), problem.functionals[0])
        return float(torch.linalg.matrix_norm(jacobian, ord=2))

    def _above(self, slopes: Tensor) -> float:
        """The same, rounded upward."""
        pattern = {k: Interval(v.unsqueeze(0), v.unsqueeze(0)) for k, v in self.numbering.split(slopes).items()}
        entries = interval_gradient(self.problem.network, Gates(pattern), self.problem.functionals)
        center = entries.center
        radius = raised(torch.maximum(entries.upper - center, center - entries.lower), 1)
        return float(raised(spectral_norm(center) + spectral_norm(radius), 1))

    def _locate(self, slopes: Tensor) -> Deepest:
        """Where the pattern ``slopes`` (gates,) holds, if anywhere; nothing is found out where that does not fit."""
        network = self.problem.network
        by_node, active = self.numbering.split(slopes), self.numbering.split(slopes == self.ends.upper)
        if self.space is not None:
            self.programs += 1
            return self.space.deepest(by_node, active, time_limit=self.deadline.left)
        if not fitting_regions(network, sum(int(mask.sum()) for mask in self.open.values()), self.memory):
            return UNKNOWN
        self.programs += 1
        box = Interval(*(v.unsqueeze(0) for v in self.box))
        pattern, sides = ({k: v.unsqueeze(0) for k, v in some.items()} for some in (by_node, active))
        (located,) = deepest(regions_of(network, box, pattern, sides, self.open), time_limit=self.deadline.left)
        return located


def _of(gradients: Gradients, index: Tensor) -> Gradients:
    """Intervals of some subdomains; nodes where nothing was relaxed may have one for all."""
    intervals = {
        k: Interval(*(v[index] if v.shape[0] > 1 else v.expand(len(index), -1, -1) for v in interval))
        for k, interval in gradients.intervals.items()
    }
    return Gradients(intervals=intervals, lines={}, constant=frozenset(), scales={})


def _split(
    data: JointData, moments: Tensor, theta: Tensor, numbering: Numbering, shape: torch.Size
) -> tuple[Tensor, Tensor]:
    """From a moment matrix, by gate (subdomains, gates): how far each gate is from either side, in units of the bound,
    and which side it is nearer to in the direction that the matrix has most of."""
    rows = data.rows
    incoming = data.gates.mT @ moments  # K' M
    through, own = moments.diagonal(dim1=-2, dim2=-1), (incoming @ data.gates).diagonal(dim1=-2, dim2=-1)
    spread = theta * (through.clamp(min=0) * (own - through).clamp(min=0)).sqrt()
    # The direction with most weight, its gates one after another as its own products ask for.
    top = torch.linalg.eigh(moments)[1][..., -1]
    asked = (top.unsqueeze(-2) @ data.gates).squeeze(-2)
    high = top * asked > 0.5 * asked.square()
    names = data.coordinates
    first = dict(zip(numbering.network.activations, _offsets(numbering), strict=True))
    node = [first[k] for k in names.node[1:].tolist()]
    number = names.neuron[:, 1:] + torch.tensor(node, device=moments.device)
    present = data.mask[:, rows:]
    score = moments.new_zeros(shape).scatter_add_(1, number, spread[:, rows:] * present)
    side = moments.new_zeros(shape).scatter_add_(1, number, (high[:, rows:] & present).to(moments))
    return score, side > 0


def _offsets(numbering: Numbering) -> list[int]:
    """The first gate's number of every activation node."""
    sizes = [numbering.network.nodes[k].size for k in numbering.network.activations]
    return [sum(sizes[:i]) for i in range(len(sizes))]
