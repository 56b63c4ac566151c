"""Decisions as numbers: which side of its kink a neuron is on, which sign an entry of the input gradient has.

Decision ``2 g + 1`` puts gate ``g`` on its active side (``z >= 0``), ``2 g`` on the other; gates are numbered through
all activation nodes from the input on, entries of the gradient follow them (``J_j >= 0`` and ``J_j <= 0``), and last
come the inputs: such a decision takes the upper or the lower half of the box along one input, and may be repeated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lipcompare.gates import by_node
from lipcompare.network.graph import Network
from lipcompare.network.interval import Interval

SCORELESS = 1e-12
"""Share of a second measure in the score of a decision: it orders those that the first one says nothing of."""
LAST = 1e-300
"""Score of decisions that come after all others, but may be taken."""


@dataclasses.dataclass(frozen=True, eq=False)
class Numbering:
    """Numbers of the gates and gradient entries of one network."""

    network: Network

    @cached_property
    def start(self) -> dict[int, int]:
        """Number of the first gate of every activation node."""
        starts, total = {}, 0
        for k in self.network.activations:
            starts[k] = total
            total += self.network.nodes[k].size
        return starts

    @property
    def gates(self) -> int:
        return self.network.neurons

    @property
    def count(self) -> int:
        """Gates and gradient entries; inputs to be halved are numbered from here on."""
        return self.gates + self.network.in_size

    @cached_property
    def node_of(self) -> np.ndarray:
        """Activation node of every gate, (gates,)."""
        return np.repeat(self.network.activations, [self.network.nodes[k].size for k in self.network.activations])

    @cached_property
    def layer_of(self) -> np.ndarray:
        """Number of the activation node of every gate among them, in the order of the network, (gates,)."""
        return np.unique(self.node_of, return_inverse=True)[1]

    def split(self, flat: Tensor) -> dict[int, Tensor]:
        """A tensor (..., gates) by activation node."""
        return by_node(self.network, flat)

    def join(self, by_node: dict[int, Tensor]) -> Tensor:
        """The inverse of :meth:`split`, for networks with an activation."""
        return torch.cat([by_node[k] for k in self.network.activations], -1)

    def signs(self, decisions: Sequence[np.ndarray]) -> tuple[dict[int, Tensor], Tensor]:
        """Signs (1, -1, 0 for undecided) of gates by node, (subdomains, neurons), and entries, (subdomains, inputs)."""
        table = np.zeros((len(decisions), self.count), dtype=np.int8)
        for row, made in zip(table, decisions, strict=True):
            signed = made[made < 2 * self.count]
            row[signed >> 1] = 2 * (signed & 1) - 1
        flat = torch.from_numpy(table)
        return self.split(flat[:, : self.gates]), flat[:, self.gates :]

    def boxes(self, decisions: Sequence[np.ndarray], box: Interval) -> Interval:
        """The halves of ``box`` (inputs,) that the decisions take, (subdomains, inputs)."""
        lower, upper = (v.expand(len(decisions), -1).clone() for v in box)
        halvings = [made[made >= 2 * self.count] - 2 * self.count for made in decisions]
        # One after another, but all subdomains at once: each may halve an input that it has halved before.
        for step in range(max((len(h) for h in halvings), default=0)):
            rows = torch.tensor([i for i, h in enumerate(halvings) if len(h) > step], device=lower.device)
            taken = torch.tensor([int(h[step]) for h in halvings if len(h) > step], device=lower.device)
            j, high = taken >> 1, (taken & 1).bool()
            low, top = lower[rows, j], upper[rows, j]
            middle = (low + top) / 2
            lower[rows, j], upper[rows, j] = torch.where(high, middle, low), torch.where(high, top, middle)
        return Interval(lower, upper)
