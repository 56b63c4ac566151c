"""Upper bounds on sums of linear functionals of pre-activations of several layers at once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from lipcompare.domain import Region
from lipcompare.network.activations import Lines
from lipcompare.network.graph import Activate, Affine, Network, Terms, fold_forward
from lipcompare.network.interval import Interval
from lipcompare.preactivation.backward import backward_planes, concretise
from lipcompare.preactivation.interval import Reach, at_input, interval_affine, through_activation
from lipcompare.rounding import floor


@dataclasses.dataclass(frozen=True, eq=False)
class ForwardBound:
    """The forward network, relaxed: what Jacobian bounds of smooth networks run on into.

    Attributes:
        region: a batch of input regions.
        bounds: on every pre-activation.
        lines: relaxation of every activation over its bounds.
    """

    network: Network
    region: Region
    bounds: Mapping[int, Interval]
    lines: Mapping[int, Lines]

    @functools.cached_property
    def scales(self) -> dict[int, Tensor]:
        """Per activation node (batch, neurons), what the rounding of a bound on its pre-activation is measured by."""
        return {k: z.size + floor(z.size.dtype) for k, z in self._reached.items()}

    @functools.cached_property
    def largest(self) -> Tensor:
        """The largest sum of the sizes of a node's values, (batch, 1), by which underflow on the way is multiplied."""
        return functools.reduce(torch.maximum, (z.largest for z in self._reached.values()))

    @functools.cached_property
    def _reached(self) -> dict[int, Reach]:
        """Per activation node its pre-activation."""
        found: dict[int, Reach] = {}

        def activation(k: int, node: Activate, z: Reach) -> Reach:
            found[k] = z
            return through_activation(node.activation, z._replace(interval=self.bounds[k]), self.lines[k])

        def affine(k: int, node: Affine, terms: Terms[Reach]) -> Reach:
            return interval_affine(node, terms)

        fold_forward(self.network, {0: at_input(self.region)}, activation, affine)
        return found

    @classmethod
    def of(cls, network: Network, region: Region, bounds: Mapping[int, Interval]) -> ForwardBound:
        lines = {k: network.activation(k).relaxation(z) for k, z in bounds.items()}
        return cls(network, region, bounds, lines)

    def __call__(self, weights: Mapping[int, Tensor]) -> Tensor:
        """Upper bounds (batch, rows, targets) on ``sum_k weights_k z_k`` over the region.

        The better of two: each pre-activation at its own worst, or all of them as one function of the input.

        Args:
            weights: per activation node, on its pre-activation, (batch, rows, targets, neurons).
        """
        shape = np.broadcast_shapes(*(w.shape[:-1] for w in weights.values()))
        flat = {k: w.expand(*shape, -1).flatten(1, 2) for k, w in weights.items()}
        apart = flat[next(iter(flat))].new_zeros(())
        rows: dict[int, Tensor] = {}
        for k, weight in flat.items():
            z = self.bounds[k]
            middle, radius = z.center.unsqueeze(-1), z.radius.unsqueeze(-1)
            apart = apart + (weight @ middle + weight.abs() @ radius).squeeze(-1)
            parent = self.network.nodes[k].parents[0]
            rows[parent] = rows[parent] + weight if parent in rows else weight
        lines = {k: Lines(*(v.unsqueeze(1) for v in line)) for k, line in self.lines.items()}
        together = concretise(self.region, *backward_planes(self.network, lines, rows))
        return torch.minimum(apart, together).reshape(shape)
