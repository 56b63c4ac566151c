"""Gates: the range of every activation's slope over the box, the pivot between forward and backward bounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from lipcompare.network.activations import LeakyReLU, Lines
from lipcompare.network.graph import Network
from lipcompare.network.interval import Interval


def has_patterns(network: Network) -> bool:
    """Whether every activation is piecewise linear with one kink, at the origin: two states describe each neuron."""
    return all(isinstance(network.activation(k), LeakyReLU) for k in network.activations)


def by_node(network: Network, gates: Tensor) -> dict[int, Tensor]:
    """A tensor (..., gates), numbered through all activation nodes from the input on, by activation node."""
    sizes = [network.nodes[k].size for k in network.activations]
    return dict(zip(network.activations, gates.split(sizes, -1), strict=True)) if sizes else {}


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
        like = torch.zeros(batch, 1, device=device, dtype=dtype)
        sizes = {k: network.nodes[k].size for k in network.activations}
        return cls({k: network.activation(k).slopes_anywhere(like.expand(-1, n)) for k, n in sizes.items()})

    def unstable(self, k: int) -> Tensor:
        """Boolean mask (batch, neurons) of the gates of node ``k`` that are not one number."""
        return self.slopes[k].upper > self.slopes[k].lower

    def undecided(self, example: int = 0) -> dict[int, Tensor]:
        """Masks (neurons,) of one example's gates that are not one number, per activation node."""
        return {k: self.unstable(k)[example] for k in self.slopes}

    @property
    def unstable_count(self) -> Tensor:
        """Number of unstable gates per example, (batch,)."""
        return torch.stack([self.unstable(k).sum(-1) for k in self.slopes]).sum(0)

    def example(self, b: int) -> Gates:
        """The gates of one example, with a batch axis of 1."""
        return self.of(slice(b, b + 1))

    def of(self, examples: Tensor | slice) -> Gates:
        """The gates of some examples."""
        slopes = {k: Interval(s.lower[examples], s.upper[examples]) for k, s in self.slopes.items()}
        return Gates(slopes, {k: Lines(*(v[examples] for v in line)) for k, line in self.lines.items()})

    def double(self) -> Gates:
        """The slope ranges in float64; lines around slopes are left out."""
        return Gates({k: Interval(s.lower.double(), s.upper.double()) for k, s in self.slopes.items()})


@dataclasses.dataclass(frozen=True, eq=False)
class Conflicts:
    """Pairs of gate states that no input of the box attains together.

    Attributes:
        example: (pairs,).
        node, neuron: (pairs, 2) the two gates.
        high: (pairs, 2) true where the state is the high slope, of ``z >= 0``.
    """

    example: Tensor
    node: Tensor
    neuron: Tensor
    high: Tensor

    @property
    def count(self) -> int:
        return int(self.example.shape[0])

    @classmethod
    def none(cls, device: torch.device) -> Conflicts:
        pair = torch.zeros(0, 2, dtype=torch.int64, device=device)
        return cls(pair[:, 0], pair, pair, pair.bool())

    def of(self, examples: Tensor) -> Conflicts:
        """Those of some ``examples`` (some,), numbered by their place there."""
        match = self.example.unsqueeze(-1) == examples
        inside = match.any(-1)
        example = match.to(torch.uint8).argmax(-1)[inside]
        return Conflicts(example, self.node[inside], self.neuron[inside], self.high[inside])


@dataclasses.dataclass(frozen=True, eq=False)
class Coupling:
    """What ties gates to each other and to the inputs that open them, for networks with one kink at the origin.

    Attributes:
        box: (examples, inputs).
        bounds: pre-activation bounds over the box.
        conflicts: pairs of states that exclude each other.
    """

    box: Interval
    bounds: PreactivationBounds
    conflicts: Conflicts

    def of(self, examples: Tensor) -> Coupling:
        """That of some examples (some,)."""
        box = Interval(self.box.lower[examples], self.box.upper[examples])
        bounds = {k: Interval(v.lower[examples], v.upper[examples]) for k, v in self.bounds.items()}
        return Coupling(box, bounds, self.conflicts.of(examples))
