"""A batch of subdomains on its way to a bound: gates, gradient intervals, and the linear bound that they give."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from lipcompare.branching.cuts import NamedCuts
from lipcompare.gates import Gates
from lipcompare.jacobian import Gradients
from lipcompare.network.interval import Interval


@dataclasses.dataclass(frozen=True, eq=False)
class Subdomains:
    """A batch of subdomains with one row each.

    Attributes:
        gates: slope ranges.
        functionals: (subdomains, 1, outputs).
        gradients: intervals and lines of the gradients.
        linear: (subdomains,) the linear bound.
        multipliers: (subdomains, 1 + gates + inputs) what their parents left for the bound to start from.
        cuts: those that their parents left.
        depth: (subdomains,) number of decisions that lead there.
    """

    gates: Gates
    functionals: Tensor
    gradients: Gradients
    linear: Tensor
    multipliers: Tensor
    cuts: NamedCuts
    depth: Tensor

    def select(self, index: Tensor) -> Subdomains:
        """Some of the subdomains."""
        return Subdomains(
            gates=select_gates(self.gates, index),
            functionals=self.functionals[index],
            gradients=select_gradients(self.gradients, index),
            linear=self.linear[index],
            multipliers=self.multipliers[index],
            cuts=self.cuts.select(index),
            depth=self.depth[index],
        )


def select_gates(gates: Gates, index: Tensor) -> Gates:
    """The gates of some subdomains."""
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
    scales = {k: scale[index] for k, scale in gradients.scales.items()}
    return Gradients(intervals, lines, gradients.constant, scales)
