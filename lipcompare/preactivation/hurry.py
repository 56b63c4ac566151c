"""Passes back to the input that are cut short, so that every layer gets one in time.

A layer that is left with interval arithmetic undoes what CROWN gained before it: on four convolutions the bound is a
hundred times looser. Where the time does not suffice for the passes of all layers, a pass ends one activation back, at
the interval of that layer: a fraction of the work, and far tighter than no pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from lipcompare.budget import Deadline, core_seconds
from lipcompare.network.graph import Affine, Network
from lipcompare.network.interval import Interval
from lipcompare.network.patches import window_costs

_GAIN = 0.5
"""Share of the work of a pass to the input below which a short one is taken: what either takes is a rough guess."""


class Hurry:
    """Decides, node by node from the input on, how far back the passes of each node go.

    What a multiply-add takes is measured on the way.

    Attributes:
        short: work for a row of every node whose pass ends one activation back, made when it is first needed.
        work, seconds: multiply-adds of the passes so far, and what they took.
        left: seconds that were left at the last question.
    """

    def __init__(self, network: Network, deadline: Deadline) -> None:
        self.network, self.deadline = network, deadline
        first = network.activations[0] if network.activations else len(network.nodes)
        read = {network.nodes[k].parents[0] for k in network.activations}
        self.nodes = [k for k in sorted(read) if k > first and isinstance(network.nodes[k], Affine)]
        self.short: dict[int, float] = {}
        self.work, self.seconds, self.left = 0.0, 0.0, deadline.left

    def ends(self, node: int, wanted: int, bounds: Mapping[int, Interval]) -> dict[int, Interval]:
        """Values (batch, neurons) of activation nodes where passes from a node end; none where there is time for all.

        Args:
            wanted: entries that get a pass.
            bounds: of every activation node before.
        """
        if math.isinf(self.deadline.left) or node not in self.nodes:
            return {}
        self._clock()
        share = wanted / self.network.nodes[node].size  # the same of later nodes
        if not self.short:
            self.short = {k: self._work(k, self._far(k)) for k in self.nodes}
        later = sum(self.short[k] * share * self.network.nodes[k].size for k in self.nodes if k > node)
        far, full = self._far(node), self._work(node, ())
        device = bounds[self.network.activations[0]].lower.device
        pace = self.seconds / self.work if self.work else core_seconds(1.0, device)
        late = (full * wanted + later) * pace > self.deadline.left
        ends = far if late and self.short[node] < _GAIN * full else ()
        self.work += self._work(node, ends) * wanted
        return {k: self.network.activation(k).image(bounds[k]) for k in ends}

    def _clock(self) -> None:
        """The time since the last question went into the node that it was asked for."""
        left = self.deadline.left
        self.seconds, self.left = self.seconds + (self.left - left if self.work else 0.0), left

    def _far(self, node: int) -> tuple[int, ...]:
        """All activations before a node but the last."""
        return tuple(k for k in self.network.activations if k < node)[:-1]

    def _work(self, node: int, ends: tuple[int, ...]) -> float:
        costs = window_costs(self.network, node, ends)
        return 2.0 * min(costs.windows, costs.images)
