"""Activation regions in the order of the layers, each checked by a linear program (LipBaB, Bhowmick et al. 2021).

The next neuron to decide is always the first undecided one, so that its pre-activation is affine where the earlier
decisions hold and a linear program says whether a subdomain is empty. Gradients are bounded by interval arithmetic.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lipcompare.branching.decisions import Numbering
from lipcompare.branching.driver import Assessment
from lipcompare.branching.tree import Subdomain
from lipcompare.budget import Deadline
from lipcompare.gates import Gates
from lipcompare.jacobian import interval_gradient
from lipcompare.network.interval import Interval
from lipcompare.preactivation.split import split_bounds
from lipcompare.problem import Problem
from lipcompare.regions.program import deepest, fits, region_of
from lipcompare.result import Witness
from lipcompare.rounding import raised
from lipcompare.witness import clarke

Measure = Callable[[Tensor], Tensor]
"""From bounds on absolute entries of Jacobians (subdomains, rows, inputs) to bounds (subdomains, functions)."""


@dataclasses.dataclass(eq=False)
class RegionEvaluator:
    """Bounds functions of the Jacobian that grow with the absolute value of every entry.

    Attributes:
        problem: one example, float64.
        bounds: pre-activation bounds over the whole box, (1, neurons) per activation node.
        measure: what is bounded; the driver's rows are its functions.
        exact: the same for one Jacobian (rows, inputs): (functions,).
        programs: linear programs solved so far.
        deadline: when it has passed, bounds are left as loose as they are and no program is begun.
    """

    problem: Problem
    bounds: Mapping[int, Interval]
    measure: Measure
    exact: Measure
    memory: int = 2**30
    programs: int = 0
    deadline: Deadline = dataclasses.field(default_factory=Deadline)

    def evaluate(self, nodes: Sequence[Subdomain], floor: float, target: float) -> list[Assessment]:
        """See :class:`~lipcompare.branching.driver.Evaluator`."""
        network, count = self.problem.network, len(nodes)
        numbering = Numbering(network)
        signs, _ = numbering.signs([np.array(node.decisions, dtype=np.int64) for node in nodes])
        device = self.problem.device
        signs = {k: s.to(device) for k, s in signs.items()}
        box = Interval(*(v.expand(count, -1) for v in self.problem.box.interval))
        split = split_bounds(
            network, box, signs, self.bounds, sweeps=1, passes=1, memory=self.memory, deadline=self.deadline
        )
        functionals = self.problem.functionals.expand(count, -1, -1)
        gradients = interval_gradient(network, split.gates, functionals)
        # The norm of a magnitude is a sum without cancellation, or a singular value.
        upper = raised(self.measure(gradients.magnitude), 8 * sum(gradients.lower.shape[-2:]))
        low, high = (numbering.join({k: s[end] for k, s in split.gates.slopes.items()}) for end in (0, 1))
        results = []
        for i, node in enumerate(nodes):
            if bool(split.empty[i]):
                results.append(Assessment(-np.inf))
                continue
            value = float(upper[i, node.row])
            if value <= target:
                results.append(Assessment(value))
                continue
            results.append(self._settle(numbering, node, value, low[i], high[i], split.gates, i, target))
        return results

    def _settle(
        self, numbering: Numbering, node: Subdomain, value: float, low: Tensor, high: Tensor, gates: Gates, i: int,
        target: float,
    ) -> Assessment:  # fmt: skip
        network = self.problem.network
        undecided = (high > low).nonzero().squeeze(-1)
        slopes = numbering.split(high)
        active = {k: slopes[k] == network.activation(k).slopes_anywhere(slopes[k]).upper for k in network.activations}
        # Without a program nothing is found out, which only costs splits.
        if self.deadline.passed() or not fits(network, len(node.decisions), self.memory):
            return Assessment(value, (2 * int(undecided[0]) + 1,) if len(undecided) else ())
        made = torch.zeros(numbering.gates, dtype=torch.bool, device=low.device)
        if node.decisions:
            made[[d >> 1 for d in node.decisions]] = True
        box = Interval(self.problem.box.lower[0], self.problem.box.upper[0])
        self.programs += 1
        region = region_of(network, box, slopes, active, numbering.split(made))
        located = deepest(region, time_limit=self.deadline.left)
        if located.empty:
            return Assessment(-np.inf)
        witnesses = self._attained(located.point, slopes)
        if not len(undecided):
            return Assessment(min(value, self._values_above(slopes)[node.row]), witnesses=witnesses)
        return Assessment(value, (2 * int(undecided[0]) + 1,), witnesses=witnesses)

    def _attained(self, point: np.ndarray | None, pattern: Mapping[int, Tensor]) -> tuple[Witness, ...]:
        """What every function attains at a point, with the slopes there, or those of the pattern at its kinks."""
        if point is None:
            return ()
        network, numbering = self.problem.network, Numbering(self.problem.network)
        at = clarke(network, torch.as_tensor(point).to(self.problem.box.lower).unsqueeze(0))
        plain = {k: v[0] for k, v in at.slopes.items()}
        values = self._values(plain)
        witnesses = [Witness(row, value, point) for row, value in enumerate(values)]
        bent = {k: torch.where(at.kinks[k][0], pattern[k], v) for k, v in plain.items()}
        if any(bool((bent[k] != v).any()) for k, v in plain.items()):
            slopes = numbering.join(bent).cpu().numpy()
            witnesses += [Witness(row, value, point, slopes) for row, value in enumerate(self._values(bent))]
        return tuple(witnesses)

    def _values_above(self, slopes: Mapping[int, Tensor]) -> list[float]:
        """The same, rounded upward: those of the middle of an enclosure, and what its radius adds to a norm."""
        pattern = {k: Interval(slope.unsqueeze(0), slope.unsqueeze(0)) for k, slope in slopes.items()}
        entries = interval_gradient(self.problem.network, Gates(pattern), self.problem.functionals)
        center = entries.center
        radius = raised(torch.maximum(entries.upper - center, center - entries.lower), 1)
        size = 8 * sum(center.shape[-2:])
        above = raised(raised(self.exact(center[0]), size) + raised(self.measure(radius[0]), size), 1)
        values: list[float] = above.tolist()
        return values

    def _values(self, slopes: Mapping[int, Tensor]) -> list[float]:
        """The functions of the Jacobian under slopes (neurons,) per activation node."""
        values: list[float] = self.exact(self.problem.network.pull_back(slopes, self.problem.functionals[0])).tolist()
        return values
