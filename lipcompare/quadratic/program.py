"""Problem data of the quadratic-gate relaxation, from the coordinates' affine maps (:mod:`sdp_maps`)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lipcompare.jacobian.linear import Gradients
from lipcompare.jacobian.norms import absolute_chord
from lipcompare.network.interval import Interval
from lipcompare.quadratic.coordinates import Coordinates, GateMaps, coordinate_count, gate_maps

__all__ = ["Coordinates", "GateMaps", "SdpData", "coordinate_count", "entry_data", "gate_maps", "l1_data", "l2_data"]


@dataclasses.dataclass(frozen=True, eq=False)
class SdpData:
    """A batch of problems ``max <C0, M> + sum_j sqrt(g_j' M g_j)`` over moment matrices of ``w``, ``|w_i| <= limit_i``.

    Constraints: ``2 e_i' M k_i = b_i`` for every coordinate with an equation (``b = (1, 0, ..., 0)``), ``tr M <=
    trace``.

    Attributes:
        columns: (problems, n, n) the ``k_i`` as columns; 0 for coordinates that a problem does not have, and for those
            without an equation.
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
        slack: (problems,) rounding of the gradient entries and what gates without a coordinate add, in scaled units.
        gate_slack: (problems, n) the same of each ``K_i``, to be weighted with ``|theta_i|``.
        example, row: (problems,) where each problem comes from.
        entry: (problems, J) input index of each column of ``entries``.
        cut_left, cut_right: (problems, n, cuts) columns ``f`` and ``g`` of valid inequalities ``f' M g >= 0``.
        cut_mask: (problems, cuts).
        cut_equal: (problems, cuts) those that are equations.
        cut_slack: (problems, cuts) what rounding and gates without a coordinate may take from ``(f' w)(g' w)``.
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
    cut_equal: Tensor
    cut_slack: Tensor
    coordinates: Coordinates

    @property
    def problems(self) -> int:
        return int(self.columns.shape[0])

    @property
    def size(self) -> int:
        return int(self.columns.shape[1])

    @property
    def equations(self) -> Tensor:
        """Coordinates with an equation of their own, (problems, n)."""
        return self.columns.diagonal(dim1=-2, dim2=-1) != 0

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

    def with_cuts(self, left: Tensor, right: Tensor, mask: Tensor, equal: Tensor, slack: Tensor) -> SdpData:
        """The same problems with these cuts alone."""
        return dataclasses.replace(
            self, cut_left=left, cut_right=right, cut_mask=mask, cut_equal=equal, cut_slack=slack
        )

    def without_cuts(self) -> SdpData:
        """The same problems, with empty cuts of their size."""
        return self.with_cuts(*no_cuts(self.columns))

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


def l1_data(
    maps: GateMaps, gradients: Gradients, scale: Tensor, example: Tensor, row: Tensor, most_signs: int | None = None
) -> SdpData:
    """Problems for the l1 norm of gradient rows (p = inf): signs that intervals decide go into the cost.

    Args:
        scale: (problems,) the linear bound of each problem, positive.
        example, row: (problems,).
        most_signs: so many undecided signs are kept, those of the widest intervals; ``|J_j|`` of the others is replaced
            by its chord.
    """
    columns, mask, radius, gate_slack = scaled_gates(maps, example, row)
    interval = gradients.intervals[0]
    lower, upper = interval.lower[example, row], interval.upper[example, row]
    undecided = (lower < 0) & (upper > 0)
    slopes, intercepts = absolute_chord(Interval(lower, upper))
    if most_signs is not None and int(undecided.sum(-1).max()) > most_signs:
        room = torch.minimum(-lower, upper).masked_fill(~undecided, 0.0)
        undecided &= torch.zeros_like(undecided).scatter_(-1, room.topk(most_signs, dim=-1).indices, True)
    width = int(undecided.sum(-1).max())
    entry = torch.argsort((~undecided).to(torch.uint8), dim=-1, stable=True)[:, :width]
    entry_mask = undecided.gather(-1, entry)
    sign = slopes.masked_fill(undecided, 0.0)
    given = intercepts.masked_fill(undecided, 0.0).sum(-1) * (1 + 1e-12)
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
    slack = (3 * maps.entry_error[example, row].sum(-1) + maps.entry_drift[example, row].sum(-1)) / scale
    return SdpData(
        columns, mask, _unit(mask), cost, entries, entry_mask, mask.to(scale), mask.sum(-1).to(scale), scale,
        given / scale, radius, slack, gate_slack, example, row, entry, *no_cuts(columns), maps.coordinates,
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
        error = maps.entry_error[example[part], row[part]] + maps.entry_drift[example[part], row[part]]
        size = rows_of.abs().sum(1)
        products = (rows_of.shape[-1] + 4) * torch.finfo(cost.dtype).eps
        slack[part] = ((2 * size + error) * error + products * size.square()).sum(-1) / scale[part]
    none = cost.new_zeros(*radius.shape, 0)
    empty = torch.zeros(len(example), 0, dtype=torch.bool, device=row.device)
    return SdpData(
        columns, mask, _unit(mask), cost, none, empty, mask.to(scale), mask.sum(-1).to(scale), scale,
        torch.zeros_like(scale), radius, slack, gate_slack, example, row, empty.to(torch.int64), *no_cuts(columns),
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
    slack = (3 * maps.entry_error[example, row, entry] + maps.entry_drift[example, row, entry]) / scale
    none = cost.new_zeros(*radius.shape, 0)
    empty = torch.zeros(len(example), 0, dtype=torch.bool, device=row.device)
    return SdpData(
        columns, mask, _unit(mask), cost, none, empty, mask.to(scale), mask.sum(-1).to(scale), scale,
        torch.zeros_like(scale), radius, slack, gate_slack, example, row, entry[:, None][:, :0], *no_cuts(columns),
        maps.coordinates,
    )  # fmt: skip


def no_cuts(columns: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The fields of ``SdpData`` that hold cuts, without any."""
    none = columns.new_zeros(*columns.shape[:2], 0)
    return none, none, none[:, 0].bool(), none[:, 0].bool(), none[:, 0]


def _unit(mask: Tensor) -> Tensor:
    """``b = (1, 0, ..., 0)`` for every problem."""
    right = torch.zeros(mask.shape, dtype=torch.float64, device=mask.device)
    right[:, 0] = 1
    return right
