"""Lower bounds on linear functionals of the output by the forward pass, with slopes optimised for them if wanted."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping

import torch
from torch import Tensor

from lipcompare.budget import Copies, Deadline, tensor_bytes
from lipcompare.domain import Region
from lipcompare.network.activations import Lines
from lipcompare.network.graph import Activate, Affine, Network, Terms, fold_forward
from lipcompare.network.interval import Interval, end_functionals
from lipcompare.preactivation.backward import backward_plane, backward_upper
from lipcompare.preactivation.forward import Tightening, preactivation_bounds
from lipcompare.preactivation.interval import (
    Reach,
    at_input,
    interval_affine,
    outward,
    through_activation,
)
from lipcompare.rounding import SPARE, allowance


def functional_lower(
    network: Network,
    region: Region,
    rows: Tensor,
    tightening: Tightening = Tightening.CROWN,
    *,
    memory: int = 2**30,
    deadline: Deadline | None = None,
) -> Tensor:
    """Lower bounds (batch, rows) on ``rows`` (batch, rows, outputs) times the output over regions, rounded outward.

    The better of two: the outputs each at its own worst, and one pass back to the input with the default lines.
    """
    bounds = preactivation_bounds(network, region, tightening, memory=memory, deadline=deadline)
    lines = {k: network.activation(k).relaxation(z) for k, z in bounds.items()}
    return _lower(network, region, rows, _output(network, region, bounds, lines), lines)


def functional_planes(
    network: Network, region: Region, rows: Tensor, bounds: Mapping[int, Interval]
) -> tuple[Tensor, Tensor]:
    """Affine functions of the input, coefficients (batch, rows, inputs) and constants (batch, rows), that lie above
    functionals ``rows`` (batch, rows, outputs) of the output over regions; the constants are rounded outward."""
    lines = {k: network.activation(k).relaxation(z) for k, z in bounds.items()}
    output = _output(network, region, bounds, lines)
    wide = {k: Lines(*(v.unsqueeze(1) for v in line)) for k, line in lines.items()}
    coefficient, constant = backward_plane(network, wide, len(network.nodes) - 1, rows)
    error = allowance(network.operations, rows.dtype) * _size(network, rows, output)
    return coefficient, error if constant is None else constant + error


def _size(network: Network, rows: Tensor, output: Reach) -> Tensor:
    """The sum of the absolute values of all terms (batch, rows) of functionals of the output, with what covers
    underflow."""
    return (rows.abs() @ output.size.unsqueeze(-1)).squeeze(-1) + len(network.nodes) * output.underflow


def _output(network: Network, region: Region, bounds: Mapping[int, Interval], lines: Mapping[int, Lines]) -> Reach:
    """The outputs' intervals by one step from the last activations, and the size that their rounding is measured by."""

    def activation(k: int, node: Activate, z: Reach) -> Reach:
        return through_activation(node.activation, z._replace(interval=bounds[k]), lines[k])

    def affine(k: int, node: Affine, terms: Terms[Reach]) -> Reach:
        return interval_affine(node, terms)

    found = fold_forward(network, {0: at_input(region)}, activation, affine)
    assert found is not None  # every node depends on the input
    return found


def _lower(network: Network, region: Region, rows: Tensor, output: Reach, lines: Mapping[int, Lines]) -> Tensor:
    """Both bounds of :func:`functional_lower`, for lines (batch, neurons) or (batch, rows, neurons)."""
    size = _size(network, rows, output)
    wide = {k: Lines(*(v if v.ndim == 3 else v.unsqueeze(1) for v in line)) for k, line in lines.items()}
    passed = -backward_upper(network, region, wide, len(network.nodes) - 1, -rows)
    passed = passed - allowance(network.operations, rows.dtype) * size
    up, down = rows.clamp(min=0), -rows.clamp(max=0)
    lower, upper = (end.unsqueeze(-1) for end in output.interval)
    apart = (up @ lower - down @ upper).squeeze(-1)
    apart = apart - allowance(rows.shape[-1] + SPARE, rows.dtype) * size
    return torch.maximum(passed, apart).nan_to_num(nan=-torch.inf)


class FreeSlopes:
    """The free slopes of all relaxations on the way to some functionals: what :func:`joint_lower` may be improved by.

    Every pre-activation that is bounded by a pass of its own, in either direction, and every functional has slopes of
    its own for the activations before it, or, where that takes too much memory, all of a node share theirs.

    Attributes:
        tensors: by the node that is bounded and the activation node, (batch, targets or 1, neurons) in [0, 1].
    """

    def __init__(self, network: Network, start: Mapping[int, Interval], rows: int, memory: int) -> None:
        """Slopes that CROWN takes for the pre-activation bounds ``start``."""
        last = len(network.nodes) - 1
        like = next(iter(start.values())).lower
        targets = {k: 2 * network.nodes[k].size for k in _refined_nodes(network)} | {last: rows}
        before = {k: [a for a in network.activations if a <= k] for k in targets}
        entries = sum(targets[k] * network.nodes[a].size for k in targets for a in before[k])
        own = tensor_bytes(Copies.DESCENT, len(like) * entries, like) <= memory
        self.tensors: dict[tuple[int, int], Tensor] = {}
        for k, count in targets.items():
            for a in before[k]:
                first = network.activation(a).start(start[a]).unsqueeze(1)
                self.tensors[k, a] = first.expand(-1, count if own else 1, -1).clone()

    @staticmethod
    def fit(network: Network, batch: int, like: Tensor, memory: int) -> bool:
        """Whether a pass through :func:`joint_lower` and back fits in memory, with slopes that are shared."""
        targets = [2 * network.nodes[k].size for k in _refined_nodes(network)]
        kept = sum(count * sum(n.size for n in network.nodes) for count in targets)
        return tensor_bytes(Copies.PLANE, batch * kept, like) <= memory

    def of(self, node: int, activation: int, targets: Tensor | None = None) -> Tensor:
        """The slopes of some targets (both directions, numbered from 0) of a node."""
        chosen = self.tensors[node, activation]
        return chosen if targets is None or chosen.shape[1] == 1 else chosen[:, targets]


def _refined_nodes(network: Network) -> list[int]:
    """Affine nodes that an activation reads and that come after one."""
    first = network.activations[0] if network.activations else len(network.nodes)
    parents = {network.nodes[k].parents[0] for k in network.activations}
    return sorted(k for k in parents if k > first)


def joint_lower(
    network: Network, region: Region, rows: Tensor, slopes: FreeSlopes, bounds: Mapping[int, Interval]
) -> Tensor:
    """Lower bounds (batch, rows) on functionals of the output, as a function of all the free slopes on the way.

    Differentiable in the slopes and in the region; whatever the slopes are, it is a bound, rounded outward.

    Args:
        bounds: pre-activation bounds that hold over the regions; the neurons that these leave undecided in any example
            get a pass of their own.
    """
    lines: dict[int, Lines] = {}
    families = {}
    undecided = _undecided_neurons(network, bounds)

    def activation(k: int, node: Activate, z: Reach) -> Reach:
        wide = Interval(*(v.unsqueeze(1) for v in z.interval))
        families[k] = functools.partial(node.activation.relaxation, wide)
        lines[k] = node.activation.relaxation(z.interval)
        return through_activation(node.activation, z, lines[k])

    def affine(k: int, node: Affine, terms: Terms[Reach]) -> Reach:
        reach = interval_affine(node, terms)
        for r in network.consumers[k]:
            if r in bounds:
                reach = reach._replace(interval=reach.interval.intersect(bounds[r]))
        if k not in undecided or not len(undecided[k]):
            return reach
        neurons, size = undecided[k], node.size
        both = torch.cat([neurons, neurons + size])
        sides = end_functionals(neurons, size, rows)
        chosen = {a: families[a](slopes.of(k, a, both)) for a in families}
        high, low = backward_upper(network, region, chosen, k, sides).split(len(neurons), dim=1)
        lower = reach.interval.lower.index_copy(1, neurons, -low)
        upper = reach.interval.upper.index_copy(1, neurons, high)
        refined = outward(reach, Interval(lower, upper), network)
        return reach._replace(interval=reach.interval.intersect(refined))

    output = fold_forward(network, {0: at_input(region)}, activation, affine)
    assert output is not None  # every node depends on the input
    last = len(network.nodes) - 1
    return _lower(network, region, rows, output, {a: families[a](slopes.of(last, a)) for a in families})


def _undecided_neurons(network: Network, bounds: Mapping[int, Interval]) -> dict[int, Tensor]:
    """Per affine node after the first activation the neurons (some,) that any example leaves without one slope."""
    neurons: dict[int, Tensor] = {}
    for k in _refined_nodes(network):
        readers = [a for a in network.activations if network.nodes[a].parents[0] == k]
        ranges = [network.activation(a).slope_range(bounds[a]) for a in readers]
        mask = functools.reduce(operator.or_, (r.upper > r.lower for r in ranges))
        neurons[k] = mask.any(0).nonzero().squeeze(-1)
    return neurons
