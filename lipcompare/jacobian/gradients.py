"""What is known of gradients at every node of a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from lipcompare.jacobian.lines import GateLines
from lipcompare.network.interval import Interval


@dataclasses.dataclass(frozen=True, eq=False)
class Gradients:
    """What the recursion knows about gradients, all of shape (batch, rows, size).

    Attributes:
        intervals: gradient with respect to the value of each activation node and of the input (node 0).
        lines: relaxation of each activation's gate over that interval.
        constant: activation nodes whose gradient depends on no undecided gate.
        scales: what the rounding of functionals of each of these gradients is measured by: the sums of the absolute
            values of all terms (:class:`~lipcompare.jacobian.interval.Reach`).
        joint: planes around the gates of smooth activations, where they are used, instead of lines.
    """

    intervals: Mapping[int, Interval]
    lines: Mapping[int, GateLines]
    constant: frozenset[int]
    scales: Mapping[int, Tensor]
    joint: Mapping[int, GateLines] = dataclasses.field(default_factory=dict)

    def of(self, examples: Tensor) -> Gradients:
        """The intervals alone, of some examples (some,)."""
        intervals = {k: Interval(s.lower[examples], s.upper[examples]) for k, s in self.intervals.items()}
        return Gradients(intervals, {}, self.constant, {k: v[examples] for k, v in self.scales.items()})

    def part(self, examples: slice) -> Gradients:
        """Everything of some examples."""

        def of(value: Tensor) -> Tensor:
            return value[examples] if value.shape[0] > 1 else value

        intervals = {k: Interval(of(v.lower), of(v.upper)) for k, v in self.intervals.items()}
        lines, joint = ({k: line.each(of) for k, line in all_.items()} for all_ in (self.lines, self.joint))
        return Gradients(intervals, lines, self.constant, {k: of(v) for k, v in self.scales.items()}, joint)

    def double(self) -> Gradients:
        """Intervals and lines in float64.

        A gradient that depends on no undecided gate is known no better than it was: passes go on to the output, since
        the rounding that they allow for is that of float64.
        """
        intervals = {k: Interval(s.lower.double(), s.upper.double()) for k, s in self.intervals.items()}
        lines = {k: line.each(Tensor.double) for k, line in self.lines.items()}
        known = self.intervals[0].lower.dtype is torch.float64
        constant = self.constant if known else frozenset[int]()
        return Gradients(intervals, lines, constant, {k: v.double() for k, v in self.scales.items()})
