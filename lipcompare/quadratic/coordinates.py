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
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from lipcompare.gates import Gates
from lipcompare.jacobian.linear import Gradients
from lipcompare.network.graph import Activate, Affine, Network
from lipcompare.network.interval import Interval

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
    examples, rows = functionals.shape[:2]
    new = functionals.new_zeros
    last = len(network.nodes) - 1
    constants: dict[int, Tensor] = {last: functionals}  # (examples, rows, size)
    linears: dict[int, Tensor] = {last: new(examples, 0, network.out_size)}  # (examples, coordinates so far, size)
    sizes: dict[int, Tensor] = {last: functionals.abs()}  # (examples, rows, size): sum_m |coefficient_m| reach_m
    drifts: dict[int, Tensor] = {}  # (examples, rows, size): what gates without a coordinate change, at most
    units: dict[int, float] = {last: 0.0}  # relative rounding error of a coefficient, in absolute-value arithmetic
    device = functionals.device
    nodes = [torch.tensor([-1], device=device)]
    neurons = [torch.zeros(examples, 1, dtype=torch.int64, device=device)]
    presents = [torch.ones(examples, 1, dtype=torch.bool, device=device)]
    linear_columns, constant_columns = [new(examples, 0, 1)], [new(examples, rows, 1)]
    reaches, errors = [torch.ones_like(constant_columns[0])], [new(examples, rows, 1)]
    gate_errors = [errors[0]]
    lowers, uppers = [torch.ones_like(constant_columns[0])], [torch.ones_like(constant_columns[0])]
    roundoff = torch.finfo(functionals.dtype).eps / 2
    for k in range(last, 0, -1):
        if k not in constants:
            continue
        constant, linear, size, unit = constants.pop(k), linears.pop(k), sizes.pop(k), units.pop(k)
        node = network.nodes[k]
        if isinstance(node, Activate):
            lo, hi = (v.unsqueeze(1) for v in gates.slopes[k])
            every = undecided_gates(gates, gradients, k)
            alive = every if lifted is None else every & lifted[k]
            # A coordinate's gate passes its low slope straight through, one without a coordinate the middle.
            straight = lo if lifted is None else torch.where((every & ~alive).unsqueeze(1), 0.5 * (lo + hi), lo)
            drift = drifts.pop(k, None)
            width = int(alive.sum(-1).max())
            index = torch.argsort((~alive).to(torch.uint8), dim=-1, stable=True)[:, :width]
            present = alive.gather(-1, index)
            pick = index.unsqueeze(1)
            spread = (hi - lo).gather(-1, pick) * present.unsqueeze(1)
            linear_columns.append(linear.gather(-1, pick.expand(-1, linear.shape[1], -1)) * spread)
            constant_columns.append(constant.gather(-1, pick.expand(-1, rows, -1)) * spread)
            magnitude = gradients.intervals[k].magnitude.gather(-1, pick.expand(-1, rows, -1)) * spread
            total = size.gather(-1, pick.expand(-1, rows, -1)) * spread
            errors.append((unit + 4) * roundoff * total)
            moved = 0.0 if drift is None else drift.gather(-1, pick.expand(-1, rows, -1)) * spread
            gate_errors.append(errors[-1] + moved)
            ends = (end.gather(-1, pick.expand(-1, rows, -1)) * spread for end in gradients.intervals[k])
            for part, end in zip((lowers, uppers), ends, strict=True):
                part.append(end)
            reach = _inflate(magnitude, errors[-1])
            reaches.append(reach)
            nodes.append(torch.full((width,), k, device=device))
            neurons.append(index)
            presents.append(present)
            unit_rows = new(examples, width, node.size).scatter_(-1, index.unsqueeze(-1), present.unsqueeze(-1).to(lo))
            ahead = new(examples, sum(c.shape[-1] for c in linear_columns[:-1]) - 1 - linear.shape[1], node.size)
            linear = torch.cat([linear * straight, ahead, unit_rows], 1)
            injected = torch.zeros_like(size).scatter_(-1, pick.expand(-1, rows, -1), reach)
            _add(constants, node.parent, constant * straight)
            _add_padded(linears, node.parent, linear)
            _add(sizes, node.parent, size * straight.abs() + injected)
            if lifted is not None:
                width_of = (0.5 * (hi - lo) * (every & ~alive).unsqueeze(1)) * gradients.intervals[k].magnitude
                # The gradient's interval and the sums behind it are rounded too.
                added = width_of * (1 + 1e-9) + (unit + 4) * roundoff * size * (width_of > 0)
                _add(drifts, node.parent, added if drift is None else added + drift * straight.abs())
            units[node.parent] = max(units.get(node.parent, 0.0), unit + 2) + 1
        elif isinstance(node, Affine):
            drift = drifts.pop(k, None)
            for p, m in node.terms:
                _add(constants, p, m.adjoint(constant))
                _add_padded(linears, p, m.adjoint(linear))
                _add(sizes, p, m.absolute.adjoint(size))
                if drift is not None:
                    _add(drifts, p, m.absolute.adjoint(drift))
                units[p] = max(units.get(p, 0.0), unit + 2 * _adjoint_terms(m.in_size, m.out_size, m.fan_in)) + 1
    n = sum(len(part) for part in nodes)
    columns = [torch.cat([c, new(examples, n - 1 - c.shape[1], c.shape[2])], 1) for c in linear_columns]
    gate_linear = torch.cat([new(examples, 1, n), torch.cat(columns, -1)], 1)
    if 0 not in constants:
        constants[0] = sizes[0] = new(examples, rows, network.in_size)
        linears[0] = new(examples, 0, network.in_size)
    linear = linears[0]
    top, bottom = new(examples, 1, network.in_size), new(examples, n - 1 - linear.shape[1], network.in_size)
    return GateMaps(
        Coordinates(torch.cat(nodes), torch.cat(neurons, 1), torch.cat(presents, 1)),
        gate_linear,
        torch.cat(constant_columns, -1),
        torch.cat(reaches, -1),
        torch.cat([top, linear, bottom], 1),
        constants[0],
        Interval(torch.cat(lowers, -1), torch.cat(uppers, -1)),
        torch.cat(gate_errors, -1),
        (units.get(0, 0.0) + network.in_size + 4) * roundoff * sizes[0],
        drifts.get(0, new(1, 1, 1)).expand(examples, rows, network.in_size) * (1 + 1e-9),
    )


def _inflate(magnitude: Tensor, error: Tensor) -> Tensor:
    """Bound on ``|K|`` that rounding in the interval cannot break; 0 stays 0 only where the interval is exactly 0."""
    top = magnitude.amax(-1, keepdim=True) if magnitude.shape[-1] else magnitude
    return torch.where(magnitude > 0, torch.maximum(magnitude * (1 + 1e-9) + 8 * error, top * _TINY), magnitude)


def _adjoint_terms(in_size: int, out_size: int, fan_in: int) -> int:
    """Bound on the terms that the adjoint of a map sums in one entry."""
    return min(out_size, max(fan_in, -(-out_size * fan_in // max(in_size, 1)) * fan_in))


def _add(values: dict[int, Tensor], k: int, term: Tensor) -> None:
    values[k] = values[k] + term if k in values else term


def _add_padded(values: dict[int, Tensor], k: int, term: Tensor) -> None:
    """Add (examples, coordinates, size) tensors of which the shorter lacks the coordinates met since."""
    if k not in values:
        values[k] = term
        return
    short, long = sorted((values[k], term), key=lambda t: t.shape[1])
    total = long.clone()
    total[:, : short.shape[1]] += short
    values[k] = total
