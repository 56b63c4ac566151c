"""Linear forms ``f`` with ``f' w >= 0`` at every admissible point: chords of gates, ends of signs, the forward pass."""

from __future__ import annotations

import dataclasses
import enum
import operator
from functools import reduce

import torch
from torch import Tensor

from lipcompare.quadratic.cuts.forward import Joined
from lipcompare.quadratic.program import GateMaps, SdpData
from lipcompare.rounding import SPARE, allowance, floor

SIGN = -2  # the "node" of a coordinate that is a sign of the input gradient


class Group(enum.IntEnum):
    """Where a form comes from."""

    ONE = 0
    SIGN = 1
    CHORD = 2
    FORWARD = 3  # lines of the forward pass, faces around products with a side
    SIDE = 4  # which side of its kink a neuron is on


@dataclasses.dataclass(frozen=True, eq=False)
class Forms:
    """Forms of a batch of problems, of length 1; 0 for what a problem does not have.

    Attributes:
        columns: (problems, n, forms).
        error: (problems, forms) how far rounding, and gates without a coordinate, may push one below 0.
        group: (forms,) a :class:`Group` each.
    """

    columns: Tensor
    error: Tensor
    group: Tensor

    @property
    def count(self) -> int:
        return int(self.group.shape[0])

    @classmethod
    def of(cls, columns: Tensor, group: Group, error: Tensor | None = None) -> Forms:
        """Forms of any length, brought to length 1."""
        length = torch.linalg.vector_norm(columns, dim=1)
        safe = torch.where(length > 0, length, 1.0)
        error = torch.zeros_like(length) if error is None else error / safe
        names = torch.full((columns.shape[-1],), int(group), device=columns.device)
        return cls(columns / safe.unsqueeze(1), error, names)

    def __add__(self, other: Forms) -> Forms:
        pairs = ((self.columns, other.columns), (self.error, other.error), (self.group, other.group))
        return Forms(*(torch.cat(pair, -1) for pair in pairs))


def one(data: SdpData) -> Forms:
    """The constant 1."""
    column = torch.zeros_like(data.columns[:, :, :1])
    column[:, 0] = 1
    return Forms.of(column, Group.ONE)


def sign_sides(data: SdpData) -> Forms:
    """``1 + s`` and ``1 - s`` of the signs that are coordinates."""
    spots = (data.coordinates.node == SIGN).nonzero().squeeze(-1)
    exists = data.mask[:, spots].to(data.columns)
    side = data.columns.new_zeros(data.problems, data.size, len(spots))
    side[:, 0] = exists
    index = torch.arange(len(spots), device=spots.device)
    end = torch.zeros_like(side)
    end[:, spots, index] = exists
    return Forms.of(torch.cat([side + end, side - end], -1), Group.SIGN)


@dataclasses.dataclass(frozen=True, eq=False)
class _Gates:
    """Every gate's ``K`` as a form on ``w``, the interval of the form around zero and its error.

    Attributes:
        k: (problems, n, gates), without the constant among the gates, as everything here.
        lower, upper, error, exists: (problems, gates).
    """

    k: Tensor
    lower: Tensor
    upper: Tensor
    error: Tensor
    exists: Tensor


def _gates(data: SdpData, maps: GateMaps, example: Tensor, row: Tensor) -> _Gates:
    gates = maps.coordinates.count
    unit = data.radius[:, 1:gates]
    safe = torch.where(unit > 0, unit, torch.ones_like(unit))
    lower, upper = (end[example, row][:, 1:] / safe for end in maps.gate_interval)
    error = data.gate_slack[:, 1:gates]
    # The true K lies in its interval, which is rounded outward but for the scaling; the form is off by its error, which
    # is measured by a size that rounds too.
    wide = allowance(SPARE, unit.dtype) * torch.maximum(-lower, upper) + 2 * error
    k = -2 * data.columns[:, :, 1:gates]
    index = torch.arange(1, gates, device=unit.device)
    k[:, index, index - 1] = 0
    exists = data.mask[:, 1:gates].to(k)
    return _Gates(k, (lower - wide).clamp(max=0), (upper + wide).clamp(min=0), error, exists)


def _units(data: SdpData, index: Tensor) -> Tensor:
    """Coordinates (problems, n, some) at ``index`` (some,) or (problems, some); 0 at index 0."""
    index = index.expand(data.problems, -1)
    column = data.columns.new_zeros(data.problems, data.size, index.shape[-1])
    return column.scatter_(1, index.unsqueeze(1), (index > 0).to(column).unsqueeze(1))


def chords(data: SdpData, maps: GateMaps, example: Tensor, row: Tensor) -> Forms:
    """The chords above and below every gate.

    Args:
        example, row: (problems,) where in ``maps`` each problem comes from.
    """
    g = _gates(data, maps, example, row)
    span = (g.upper - g.lower).clamp(min=floor(g.k.dtype))
    v = _units(data, torch.arange(1, g.k.shape[-1] + 1, device=row.device))
    rise, fall, constant = g.upper / span, -g.lower / span, g.lower * g.upper / span
    above = g.k * rise.unsqueeze(1) - v
    above[:, 0] -= constant
    below = v - g.k * fall.unsqueeze(1)
    below[:, 0] -= constant
    exists = g.exists.unsqueeze(1)
    # Constant terms may cancel; what rounding does to the other coefficients, the certificate allows for.
    middle = g.k[:, 0].abs()
    rounding = [allowance(SPARE, span.dtype) * (middle * slope - constant) for slope in (rise, fall)]
    error = torch.cat([g.error + part for part in rounding], -1)
    return Forms.of(torch.cat([above * exists, below * exists], -1), Group.CHORD, error)


def forward_forms(joined: Joined, maps: GateMaps, example: Tensor, row: Tensor) -> Forms:
    """The inequalities of the mixed-integer program: inputs and sides between 0 and 1, outputs between their lines,
    and the four faces around ``v = a K`` and ``y = a z`` each."""
    data, f = joined.data, joined.forward
    m, inputs = f.coordinates.count, f.inputs
    top = one(data).columns
    index = joined.first + torch.arange(m, device=row.device)
    exists = data.mask[:, joined.first :].to(top).unsqueeze(1)
    t, z = _units(data, index) * exists, -2 * data.columns[:, :, joined.first :]
    x, y, z = t[:, :, :inputs], t[:, :, inputs:], (z + t)[:, :, inputs:]
    bends = exists[:, :, inputs:]
    least, off = f.least[:, None, inputs:], f.error[:, inputs:]
    line = (z - least * top) / (1 - least)
    parts = [
        Forms.of(torch.cat([x, top * exists[:, :, :inputs] - x, y], -1), Group.FORWARD),
        Forms.of(torch.cat([(y - z) * bends, (line - y) * bends], -1), Group.FORWARD, _twice(off)),
    ]
    g = _gates(data, maps, example, row)
    side, sure = _sides(joined, g)
    open_side = (top - side) * sure
    v = _units(data, torch.arange(1, g.k.shape[-1] + 1, device=row.device))
    lower, upper = g.lower.unsqueeze(1), g.upper.unsqueeze(1)
    varies = sure * (joined.side[:, 1:] > 0).unsqueeze(1)
    forms = torch.cat([side, open_side], -1)
    parts.append(Forms.of(forms, Group.SIDE, _twice(_side_error(joined, g))))
    forms = torch.cat([upper * side - v, v - lower * side], -1)
    parts.append(Forms.of(forms * _twice(varies), Group.FORWARD))
    forms = torch.cat([g.k - lower * open_side - v, v - g.k + upper * open_side], -1)
    parts.append(Forms.of(forms * _twice(varies), Group.FORWARD, _twice(g.error)))
    # y <= u a and y <= z - l (1 - a), where the gate's neuron is bent.
    index = joined.output[:, 1:]
    linked = sure * (index > 0).unsqueeze(1)
    spot = (index - joined.first - inputs).clamp(min=0)
    wide = spot.unsqueeze(1)
    if y.shape[-1]:
        output, bent = (form.gather(-1, wide.expand(-1, data.size, -1)) for form in (y, z))
        low, off = least.gather(-1, wide), off.gather(-1, spot)
        error = _side_error(joined, g)
        parts.append(Forms.of((side - output) * linked, Group.FORWARD, error))
        parts.append(Forms.of((bent - low * open_side - output) * linked, Group.FORWARD, error + off))
    return reduce(operator.add, parts)


def _twice(value: Tensor) -> Tensor:
    return torch.cat([value, value], -1)


def _constant(joined: Joined, g: _Gates) -> tuple[Tensor, Tensor]:
    """``K`` of the gates without a side, which is constant (1 for the others), and where it is far enough from 0."""
    plain = joined.side[:, 1:] == 0
    k = torch.where(plain, g.k[:, 0], 1.0)
    # Coordinates are at most 1: of a smaller K the quotient, and so its error, is larger than any cut gains.
    far = k.abs() > 1e-3 * g.exists
    return torch.where(far, k, 1.0), far & (g.exists > 0)


def _side_error(joined: Joined, g: _Gates) -> Tensor:
    """What rounding in a constant ``K`` does to ``a = v / K``, (problems, gates)."""
    k, _ = _constant(joined, g)
    return torch.where(joined.side[:, 1:] == 0, g.error / k.abs(), 0.0)


def _sides(joined: Joined, g: _Gates) -> tuple[Tensor, Tensor]:
    """The side ``a`` of every gate as a form, its coordinate or ``v / K``, and (problems, 1, gates) whether usable."""
    data = joined.data
    v = _units(data, torch.arange(1, g.k.shape[-1] + 1, device=data.row.device))
    k, far = _constant(joined, g)
    sided = (joined.side[:, 1:] > 0).unsqueeze(1)
    form = torch.where(sided, _units(data, joined.side[:, 1:]), v / k.unsqueeze(1))
    usable = far.unsqueeze(1).to(form)
    return form * usable, usable
