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
        pivots: at most.
    """
    size, weight = rest.abs().sum(-1), walls.abs().sum(-1)
    size, weight = (torch.where(v > 0, v, 1.0) for v in (size, weight))
    costs = (rest / size.unsqueeze(-1)).float()
    found = _scaled(costs, (walls / weight.unsqueeze(-1)).float(), (heights / weight).float(), pivots).to(size)
    found = found * size / weight.T.unsqueeze(-1)
    return torch.where(found.isfinite(), found, 0.0)


def _scaled(costs: Tensor, walls: Tensor, heights: Tensor, pivots: int) -> Tensor:
    """The same for targets and half-spaces of size one, in single precision."""
    batch, targets, inputs = costs.shape
    constraints, problems = heights.shape[1], batch * targets
    heights = heights.unsqueeze(-1)
    normals = walls.flatten(0, 1).T.contiguous()
    first = torch.arange(0, batch * constraints, constraints, device=costs.device).repeat_interleave(targets)
    # Row 0 is the function itself, in terms of what has the slots; row k > 0 an input that a pivot took its slot from.
    rows = costs.new_zeros(pivots + 1, inputs, problems)
    rows[0] = costs.permute(2, 0, 1).reshape(inputs, problems)
    level = costs.new_zeros(pivots + 1, problems)  # the values of these inputs; no row, no value
    name = torch.full_like(level, inputs, dtype=torch.int64)  # which inputs they are; ``inputs`` for none
    way = 1 - 2 * (rows[0] >= 0).to(costs)  # from the end where a slot's variable is to its other end
    value = -way
    span = torch.full_like(way, 2.0)
    # Input i is i, the slack of half-space j is inputs + 1 + j.
    holder = torch.arange(inputs, device=costs.device).unsqueeze(-1).repeat(1, problems)
    one = torch.ones_like(level[0])

    for k in range(pivots):
        held = holder.clamp(max=inputs)
        x = costs.new_zeros(inputs + 1, problems).scatter_(0, held, value).scatter_(0, name[: k + 1], level[: k + 1])
        slack = torch.baddbmm(heights, walls, x[:inputs].view(inputs, batch, targets).transpose(0, 1))
        least, wall = (v.flatten() for v in slack.min(1))
        beyond, basic = (level[: k + 1].abs() - 1).max(0)
        by_wall = beyond <= -least
        excess = torch.maximum(beyond, -least)
        basic, is_wall = basic.unsqueeze(0), by_wall.to(costs)
        # The row of the variable that leaves its range.
        normal = torch.nn.functional.pad(normals.index_select(1, first + wall) * is_wall, (0, 0, 0, 1))
        parts = normal.gather(0, name[: k + 1]).scatter_add_(0, basic, (1 - is_wall).unsqueeze(0))
        row = normal.gather(0, held)
        for j in range(1, k + 1):
            row.addcmul_(parts[j], rows[j])
        side = torch.where(by_wall, one, -level.gather(0, basic)[0].sign())
        # The kinks on the way, and how far it pays to go.
        gain = torch.nn.functional.threshold(row * way * side, _PIVOT, _NOTHING)
        ratio = rows[0].abs().clamp_(min=_LEAST).div_(gain)
        room = gain * span
        order, at = ratio.sort(0)
        passed = (excess - room.gather(0, at).cumsum(0) > 0).sum(0, keepdim=True).clamp_(max=inputs - 1)
        step, slot = order.gather(0, passed), at.gather(0, passed)
        violated = excess > _VIOLATED
        moves = violated & (step[0] < _NOWHERE)
        last = k == pivots - 1 or (costs.device.type == "cpu" and not bool(moves.any()))
        flips = (ratio < step).to(costs) * moves
        gap = excess - (room * flips).sum(0)
        pivot = torch.where(moves, row.gather(0, slot)[0], one)
        change = side * gap / pivot * moves
        # ...
        turn = 2 * flips * way
        value += turn
        way -= turn
        entry = (row / -pivot * moves).scatter_(0, slot, (1 / pivot).unsqueeze(0))
        there = slot.expand(k + 1, 1, problems)
        column = rows[: k + 1].gather(1, there)
        if not last:
            level[: k + 1] += (rows[: k + 1] * turn).sum(1) + column[:, 0] * change
            level[0] = 0
        rows[: k + 1].scatter_(1, there, 0.0).addcmul_(column, entry)
        leaving = torch.where(by_wall, inputs + 1 + wall, name.gather(0, basic)[0])
        was, before, along, wide = (v.gather(0, slot)[0] for v in (holder, value, way, span))
        holder.scatter_(0, slot, torch.where(moves, leaving, was).unsqueeze(0))
        if last:
            break
        is_input = ((was < inputs) & moves).to(costs)
        place = torch.where(moves & ~by_wall, basic, k + 1)
        rows.scatter_(0, place.unsqueeze(1).expand(1, inputs, problems), (entry * is_input).unsqueeze(0))
        level.scatter_(0, place, ((before + change) * is_input).unsqueeze(0))
        name.scatter_(0, place, torch.where(is_input > 0, was, inputs).unsqueeze(0))
        value.scatter_(0, slot, torch.where(moves, side * (is_wall - 1), before).unsqueeze(0))
        way.scatter_(0, slot, torch.where(moves, side, along).unsqueeze(0))
        span.scatter_(0, slot, torch.where(moves, 2 + (_FAR - 2) * is_wall, wide).unsqueeze(0))
    # Where nothing stops a violated variable's multiplier, the bound falls without end.
    endless = (violated & ~moves).to(costs)
    rate = excess - (room * (gain > _PIVOT)).sum(0)
    ray = endless * _RAY / rate.clamp(min=_VIOLATED)
    reduced = torch.addcmul(rows[0], ray * side, row)
    found = costs.new_zeros(constraints + 1, problems)
    found.scatter_add_(0, torch.where(holder > inputs, holder - inputs - 1, constraints), -reduced)
    found.scatter_add_(0, wall.unsqueeze(0), (ray * is_wall).unsqueeze(0))
    return found[:constraints].clamp_(min=0).view(constraints, batch, targets)
