"""States that exclude each other as equations ``(f' w)(g' w) = 0``.

A coordinate ``v`` with ``v (K - v) = 0`` is in its high state where ``K - v = 0`` and in its low one where ``v = 0``.
Two states that no input attains together make a product of what is zero in neither vanish: ``v_i v_k = 0`` for two
high ones, ``v_i (K_k - v_k) = 0`` for a high and a low one, and so on. ``v (K - v) = 0`` is the case ``i = k``.
"""

from __future__ import annotations

import operator
from functools import reduce

import torch
from torch import Tensor

from lipcompare.gates import Conflicts
from lipcompare.quadratic.cuts.forms import Forms, Group
from lipcompare.quadratic.cuts.forward import Joined
from lipcompare.quadratic.cuts.products import products
from lipcompare.quadratic.program import Coordinates, Cuts, SdpData


def conflict_pairs(conflicts: Conflicts, names: Coordinates, example: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates (problems, pairs, 2) of gates in conflict, 0 where there are fewer, and which states are high.

    Args:
        names: the gates' coordinates per example.
        example: (problems,) each problem's example.
    """
    match = (conflicts.node.unsqueeze(-1) == names.node) & (
        conflicts.neuron.unsqueeze(-1) == names.neuron[conflicts.example].unsqueeze(1)
    )
    match &= names.present[conflicts.example].unsqueeze(1)
    lifted = match.any(-1).all(-1)  # gates without a gradient have no coordinate
    index, high, owner = match.to(torch.uint8).argmax(-1)[lifted], conflicts.high[lifted], conflicts.example[lifted]
    examples = len(names.neuron)
    count = torch.bincount(owner, minlength=examples)
    width = int(count.max()) if len(count) else 0
    order = torch.argsort(owner, stable=True)
    rank = torch.arange(len(order), device=order.device) - (count.cumsum(0) - count)[owner[order]]
    pairs = torch.zeros(examples, width, 2, dtype=torch.int64, device=order.device)
    sides = torch.zeros(examples, width, 2, dtype=torch.bool, device=order.device)
    pairs[owner[order], rank] = index[order]
    sides[owner[order], rank] = high[order]
    return pairs[example], sides[example]


def equations(data: SdpData, pairs: Tensor, high: Tensor) -> Cuts:
    """The equation of each pair of states.

    Args:
        pairs: (problems, pairs, 2) coordinates, 0 for none.
        high: (problems, pairs, 2).
    """
    f, g = (_state(data, pairs[..., i], high[..., i]) for i in (0, 1))
    mask = (pairs > 0).all(-1)
    mask &= (data.mask.gather(-1, pairs[..., 0])) & (data.mask.gather(-1, pairs[..., 1]))
    return products(data, f, g, mask, torch.ones_like(mask))


def links(joined: Joined) -> Cuts:
    """A gate, its side and its neuron's output are in the same state; an input lies between 0 and 1."""
    data, side, output = joined.data, joined.side, joined.output
    gate = torch.arange(side.shape[1], device=side.device).expand(data.problems, -1)
    none = torch.zeros_like(gate)
    parts = []
    for first, second in ((gate, side), (gate, output), (side, output)):
        both = torch.stack([torch.where(second > 0, first, none), torch.where(first > 0, second, none)], -1)
        for state in (False, True):
            high = torch.tensor([state, not state], device=gate.device).expand(both.shape)
            cuts = equations(data, both, high)
            parts.append(cuts.where(cuts.mask))
    inputs = joined.first + torch.arange(joined.forward.inputs, device=gate.device)
    x = data.columns.new_zeros(data.problems, data.size, len(inputs))
    x[:, inputs, torch.arange(len(inputs), device=gate.device)] = 1
    rest = -x
    rest[:, 0] += 1
    moves = data.mask[:, inputs]
    parts.append(
        products(data, Forms.of(x, Group.FORWARD), Forms.of(rest, Group.FORWARD), moves, torch.zeros_like(moves))
    )
    return reduce(operator.add, parts)


def _state(data: SdpData, index: Tensor, high: Tensor) -> Forms:
    """What is 0 outside of a state: ``v`` of the high one, ``K - v`` of the low one, for ``index`` (problems, some)."""
    wide = index.unsqueeze(1).expand(-1, data.size, -1)
    low = -2 * data.columns.gather(-1, wide)
    unit = torch.zeros_like(low).scatter_(1, index.unsqueeze(1), 1.0)
    error = torch.where(high, 0.0, data.gate_slack.gather(-1, index))
    return Forms.of(torch.where(high.unsqueeze(1), unit, low), Group.FORWARD, error)
