"""Gates: the range of every activation's slope over the box, the pivot between forward and backward bounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from lipcompare.network.activations import Lines
from lipcompare.network.graph import Network
from lipcompare.network.interval import Interval

PreactivationBounds = Mapping[int, Interval]
"""Bounds (batch, neurons) on the pre-activation of every activation node."""


@dataclasses.dataclass(frozen=True, eq=False)
class Gates:
    """Slope range ``[lo, hi]`` of every activation neuron: (batch, neurons) per activation node.

    ``[0, 0]`` an inactive ReLU, ``[1, 1]`` an active one, ``[0, 1]`` an unstable one, ``[alpha, 1]`` a leaky one.

    Attributes:
        slopes: the ranges.
        lines: lines around the slope as a function of the pre-activation, (batch, neurons) per activation node that has
            them; empty unless asked for, and always for networks with kinks only.
    """

    slopes: Mapping[int, Interval]
    lines: Mapping[int, Lines] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_preactivations(cls, network: Network, bounds: PreactivationBounds, *, lines: bool = False) -> Gates:
        """The slope ranges that pre-activation bounds allow, and the lines around smooth slopes if wanted."""
        slopes = {k: network.activation(k).slope_range(bounds[k]) for k in network.activations}
        if not lines:
            return cls(slopes)
        found = {k: network.activation(k).slope_lines(bounds[k]) for k in network.activations}
        return cls(slopes, {k: v for k, v in found.items() if v is not None})

    @classmethod
    def free(cls, network: Network, batch: int, device: torch.device, dtype: torch.dtype) -> Gates:
        """Every gate open, as over the whole input space."""
        far = torch.tensor(torch.inf, device=device, dtype=dtype)
        bounds = {}
        for k in network.activations:
            size = (batch, network.nodes[k].size)
            bounds[k] = Interval((-far).expand(size), far.expand(size))
        return cls.from_preactivations(network, bounds)

    def unstable(self, k: int) -> Tensor:
        """Boolean mask (batch, neurons) of the gates of node ``k`` that are not one number."""
        return self.slopes[k].upper > self.slopes[k].lower

    @property
    def unstable_count(self) -> Tensor:
        """Number of unstable gates per example, (batch,)."""
        return torch.stack([self.unstable(k).sum(-1) for k in self.slopes]).sum(0)

    def example(self, b: int) -> Gates:
        """The gates of one example, with a batch axis of 1."""
        one = slice(b, b + 1)
        slopes = {k: Interval(s.lower[one], s.upper[one]) for k, s in self.slopes.items()}
        return Gates(slopes, {k: Lines(*(v[one] for v in line)) for k, line in self.lines.items()})
