"""Problem data of the quadratic-gate relaxation, from the affine maps of :mod:`~lipcompare.quadratic.coordinates`."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lipcompare.budget import BLOCK_ENTRIES, fitting
from lipcompare.jacobian.gradients import Gradients
from lipcompare.jacobian.norms import absolute_chord
from lipcompare.network.interval import Interval
from lipcompare.quadratic.coordinates import Coordinates, GateMaps, coordinate_count, gate_maps
from lipcompare.rounding import raised

__all__ = [
    "Coordinates",
    "Cuts",
    "GateMaps",
    "SdpData",
    "coordinate_count",
    "entry_data",
    "gate_maps",
    "l1_data",
    "l2_data",
    "squares_error",
]


@dataclasses.dataclass(frozen=True, eq=False)
class Cuts:
    """``f' M g >= 0``, or ``= 0``, for a batch of problems.

    Attributes:
        left, right: (problems, n, cuts) the ``f`` and ``g`` as columns; 0 where a problem has fewer.
        mask: (problems, cuts) those that exist.
        equal: (problems, cuts) equations.
        slack: (problems, cuts) what rounding and gates without a coordinate may take from ``(f' w)(g' w)``.
    """

    left: Tensor
    right: Tensor
    mask: Tensor
    equal: Tensor
    slack: Tensor

    @classmethod
    def none(cls, columns: Tensor) -> Cuts:
        """No cuts, for problems with these ``k_i`` (problems, n, n)."""
        empty = columns.new_zeros(*columns.shape[:2], 0)
        row = empty[:, 0]
        return cls(left=empty, right=empty, mask=row.bool(), equal=row.bool(), slack=row)

    @property
    def count(self) -> int:
        return int(self.mask.shape[1])

    def __add__(self, other: Cuts) -> Cuts:
        names = [f.name for f in dataclasses.fields(self)]
        return Cuts(**{name: torch.cat([getattr(self, name), getattr(other, name)], -1) for name in names})

    def select(self, index: Tensor) -> Cuts:
        """The cuts of the problems at ``index`` (integers or a boolean mask)."""
        return Cuts(**{f.name: getattr(self, f.name)[index] for f in dataclasses.fields(self)})

    def where(self, keep: Tensor) -> Cuts:
        """Those marked in ``keep`` (problems, cuts), moved to the front, as wide as the problem with most needs."""
        keep = keep & self.mask
        width = int(keep.sum(-1).max()) if len(keep) else 0
        order = torch.argsort((~keep).to(torch.uint8), dim=-1, stable=True)[:, :width]
        wide = order.unsqueeze(1).expand(-1, self.left.shape[1], -1)
        mask = keep.gather(-1, order)
        exists = mask.unsqueeze(1)
        return Cuts(
            left=self.left.gather(-1, wide) * exists,
            right=self.right.gather(-1, wide) * exists,
            mask=mask,
            equal=self.equal.gather(-1, order) & mask,
            slack=self.slack.gather(-1, order) * mask,
        )

    def value(self, moments: Tensor) -> Tensor:
        """``f' M g`` of every cut, (problems, cuts)."""
        return ((moments @ self.left) * self.right).sum(-2)

    def grown(self, size: int) -> Cuts:
        """The same cuts over ``size`` coordinates, of which those at the end are new."""
        more = (0, 0, 0, size - self.left.shape[1])
        pad = torch.nn.functional.pad
        return dataclasses.replace(self, left=pad(self.left, more), right=pad(self.right, more))


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
        cuts: further valid inequalities and equations.
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
    cuts: Cuts
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

    def with_cuts(self, cuts: Cuts) -> SdpData:
        """The same problems with these cuts alone."""
        return dataclasses.replace(self, cuts=cuts)

    def without_cuts(self) -> SdpData:
        """The same problems, with empty cuts of their size."""
        return self.with_cuts(Cuts.none(self.columns))

    def select(self, index: Tensor) -> SdpData:
        """The problems at ``index`` (integers or a boolean mask)."""
        shared = ("coordinates", "cuts")
        changes = {f.name: getattr(self, f.name)[index] for f in dataclasses.fields(self) if f.name not in shared}
        return dataclasses.replace(self, cuts=self.cuts.select(index), **changes)


@dataclasses.dataclass(frozen=True, eq=False)
class _ScaledGates:
    """The gates of some problems in coordinates scaled to ``|w_i| <= 1``.

    Attributes:
        columns: (problems, n, n) the ``k_i``.
        mask: (problems, n) coordinates that exist.
        radius: (problems, n) their units.
        slack: (problems, n) error of the ``K_i``.
    """

    columns: Tensor
    mask: Tensor
    radius: Tensor
    slack: Tensor

    @classmethod
    def of(cls, maps: GateMaps, example: Tensor, row: Tensor) -> _ScaledGates:
        radius = maps.reach[example, row]
        mask = radius > 0
        safe = torch.where(mask, radius, torch.ones_like(radius))
        linear = maps.gate_linear[example]
        linear[:, 0] = maps.gate_constant[example, row]
        linear = linear * radius.unsqueeze(-1) / safe.unsqueeze(-2)
        columns = -0.5 * linear * mask.unsqueeze(-2)
        columns.diagonal(dim1=-2, dim2=-1).add_(0.5 * mask)
        return cls(columns=columns, mask=mask, radius=radius, slack=maps.gate_error[example, row] / safe * mask)


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
    gates = _ScaledGates.of(maps, example, row)
    radius = gates.radius
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
    given = raised(intercepts.masked_fill(undecided, 0.0).sum(-1), intercepts.shape[-1])
    constant = maps.entry_constant[example, row]
    weight = radius / scale.unsqueeze(-1)
    decided = torch.empty_like(radius)  # sum of the entries with a decided sign
    entries = radius.new_empty(*radius.shape, width)
    for some in _chunks(maps, len(example)):
        linear = maps.entry_linear[example[some]]  # (some, n, inputs)
        decided[some] = torch.matmul(linear, sign[some].unsqueeze(-1)).squeeze(-1)
        entries[some] = linear.gather(-1, entry[some].unsqueeze(1).expand(-1, linear.shape[1], -1))
    decided[:, 0] = (constant * sign).sum(-1)
    decided = decided * weight
    entries[:, 0] = constant.gather(-1, entry)
    entries *= weight.unsqueeze(-1) * entry_mask.unsqueeze(1)
    cost = torch.zeros_like(gates.columns)
    cost[:, 0] += 0.5 * decided
    cost[:, :, 0] += 0.5 * decided
    # A decided sign is as good as its interval: twice the rounding of the entry covers both.
    slack = (3 * maps.entry_error[example, row].sum(-1) + maps.entry_drift[example, row].sum(-1)) / scale
    return dataclasses.replace(
        _without_entries(gates, maps, cost, slack, scale, example, row),
        entries=entries,
        entry_mask=entry_mask,
        entry=entry,
        offset=given / scale,
    )


def l2_data(maps: GateMaps, scale: Tensor, example: Tensor, row: Tensor) -> SdpData:
    """Problems for the squared l2 norm of gradient rows (p = 2): ``max sum_j g_j' M g_j``.

    ``scale`` is in units of the square.
    """
    gates = _ScaledGates.of(maps, example, row)
    radius = gates.radius
    cost = torch.empty_like(gates.columns)
    constant = maps.entry_constant[example, row]
    slack = torch.empty_like(scale)
    for some in _chunks(maps, len(example)):
        entries = maps.entry_linear[example[some]]  # (some, n, inputs)
        entries[:, 0] = constant[some]
        entries = entries * radius[some].unsqueeze(-1)
        cost[some] = entries @ entries.mT / scale[some].view(-1, 1, 1)
        error = maps.entry_error[example[some], row[some]] + maps.entry_drift[example[some], row[some]]
        slack[some] = squares_error(entries, error) / scale[some]
    return _without_entries(gates, maps, cost, slack, scale, example, row)


def entry_data(maps: GateMaps, scale: Tensor, example: Tensor, row: Tensor, entry: Tensor, sign: Tensor) -> SdpData:
    """Problems for one signed entry of a gradient row each (p = 1): ``max sign * J_entry``."""
    gates = _ScaledGates.of(maps, example, row)
    radius = gates.radius
    linear = maps.entry_linear[example, :, entry]
    linear[:, 0] = maps.entry_constant[example, row, entry]
    linear = linear * radius * (sign / scale).unsqueeze(-1)
    cost = torch.zeros_like(gates.columns)
    cost[:, 0] += 0.5 * linear
    cost[:, :, 0] += 0.5 * linear
    slack = (3 * maps.entry_error[example, row, entry] + maps.entry_drift[example, row, entry]) / scale
    return _without_entries(gates, maps, cost, slack, scale, example, row)


def squares_error(entries: Tensor, error: Tensor) -> Tensor:
    """What may be missing from the sum of the squares of entries (problems, n, inputs), ``|w_i| <= 1``, (problems,).

    ``error`` (problems, inputs) is that of the entries: ``entry_error`` of :class:`GateMaps` at least, an allowance of
    twice ``gamma`` for ``inputs + 3`` operations more than an entry takes, of a sum of absolute values that is at least
    a third of ``size``. It counts twice here. So it covers the ``inputs + 2`` operations of ``entries @ entries.mT /
    scale``, which are off by at most ``gamma(inputs + 2)`` times the square of ``size``.
    """
    size = entries.abs().sum(1)
    return ((2 * size + error) * error).sum(-1)


def _chunks(maps: GateMaps, problems: int) -> tuple[Tensor, ...]:
    """Problems in portions whose input gradients' maps take about 128 MiB."""
    numbers = torch.arange(problems, device=maps.entry_linear.device)
    chunks: tuple[Tensor, ...] = numbers.split(fitting(BLOCK_ENTRIES, maps.entry_linear[0].numel()))
    return chunks


def _without_entries(
    gates: _ScaledGates, maps: GateMaps, cost: Tensor, slack: Tensor, scale: Tensor, example: Tensor, row: Tensor
) -> SdpData:
    """Problems with a linear objective ``<C0, M>`` in the gates' scaled coordinates."""
    mask = gates.mask
    right = torch.zeros_like(gates.radius)  # b = (1, 0, ..., 0)
    right[:, 0] = 1
    none = torch.zeros(len(example), 0, dtype=torch.bool, device=row.device)
    return SdpData(
        columns=gates.columns,
        mask=mask,
        right=right,
        cost=cost,
        entries=cost.new_zeros(*mask.shape, 0),
        entry_mask=none,
        limit=mask.to(scale),
        trace=mask.sum(-1).to(scale),
        scale=scale,
        offset=torch.zeros_like(scale),
        radius=gates.radius,
        slack=slack,
        gate_slack=gates.slack,
        example=example,
        row=row,
        entry=none.to(torch.int64),
        cuts=Cuts.none(gates.columns),
        coordinates=maps.coordinates,
    )
