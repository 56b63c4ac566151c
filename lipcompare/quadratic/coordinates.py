"""Gates as coordinates: every gate's gradient and the input gradient as affine maps of the coordinates of later gates.

A gate ``u = a J`` with ``a`` in ``[lo, hi]`` passes ``lo J`` straight through and adds a coordinate ``v = u - lo J``
with ``v (K - v) >= 0``, ``K = (hi - lo) J`` (docs/quadratic-gates.md). Every ``K`` and every entry of the input
gradient is an affine map of the coordinates of later gates; this file pulls those maps back through any graph, all
coordinates, rows and examples at once.

Not every gate needs a coordinate. One without passes the middle of its slope range, and what it adds to or takes from
that is a perturbation, bounded by interval arithmetic and carried along as absolute values.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from lipcompare.gates import Gates
from lipcompare.jacobian.gradients import Gradients
from lipcompare.network.graph import Activate, Affine, Network, fold_backward
from lipcompare.network.interval import Interval
from lipcompare.network.linear_maps import LinearMap
from lipcompare.rounding import allowance, raised, underflow

_TINY = 1e-9  # coordinates of a smaller relative size are scaled as if they had this one


@dataclasses.dataclass(frozen=True, eq=False)
class Coordinates:
    """Which gate each coordinate stands for; coordinate 0 is the constant 1.

    Attributes:
        node: (n,) activation node of each coordinate, -1 for the constant. Coordinates of one node are consecutive,
            nodes follow each other from the output to the input.
        neuron: (examples, n) neuron within the node.
        present: (examples, n) false where an example has fewer gates at that node than another one of the batch.
    """

    node: Tensor
    neuron: Tensor
    present: Tensor

    @property
    def count(self) -> int:
        return int(self.node.shape[0])

    def spread(self, index: Tensor, count: int) -> Coordinates:
        """The same names with the examples at ``index`` of ``count``."""

        def put(value: Tensor) -> Tensor:
            return value.new_zeros(count, value.shape[-1]).index_copy(0, index, value)

        return dataclasses.replace(self, neuron=put(self.neuron), present=put(self.present))

    @cached_property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Coordinates of one activation node each, without the constant."""
        _, counts = torch.unique_consecutive(self.node, return_counts=True)
        stops = counts.cumsum(0).tolist()
        return tuple(itertools.pairwise(stops))


@dataclasses.dataclass(frozen=True, eq=False)
class GateMaps:
    """Affine maps of the coordinates for every example and row of a batch; unscaled.

    Attributes:
        coordinates: the coordinates, shared by all rows of an example.
        gate_linear: (examples, n, n) column i holds the coefficients of ``K_i`` on coordinates (row 0 is zero here).
        gate_constant: (examples, rows, n) constant part of ``K_i``.
        reach: (examples, rows, n) bound on ``|K_i|``, so on ``|v_i|``; 1 for the constant.
        entry_linear: (examples, n, inputs) coefficients of the input gradient on coordinates (row 0 is zero here).
        entry_constant: (examples, rows, inputs) constant part of the input gradient.
        gate_interval: (examples, rows, n) interval of each ``K_i``.
        gate_error: (examples, rows, n) bound on the error of ``K_i`` over all feasible coordinates: rounding, and gates
            without a coordinate.
        entry_error: (examples, rows, inputs) bound on the rounding error of the input gradient.
        entry_drift: (examples, rows, inputs) bound on what gates without a coordinate change in the input gradient.
    """

    coordinates: Coordinates
    gate_linear: Tensor
    gate_constant: Tensor
    reach: Tensor
    entry_linear: Tensor
    entry_constant: Tensor
    gate_interval: Interval
    gate_error: Tensor
    entry_error: Tensor
    entry_drift: Tensor


Lifted = Mapping[int, Tensor]
"""Per activation node a mask (examples, neurons) of the gates that get a coordinate, if undecided."""


def coordinate_count(gates: Gates, gradients: Gradients) -> Tensor:
    """Number of coordinates (examples,) that each example needs, the constant included."""
    count = torch.ones(
        gradients.intervals[0].lower.shape[0], dtype=torch.int64, device=gradients.intervals[0].lower.device
    )
    for k in gates.slopes:
        if k in gradients.intervals:
            count = count + undecided_gates(gates, gradients, k).sum(-1)
    return count


def undecided_gates(gates: Gates, gradients: Gradients, k: int) -> Tensor:
    """Gates (examples, neurons) of node ``k`` that are undecided and have a gradient in some row."""
    return gates.unstable(k) & (gradients.intervals[k].magnitude > 0).any(1)


def gate_maps(
    network: Network, gates: Gates, functionals: Tensor, gradients: Gradients, lifted: Lifted | None = None
) -> GateMaps:
    """Pull the coordinates back through the network, from the output to the input.

    Args:
        functionals: (examples, rows, outputs), float64 like everything else here.
        gradients: intervals of the gradient at every gate; they give the size of each coordinate.
        lifted: the gates with a coordinate; None for all of them.
    """
    output = _Gradient(
        constant=functionals,
        linear=functionals.new_zeros(len(functionals), 0, network.out_size),
        size=functionals.abs(),
        drift=None,
        unit=0.0,
    )
    walk = _Walk(gates, gradients, lifted, [_constant_one(functionals)])
    at_input = fold_backward(network, {len(network.nodes) - 1: output}, walk.through_gates, walk.through_maps)
    if at_input is None:  # the output does not depend on the input
        zero = functionals.new_zeros(*functionals.shape[:2], network.in_size)
        at_input = _Gradient(constant=zero, linear=zero[:, :0], size=zero, drift=None, unit=0.0)
    return _assembled(walk.layers, at_input)


@dataclasses.dataclass(frozen=True, eq=False)
class _Gradient:
    """The gradient at a node as an affine map of the coordinates of later gates, with what errs in it.

    Attributes:
        constant: (examples, rows, size).
        linear: (examples, coordinates, size) coefficients on the coordinates met so far, without the constant.
        size: (examples, rows, size) ``sum_m |coefficient_m| reach_m``, in absolute values throughout, with what covers
            underflow.
        drift: (examples, rows, size) what gates without a coordinate change, at most, but for the rounding of this sum;
            None for nothing.
        unit: operations on the way to a coefficient, whose rounding is relative to ``size``.
    """

    constant: Tensor
    linear: Tensor
    size: Tensor
    drift: Tensor | None
    unit: float

    def __add__(self, other: _Gradient) -> _Gradient:
        drift = other.drift if self.drift is None else self.drift
        if self.drift is not None and other.drift is not None:
            drift = self.drift + other.drift
        return _Gradient(
            constant=self.constant + other.constant,
            linear=_padded_sum(self.linear, other.linear),
            size=self.size + other.size,
            drift=drift,
            unit=max(self.unit, other.unit) + 1,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class _Layer:
    """The coordinates of one activation node, in the terms of :class:`GateMaps`.

    Attributes:
        linear: (examples, coordinates, width) coefficients of each ``K_i`` on the coordinates met before.
        neuron, present: (examples, width).
        constant, reach, lower, upper, error: (examples, rows, width).
    """

    node: int
    neuron: Tensor
    present: Tensor
    linear: Tensor
    constant: Tensor
    reach: Tensor
    lower: Tensor
    upper: Tensor
    error: Tensor

    @property
    def width(self) -> int:
        return int(self.neuron.shape[-1])


def _constant_one(functionals: Tensor) -> _Layer:
    """Coordinate 0."""
    zero = functionals.new_zeros(*functionals.shape[:2], 1)
    one = torch.ones_like(zero)
    return _Layer(
        node=-1,
        neuron=torch.zeros(len(functionals), 1, dtype=torch.int64, device=functionals.device),
        present=torch.ones(len(functionals), 1, dtype=torch.bool, device=functionals.device),
        linear=zero[:, :0],
        constant=zero,
        reach=one,
        lower=one,
        upper=one,
        error=zero,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Walk:
    """The walk from the output to the input, which meets the gates layer by layer."""

    gates: Gates
    gradients: Gradients
    lifted: Lifted | None
    layers: list[_Layer]

    @property
    def _underflow(self) -> Tensor:
        """What covers underflow in the coefficients of an entry, (examples, rows, 1): each meets its reach."""
        total = torch.stack([layer.reach.sum(-1, keepdim=True) for layer in self.layers]).sum(0)
        return underflow(total)

    def through_maps(self, k: int, node: Affine, maps: Sequence[LinearMap], gradient: _Gradient) -> Iterator[_Gradient]:
        """What an affine node hands back to its parents."""
        lost = self._underflow
        for m in maps:
            yield _Gradient(
                constant=m.adjoint(gradient.constant),
                linear=m.adjoint(gradient.linear),
                size=m.absolute.adjoint(gradient.size + lost) + lost,
                drift=None if gradient.drift is None else m.absolute.adjoint(gradient.drift),
                unit=gradient.unit + 2 * _adjoint_terms(m.in_size, m.out_size, m.fan_in) + 1,
            )

    def through_gates(self, k: int, node: Activate, gradient: _Gradient) -> _Gradient:
        """Undecided gates become coordinates of a new layer, and what they let through goes on to the parent."""
        low, high = (slope.unsqueeze(1) for slope in self.gates.slopes[k])
        undecided = undecided_gates(self.gates, self.gradients, k)
        lifted = undecided if self.lifted is None else undecided & self.lifted[k]
        layer = self._layer(k, lifted, high - low, gradient)
        met = sum(before.width for before in self.layers) - 1
        self.layers.append(layer)
        # A coordinate's gate passes its low slope straight through, one without a coordinate the middle.
        left = None if self.lifted is None else (undecided & ~lifted).unsqueeze(1)
        straight = low if left is None else torch.where(left, 0.5 * (low + high), low)
        examples, rows, size = gradient.constant.shape
        unit_rows = low.new_zeros(examples, layer.width, size)
        unit_rows.scatter_(-1, layer.neuron.unsqueeze(-1), layer.present.unsqueeze(-1).to(low))
        ahead = low.new_zeros(examples, met - gradient.linear.shape[1], size)
        of_coordinates = torch.zeros_like(gradient.size)
        of_coordinates.scatter_(-1, layer.neuron.unsqueeze(1).expand(-1, rows, -1), layer.reach)
        return _Gradient(
            constant=gradient.constant * straight,
            linear=torch.cat([gradient.linear * straight, ahead, unit_rows], 1),
            size=gradient.size * straight.abs() + of_coordinates,
            drift=None if left is None else self._drift(k, left * 0.5 * (high - low), straight, gradient),
            unit=gradient.unit + 3,
        )

    def _layer(self, k: int, lifted: Tensor, spread: Tensor, gradient: _Gradient) -> _Layer:
        """Coordinates of the gates ``lifted`` (examples, neurons) with slope ranges of width ``spread``."""
        width = int(lifted.sum(-1).max())
        neuron = torch.argsort((~lifted).to(torch.uint8), dim=-1, stable=True)[:, :width]
        present = lifted.gather(-1, neuron)
        spread = spread.gather(-1, neuron.unsqueeze(1)) * present.unsqueeze(1)

        def taken(value: Tensor) -> Tensor:
            """``(hi - lo)`` times a value (examples, any, neurons), at the coordinates."""
            return value.gather(-1, neuron.unsqueeze(1).expand(-1, value.shape[1], -1)) * spread

        interval = self.gradients.intervals[k]
        size = taken(gradient.size) + self._underflow * present.unsqueeze(1)
        rounding = allowance(gradient.unit + 4, spread.dtype) * size
        return _Layer(
            node=k,
            neuron=neuron,
            present=present,
            linear=taken(gradient.linear),
            constant=taken(gradient.constant),
            reach=_inflate(taken(interval.magnitude), rounding),
            lower=taken(interval.lower),
            upper=taken(interval.upper),
            error=rounding if gradient.drift is None else rounding + raised(taken(gradient.drift), gradient.unit + 4),
        )

    def _drift(self, k: int, half: Tensor, straight: Tensor, gradient: _Gradient) -> Tensor:
        """What gates without a coordinate change so far; ``half`` (examples, 1, neurons) is half their slope range."""
        added = half * self.gradients.intervals[k].magnitude
        # The gradient's interval and the sums behind it are rounded too.
        rounding = allowance(gradient.unit + 4, half.dtype) * gradient.size * (added > 0)
        total = added + rounding
        return total if gradient.drift is None else total + gradient.drift * straight.abs()


def _assembled(layers: Sequence[_Layer], at_input: _Gradient) -> GateMaps:
    """All layers side by side, and the input gradient's map over all of their coordinates."""
    count = sum(layer.width for layer in layers)
    columns = torch.cat([_padded(layer.linear, count - 1) for layer in layers], -1)
    inputs = at_input.size.shape[-1]
    drift = torch.zeros_like(at_input.size) if at_input.drift is None else at_input.drift
    return GateMaps(
        coordinates=Coordinates(
            node=torch.cat([torch.full_like(layer.neuron[0], layer.node) for layer in layers]),
            neuron=torch.cat([layer.neuron for layer in layers], 1),
            present=torch.cat([layer.present for layer in layers], 1),
        ),
        gate_linear=torch.nn.functional.pad(columns, (0, 0, 1, 0)),
        gate_constant=torch.cat([layer.constant for layer in layers], -1),
        reach=torch.cat([layer.reach for layer in layers], -1),
        entry_linear=torch.nn.functional.pad(_padded(at_input.linear, count - 1), (0, 0, 1, 0)),
        entry_constant=at_input.constant,
        gate_interval=Interval(
            torch.cat([layer.lower for layer in layers], -1), torch.cat([layer.upper for layer in layers], -1)
        ),
        gate_error=torch.cat([layer.error for layer in layers], -1),
        entry_error=allowance(at_input.unit + inputs + 4, at_input.size.dtype) * at_input.size,
        entry_drift=raised(drift, at_input.unit + 4),
    )


def _inflate(magnitude: Tensor, error: Tensor) -> Tensor:
    """Bound on ``|K|`` as the maps give it: the interval is the true one's. 0 stays 0 only where that is exactly 0."""
    top = magnitude.amax(-1, keepdim=True) if magnitude.shape[-1] else magnitude
    return torch.where(magnitude > 0, torch.maximum(raised(magnitude + error, 2), top * _TINY), magnitude)


def _adjoint_terms(in_size: int, out_size: int, fan_in: int) -> int:
    """Bound on the terms that the adjoint of a map sums in one entry."""
    return min(out_size, max(fan_in, -(-out_size * fan_in // max(in_size, 1)) * fan_in))


def _padded(linear: Tensor, count: int) -> Tensor:
    """Maps (examples, coordinates, size) over ``count`` coordinates, of which those at the end are new."""
    return torch.nn.functional.pad(linear, (0, 0, 0, count - linear.shape[1]))


def _padded_sum(first: Tensor, second: Tensor) -> Tensor:
    """The sum of maps (examples, coordinates, size) of which the shorter lacks the coordinates met since."""
    count = max(first.shape[1], second.shape[1])
    return _padded(first, count) + _padded(second, count)
