"""Problem data of the quadratic-gate relaxation: from gates to coordinate rows and gradient rows.

A gate ``u = a J`` with ``a`` in ``[lo, hi]`` passes ``lo J`` straight through and adds a coordinate ``v = u - lo J``
with ``v (K - v) >= 0``, ``K = (hi - lo) J`` (docs/quadratic-gates.md). Every ``K`` and every entry of the input
gradient is an affine map of the coordinates of later gates; this file pulls those maps back through any graph, all
coordinates, rows and examples at once.
"""

from __future__ import annotations

import dataclasses
import itertools
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
        gate_error: (examples, rows, n) bound on the rounding error of ``K_i`` over all feasible coordinates.
        entry_error: (examples, rows, inputs) the same for the input gradient.
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


def coordinate_count(gates: Gates, gradients: Gradients) -> Tensor:
    """Number of coordinates (examples,) that each example needs, the constant included."""
    count = torch.ones(
        gradients.intervals[0].lower.shape[0], dtype=torch.int64, device=gradients.intervals[0].lower.device
    )
    for k in gates.slopes:
        if k in gradients.intervals:
            count = count + _alive(gates, gradients, k).sum(-1)
    return count


def _alive(gates: Gates, gradients: Gradients, k: int) -> Tensor:
    """Gates (examples, neurons) of node ``k`` that are undecided and have a gradient in some row."""
    return gates.unstable(k) & (gradients.intervals[k].magnitude > 0).any(1)


def gate_maps(network: Network, gates: Gates, functionals: Tensor, gradients: Gradients) -> GateMaps:
    """Pull the coordinates back through the network, from the output to the input.

    Args:
        functionals: (examples, rows, outputs), float64 like everything else here.
        gradients: intervals of the gradient at every gate; they give the size of each coordinate.
    """
    examples, rows = functionals.shape[:2]
    new = functionals.new_zeros
    last = len(network.nodes) - 1
    constants: dict[int, Tensor] = {last: functionals}  # (examples, rows, size)
    linears: dict[int, Tensor] = {last: new(examples, 0, network.out_size)}  # (examples, coordinates so far, size)
    sizes: dict[int, Tensor] = {last: functionals.abs()}  # (examples, rows, size): sum_m |coefficient_m| reach_m
    units: dict[int, float] = {last: 0.0}  # relative rounding error of a coefficient, in absolute-value arithmetic
    device = functionals.device
    nodes = [torch.tensor([-1], device=device)]
    neurons = [torch.zeros(examples, 1, dtype=torch.int64, device=device)]
    presents = [torch.ones(examples, 1, dtype=torch.bool, device=device)]
    linear_columns, constant_columns = [new(examples, 0, 1)], [new(examples, rows, 1)]
    reaches, errors = [torch.ones_like(constant_columns[0])], [new(examples, rows, 1)]
    lowers, uppers = [torch.ones_like(constant_columns[0])], [torch.ones_like(constant_columns[0])]
    roundoff = torch.finfo(functionals.dtype).eps / 2
    for k in range(last, 0, -1):
        if k not in constants:
            continue
        constant, linear, size, unit = constants.pop(k), linears.pop(k), sizes.pop(k), units.pop(k)
        node = network.nodes[k]
        if isinstance(node, Activate):
            lo, hi = (v.unsqueeze(1) for v in gates.slopes[k])
            alive = _alive(gates, gradients, k)
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
            linear = torch.cat([linear * lo, ahead, unit_rows], 1)
            injected = torch.zeros_like(size).scatter_(-1, pick.expand(-1, rows, -1), reach)
            _add(constants, node.parent, constant * lo)
            _add_padded(linears, node.parent, linear)
            _add(sizes, node.parent, size * lo.abs() + injected)
            units[node.parent] = max(units.get(node.parent, 0.0), unit + 2) + 1
        elif isinstance(node, Affine):
            for p, m in node.terms:
                _add(constants, p, m.adjoint(constant))
                _add_padded(linears, p, m.adjoint(linear))
                _add(sizes, p, m.absolute.adjoint(size))
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
        torch.cat(errors, -1),
        (units.get(0, 0.0) + network.in_size + 4) * roundoff * sizes[0],
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


@dataclasses.dataclass(frozen=True, eq=False)
class SdpData:
    """A batch of problems ``max <C0, M> + sum_j sqrt(g_j' M g_j)`` over moment matrices of ``w``, ``|w_i| <= limit_i``.

    Constraints: ``2 e_i' M k_i = b_i`` for every coordinate (``b = (1, 0, ..., 0)``), ``tr M <= trace``.

    Attributes:
        columns: (problems, n, n) the ``k_i`` as columns; 0 for coordinates that a problem does not have.
        mask: (problems, n) coordinates that exist.
        right: (problems, n) ``b``.
        cost: (problems, n, n) ``C0``, symmetric.
        entries: (problems, n, J) the ``g_j`` as columns, 0 where a problem has fewer.
        entry_mask: (problems, J).
        limit: (problems, n) bound on each coordinate, 0 where there is none.
        trace: (problems,) where the solver cuts the trace off. It may lie below ``bound``, what is proved of the trace.
        scale: (problems,) values times this are in the network's units.
        offset: (problems,) constant to add to the scaled value (signs that branching fixed, for one).
        radius: (problems, n) unit of each coordinate: ``v_i = radius_i w_i``.
        slack: (problems,) rounding of the gradient entries, in scaled units.
        gate_slack: (problems, n) rounding of each ``K_i``, to be weighted with ``|theta_i|``.
        example, row: (problems,) where each problem comes from.
        entry: (problems, J) input index of each column of ``entries``.
        cut_left, cut_right: (problems, n, cuts) columns ``f`` and ``g`` of valid inequalities ``f' M g >= 0``.
        cut_mask: (problems, cuts).
        coordinates: names of the coordinates, (examples, n), looked up with ``example``.
    """

    columns: Tensor
    mask: Tensor
    right: Tensor
    cost: Tensor
    entries: Tensor
    entry_mask: Tensor
    limit: Tensor
    trace: Tensor
    scale: Tensor
    offset: Tensor
    radius: Tensor
    slack: Tensor
    gate_slack: Tensor
    example: Tensor
    row: Tensor
    entry: Tensor
    cut_left: Tensor
    cut_right: Tensor
    cut_mask: Tensor
    coordinates: Coordinates

    @property
    def problems(self) -> int:
        return int(self.columns.shape[0])

    @property
    def size(self) -> int:
        return int(self.columns.shape[1])

    @property
    def bound(self) -> Tensor:
        """What is proved of ``tr M``, (problems,)."""
        return self.limit.square().sum(-1)

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Coordinates of one activation node each, from the output to the input, without the constant."""
        return self.coordinates.ranges

    @property
    def probe(self) -> Tensor:
        """A fixed vector (problems, n) without structure; an entry depends on its neuron's name alone."""
        names = self.coordinates
        phase = 12.9898 * (names.neuron[self.example] + 1) + 78.233 * (names.node + 2)
        return ((torch.sin(phase.double()) * 43758.5453) % 1.0 - 0.5) * self.mask

    def select(self, index: Tensor) -> SdpData:
        """The problems at ``index`` (integers or a boolean mask)."""
        changes = {f.name: getattr(self, f.name)[index] for f in dataclasses.fields(self) if f.name != "coordinates"}
        return dataclasses.replace(self, **changes)


def scaled_gates(maps: GateMaps, example: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Columns ``k_i``, existing coordinates, their size and the rounding of ``K_i``, all scaled to ``|w_i| <= 1``."""
    radius = maps.reach[example, row]
    mask = radius > 0
    safe = torch.where(mask, radius, torch.ones_like(radius))
    linear = maps.gate_linear[example]
    linear[:, 0] = maps.gate_constant[example, row]
    linear = linear * radius.unsqueeze(-1) / safe.unsqueeze(-2)
    columns = -0.5 * linear * mask.unsqueeze(-2)
    columns.diagonal(dim1=-2, dim2=-1).add_(0.5 * mask)
    return columns, mask, radius, maps.gate_error[example, row] / safe * mask


def l1_data(maps: GateMaps, gradients: Gradients, scale: Tensor, example: Tensor, row: Tensor) -> SdpData:
    """Problems for the l1 norm of gradient rows (p = inf): signs that intervals decide go into the cost.

    Args:
        scale: (problems,) the linear bound of each problem, positive.
        example, row: (problems,).
    """
    columns, mask, radius, gate_slack = scaled_gates(maps, example, row)
    interval = gradients.intervals[0]
    lower, upper = interval.lower[example, row], interval.upper[example, row]
    undecided = (lower < 0) & (upper > 0)
    width = int(undecided.sum(-1).max())
    entry = torch.argsort((~undecided).to(torch.uint8), dim=-1, stable=True)[:, :width]
    entry_mask = undecided.gather(-1, entry)
    sign = (lower >= 0).to(scale) - (upper <= 0).to(scale)
    linear, constant = maps.entry_linear, maps.entry_constant[example, row]
    weight = radius / scale.unsqueeze(-1)
    known = torch.empty_like(radius)
    entries = columns.new_empty(*radius.shape, width)
    for part in torch.arange(len(example), device=row.device).split(max(1, 2**24 // max(1, linear[0].numel()))):
        rows_of = linear[example[part]]  # (part, n, inputs)
        known[part] = torch.matmul(rows_of, sign[part].unsqueeze(-1)).squeeze(-1)
        entries[part] = rows_of.gather(-1, entry[part].unsqueeze(1).expand(-1, rows_of.shape[1], -1))
    known[:, 0] = (constant * sign).sum(-1)
    known = known * weight
    entries[:, 0] = constant.gather(-1, entry)
    entries *= weight.unsqueeze(-1) * entry_mask.unsqueeze(1)
    cost = torch.zeros_like(columns)
    cost[:, 0] += 0.5 * known
    cost[:, :, 0] += 0.5 * known
    # A decided sign is as good as its interval: twice the rounding of the entry covers both.
    slack = 3 * maps.entry_error[example, row].sum(-1) / scale
    return SdpData(
        columns, mask, _unit(mask), cost, entries, entry_mask, mask.to(scale), mask.sum(-1).to(scale), scale,
        torch.zeros_like(scale), radius, slack, gate_slack, example, row, entry, *_no_cuts(columns), maps.coordinates,
    )  # fmt: skip


def l2_data(maps: GateMaps, scale: Tensor, example: Tensor, row: Tensor) -> SdpData:
    """Problems for the squared l2 norm of gradient rows (p = 2): ``max sum_j g_j' M g_j``.

    ``scale`` is in units of the square.
    """
    columns, mask, radius, gate_slack = scaled_gates(maps, example, row)
    cost = torch.empty_like(columns)
    constant = maps.entry_constant[example, row]
    slack = torch.empty_like(scale)
    chunk = max(1, 2**24 // max(1, maps.entry_linear[0].numel()))
    for part in torch.arange(len(example), device=row.device).split(chunk):
        rows_of = maps.entry_linear[example[part]]  # (part, n, inputs)
        rows_of[:, 0] = constant[part]
        rows_of = rows_of * radius[part].unsqueeze(-1)
        cost[part] = rows_of @ rows_of.mT / scale[part].view(-1, 1, 1)
        error = maps.entry_error[example[part], row[part]]
        size = rows_of.abs().sum(1)
        products = (rows_of.shape[-1] + 4) * torch.finfo(cost.dtype).eps
        slack[part] = ((2 * size + error) * error + products * size.square()).sum(-1) / scale[part]
    none = cost.new_zeros(*radius.shape, 0)
    empty = torch.zeros(len(example), 0, dtype=torch.bool, device=row.device)
    return SdpData(
        columns, mask, _unit(mask), cost, none, empty, mask.to(scale), mask.sum(-1).to(scale), scale,
        torch.zeros_like(scale), radius, slack, gate_slack, example, row, empty.to(torch.int64), *_no_cuts(columns),
        maps.coordinates,
    )  # fmt: skip


def entry_data(maps: GateMaps, scale: Tensor, example: Tensor, row: Tensor, entry: Tensor, sign: Tensor) -> SdpData:
    """Problems for one signed entry of a gradient row each (p = 1): ``max sign * J_entry``."""
    columns, mask, radius, gate_slack = scaled_gates(maps, example, row)
    known = maps.entry_linear[example, :, entry]
    known[:, 0] = maps.entry_constant[example, row, entry]
    known = known * radius * (sign / scale).unsqueeze(-1)
    cost = torch.zeros_like(columns)
    cost[:, 0] += 0.5 * known
    cost[:, :, 0] += 0.5 * known
    slack = 3 * maps.entry_error[example, row, entry] / scale
    none = cost.new_zeros(*radius.shape, 0)
    empty = torch.zeros(len(example), 0, dtype=torch.bool, device=row.device)
    return SdpData(
        columns, mask, _unit(mask), cost, none, empty, mask.to(scale), mask.sum(-1).to(scale), scale,
        torch.zeros_like(scale), radius, slack, gate_slack, example, row, entry[:, None][:, :0], *_no_cuts(columns),
        maps.coordinates,
    )  # fmt: skip


def _no_cuts(columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    none = columns.new_zeros(*columns.shape[:2], 0)
    return none, none, none[:, 0].bool()


def _unit(mask: Tensor) -> Tensor:
    """``b = (1, 0, ..., 0)`` for every problem."""
    right = torch.zeros(mask.shape, dtype=torch.float64, device=mask.device)
    right[:, 0] = 1
    return right
