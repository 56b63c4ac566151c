"""Affine functions over a box and half-spaces: the dual simplex method for many of them at once, in single precision.

``max {c'x : |x_i| <= 1, W x + h >= 0}`` has a dual in the multipliers ``l >= 0`` of the half-spaces alone, ``l'h + |c +
W'l|_1``, and any of them prove a bound, so how they were found need not be exact. As many variables as there are
inputs, inputs themselves or slacks of half-spaces, are at an end of their range (they have the *slots*), and all others
follow from them. A pivot takes the variable that violates its range the most, raises its multiplier while the bound
falls, past the kinks where inputs change their end (the long step, Fourer 1994; Maros, Computational Techniques of the
Simplex Method, 2003), and gives it the slot of the variable at the last kink. The first pivot is an exact line search
along the half-space that matters most; a few of them have nearly all that the linear program would give
(docs/performance.md).

Only rows of inputs without a slot are kept, of which every pivot makes one at most; slacks are formed from the inputs.
Tensors are (slots, problems), a problem being one function in one subdomain, so that sums run along whole rows of
memory.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

_VIOLATED = 1e-6
"""Smallest violation that a pivot is made for, in units of half-spaces and boxes of size one: about what the sums of
single precision leave."""
_PIVOT = 1e-5
"""Smallest entry to pivot on, in the same units: smaller ones are rounding noise after some pivots."""
_NOTHING, _LEAST = 1e-30, 1e-20
"""In place of an entry that is too small, and of a reduced cost of zero, so that their ratio is far above any other."""
_FAR, _NOWHERE = 1e20, 1e9
"""The range of a slack, which has no other end; ratios beyond the second are of no kink."""
_RAY = 4.0
"""By how much a bound falls along a ray on which it falls without end, in units of the function's own range over the
box, which is 2: such half-spaces contradict each other, and the bound should show that."""


def multipliers(rest: Tensor, walls: Tensor, heights: Tensor, pivots: int) -> Tensor:
    """Multipliers (constraints, subdomains, targets), none of them negative; nothing is promised of their bound.

    Args:
        rest: targets per unit of the box, (subdomains, targets, inputs).
        walls, heights: half-spaces ``wall x + height >= 0`` likewise, (subdomains, constraints, inputs) and
            (subdomains, constraints).
        pivots: at most, one at least.
    """
    size, weight = rest.abs().sum(-1), walls.abs().sum(-1)
    size, weight = (torch.where(v > 0, v, 1.0) for v in (size, weight))
    costs = (rest / size.unsqueeze(-1)).float()
    problem = _Problems.of((walls / weight.unsqueeze(-1)).float(), (heights / weight).float(), rest.shape[1])
    table = _Tables.of(costs, pivots)
    for pivot in range(pivots):
        leaves = _leaving(problem, table, pivot + 1)
        step = _step(table, leaves)
        _pivot(table, leaves, step, pivot + 1)
        if _ended(step.moves):
            break
    found = _found(problem, table, leaves, step).to(size) * size / weight.T.unsqueeze(-1)
    return torch.where(found.isfinite(), found, 0.0)


def _ended(moves: Tensor) -> bool:
    """Whether nothing moves any more. Looking makes a GPU wait: there what has ended stands still."""
    return moves.device.type == "cpu" and not bool(moves.any())


@dataclasses.dataclass(frozen=True, eq=False)
class _Problems:
    """Half-spaces of size one, in single precision.

    Attributes:
        walls, heights: (subdomains, constraints, inputs) and (subdomains, constraints, 1).
        normals: (inputs, subdomains * constraints) the first again.
        first: (problems,) where in that the half-spaces of each problem begin.
        targets: problems of a subdomain.
    """

    walls: Tensor
    heights: Tensor
    normals: Tensor
    first: Tensor
    targets: int

    @classmethod
    def of(cls, walls: Tensor, heights: Tensor, targets: int) -> _Problems:
        batch, constraints, _ = walls.shape
        first = torch.arange(0, batch * constraints, constraints, device=walls.device).repeat_interleave(targets)
        return cls(walls, heights.unsqueeze(-1), walls.flatten(0, 1).T.contiguous(), first, targets)

    def slacks(self, x: Tensor) -> Tensor:
        """Slacks (subdomains, constraints, targets) at points (inputs, problems)."""
        return torch.baddbmm(self.heights, self.walls, x.unflatten(1, (-1, self.targets)).transpose(0, 1))


@dataclasses.dataclass(eq=False)
class _Tables:
    """Which variables have the slots, and what follows from them; changed in place.

    Attributes:
        rows: (1 + pivots, slots, problems) the function itself, then inputs whose slot another one took, in terms of
            what has the slots; zeros for none.
        level: (1 + pivots, problems) the values of these inputs.
        name: (1 + pivots, problems) which inputs they are, their number for none.
        holder: (slots, problems) input ``i`` as ``i``, the slack of half-space ``j`` as ``j`` + the inputs' number + 1.
        way: (slots, problems) from the end where a slot's variable is to its other end, 1 or -1.
    """

    rows: Tensor
    level: Tensor
    name: Tensor
    holder: Tensor
    way: Tensor

    @classmethod
    def of(cls, costs: Tensor, pivots: int) -> _Tables:
        """Every input in its own slot, at the end where its function (subdomains, targets, inputs) is largest."""
        inputs = costs.shape[-1]
        costs = costs.permute(2, 0, 1).flatten(1)
        rows = costs.new_zeros(1 + pivots, *costs.shape)
        rows[0] = costs
        level = torch.zeros_like(rows[:, 0])
        name = torch.full_like(level, inputs, dtype=torch.int64)
        holder = torch.arange(inputs, device=costs.device).unsqueeze(-1).repeat(1, costs.shape[1])
        return cls(rows, level, name, holder, 1 - 2 * (costs >= 0).to(costs))

    @property
    def inputs(self) -> int:
        return self.rows.shape[1]

    def inside(self) -> Tensor:
        """1 for the slots (slots, problems) that inputs have, 0 for those of slacks."""
        return (self.holder < self.inputs).to(self.way)


class _Leaving(NamedTuple):
    """The variable of each problem that violates its range the most.

    Attributes:
        wall, basic: (problems,) the half-space, and the row of the input, that does so among its kind.
        is_wall: (problems,) which of the two it is.
        excess: (problems,) by how much.
        side: (problems,) 1 where it is to rise, -1 where it is to fall.
        row: (slots, problems) it in terms of what has the slots.
    """

    wall: Tensor
    basic: Tensor
    is_wall: Tensor
    excess: Tensor
    side: Tensor
    row: Tensor


class _Step(NamedTuple):
    """How far the multiplier of that variable goes.

    Attributes:
        moves: (problems,) whether it does, and stops somewhere.
        slot: (1, problems) at whose kink.
        flips: (slots, problems) whose kinks it passes, 0 or 1.
        gap: (problems,) what these leave of the excess.
        rate: (problems,) what all kinks together would leave of it.
    """

    moves: Tensor
    slot: Tensor
    flips: Tensor
    gap: Tensor
    rate: Tensor


def _leaving(problem: _Problems, table: _Tables, used: int) -> _Leaving:
    """``used``: rows of the tables so far."""
    inputs, level, name = table.inputs, table.level[:used], table.name[:used]
    held = table.holder.clamp(max=inputs)
    # What is not an input goes to a row that nobody reads.
    x = torch.nn.functional.pad(torch.zeros_like(table.way), (0, 0, 0, 1))
    x.scatter_(0, held, -table.way).scatter_(0, name, level)
    least, wall = (v.flatten() for v in problem.slacks(x[:inputs]).min(1))
    beyond, basic = (level.abs() - 1).max(0)
    by_wall = beyond <= -least
    is_wall = by_wall.to(level)
    normal = torch.nn.functional.pad(problem.normals.index_select(1, problem.first + wall) * is_wall, (0, 0, 0, 1))
    parts = normal.gather(0, name).scatter_add_(0, basic.unsqueeze(0), (1 - is_wall).unsqueeze(0))
    row = normal.gather(0, held)
    for part, other in zip(parts[1:], table.rows[1:used], strict=True):
        row.addcmul_(part, other)
    side = torch.where(by_wall, 1.0, -level.gather(0, basic.unsqueeze(0))[0].sign())
    return _Leaving(wall, basic, by_wall, torch.maximum(beyond, -least), side, row)


def _step(table: _Tables, leaves: _Leaving) -> _Step:
    """Up to the kink from which on the bound would rise."""
    gain = torch.nn.functional.threshold(leaves.row * table.way * leaves.side, _PIVOT, _NOTHING)
    ratio = table.rows[0].abs().clamp_(min=_LEAST).div_(gain)
    # An input has its other end at a distance of 2.
    room = gain * torch.lerp(torch.full_like(gain, _FAR), torch.full_like(gain, 2.0), table.inside())
    order, at = ratio.sort(0)
    left = leaves.excess - room.gather(0, at).cumsum(0)
    passed = (left > 0).sum(0, keepdim=True).clamp_(max=table.inputs - 1)
    step = order.gather(0, passed)
    moves = (leaves.excess > _VIOLATED) & (step[0] < _NOWHERE)
    flips = (ratio < step).to(gain) * moves
    return _Step(moves, at.gather(0, passed), flips, leaves.excess - (room * flips).sum(0), left[-1])


def _pivot(table: _Tables, leaves: _Leaving, step: _Step, used: int) -> None:
    """Passed inputs change their end, and the variable that leaves gets the slot; where nothing moves, nothing does."""
    inputs, slot, moves = table.inputs, step.slot, step.moves
    rows, level = table.rows[:used], table.level[:used]
    entry = torch.where(moves, leaves.row.gather(0, slot)[0], 1.0)
    change = leaves.side * step.gap / entry * moves
    turn = 2 * step.flips * table.way
    table.way -= turn
    was, along = table.holder.gather(0, slot)[0], table.way.gather(0, slot)[0]
    entering = (leaves.row / -entry * moves).scatter_(0, slot, (1 / entry).unsqueeze(0))
    there = slot.expand(used, 1, -1)
    column = rows.gather(1, there)
    level[1:] += (rows[1:] * turn).sum(1) + column[1:, 0] * change
    rows.scatter_(1, there, 0.0).addcmul_(column, entering)
    # An input that loses its slot gets a row: that of an input that comes back, or a new one.
    basic = leaves.basic.unsqueeze(0)
    leaving = torch.where(leaves.is_wall, inputs + 1 + leaves.wall, table.name.gather(0, basic)[0])
    gone = (was < inputs) & moves
    place = torch.where(moves & ~leaves.is_wall, basic, used)
    table.rows.scatter_(0, place.unsqueeze(1).expand(1, inputs, -1), (entering * gone).unsqueeze(0))
    table.level.scatter_(0, place, ((change - along) * gone).unsqueeze(0))
    table.name.scatter_(0, place, torch.where(gone, was, inputs).unsqueeze(0))
    table.holder.scatter_(0, slot, torch.where(moves, leaving, was).unsqueeze(0))
    table.way.scatter_(0, slot, torch.where(moves, leaves.side, along).unsqueeze(0))


def _found(problem: _Problems, table: _Tables, leaves: _Leaving, step: _Step) -> Tensor:
    """Multipliers (constraints, subdomains, targets): reduced costs of slacks in slots, and what a ray adds to them."""
    batch, constraints, _ = problem.walls.shape
    # Where nothing stops a violated variable's multiplier, the bound falls without end, at this rate or faster.
    endless = (leaves.excess > _VIOLATED) & ~step.moves
    ray = endless * _RAY / step.rate.clamp(min=_VIOLATED)
    reduced = torch.addcmul(table.rows[0], ray * leaves.side, leaves.row)
    found = reduced.new_zeros(constraints + 1, reduced.shape[1])
    wall = table.holder - (table.inputs + 1)
    found.scatter_add_(0, torch.where(wall >= 0, wall, constraints), -reduced)
    found.scatter_add_(0, leaves.wall.unsqueeze(0), (ray * leaves.is_wall).unsqueeze(0))
    return found[:constraints].clamp_(min=0).view(constraints, batch, problem.targets)
