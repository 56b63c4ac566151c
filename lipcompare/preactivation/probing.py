"""Probing: what follows for all other neurons when one undecided neuron is on either side of its kink.

Both sides together cover the box, so the hull of what holds on each holds everywhere, which tightens pre-activation
bounds and decides neurons. A neuron whose sign is settled on one side gives a pair of states that exclude each other
(Savelsbergh, ORSA J. Computing 6, 1994, for mixed-integer programs).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lipcompare.budget import Copies, Deadline, chunk_size, tensor_bytes
from lipcompare.gates import Conflicts, PreactivationBounds
from lipcompare.network.graph import Network
from lipcompare.network.interval import Interval
from lipcompare.preactivation.split import SplitBounds, split_bounds

_MOST = 512
"""Undecided neurons of an example: each costs two propagations of the network, in which all others are refined."""


def probe(
    network: Network,
    box: Interval,
    bounds: PreactivationBounds,
    *,
    memory: int = 2**30,
    deadline: Deadline | None = None,
) -> tuple[dict[int, Interval], Conflicts]:
    """Tighter pre-activation bounds, and the conflicts between states of neurons that stay undecided.

    Args:
        box: (examples, inputs).
        bounds: valid ones over the box; returned as they are for examples with more than 512 undecided neurons.
        deadline: when it has passed, no further neurons are probed.
    """
    deadline = deadline or Deadline()
    nodes = list(bounds)
    sizes = [network.nodes[k].size for k in nodes]
    lower, upper = (torch.cat([end[i] for end in bounds.values()], -1) for i in (0, 1))  # (examples, neurons)
    undecided = (lower < 0) & (upper > 0)
    undecided &= (undecided.sum(-1) <= _MOST).unsqueeze(-1)
    example, neuron = undecided.nonzero(as_tuple=True)
    room = chunk_size(memory, lower.device, tensor_bytes(Copies.EXAMPLE, network.widest, lower))
    pairs = []
    best_lower, best_upper = lower, upper
    for chunk in torch.arange(len(example), device=lower.device).split(room):
        if deadline.passed():
            break
        b, n = example[chunk], neuron[chunk]
        found = _both_sides(network, box, bounds, nodes, sizes, b, n, memory, deadline)
        lows, highs = (torch.cat([found.bounds[k][i] for k in nodes], -1) for i in (0, 1))
        low_gone, high_gone = found.empty.chunk(2)
        # Both gone would say that the box is empty: rounding at best, and nothing to build on.
        sane = ~(low_gone & high_gone)
        pairs.append(_excluded(b, n, lows, highs, undecided[b], sane & ~low_gone, sane & ~high_gone))
        lows, highs = _hull(n, lows, highs, low_gone & sane, high_gone & sane)
        kept, b = sane.unsqueeze(-1), b.unsqueeze(-1).expand_as(lows)
        best_lower = best_lower.scatter_reduce(0, b, torch.where(kept, lows, -torch.inf), "amax")
        best_upper = best_upper.scatter_reduce(0, b, torch.where(kept, highs, torch.inf), "amin")
    lower, upper = torch.where(undecided, best_lower, lower), torch.where(undecided, best_upper, upper)
    crossed = lower > upper
    lower, upper = torch.where(crossed, upper, lower), torch.where(crossed, lower, upper)
    ends = zip(nodes, lower.split(sizes, -1), upper.split(sizes, -1), strict=True)
    tighter = {k: Interval(low, high) for k, low, high in ends}
    open_still = (lower < 0) & (upper > 0)
    return tighter, _conflicts(pairs, open_still, nodes, sizes)


def _both_sides(
    network: Network,
    box: Interval,
    bounds: PreactivationBounds,
    nodes: list[int],
    sizes: list[int],
    example: Tensor,
    neuron: Tensor,
    memory: int,
    deadline: Deadline,
) -> SplitBounds:
    """Bounds with each neuron on its low side, and then with each on its high side: (2 probes, ...)."""
    side = torch.zeros(2, len(neuron), sum(sizes), dtype=torch.int8, device=neuron.device)
    here = torch.arange(len(neuron), device=neuron.device)
    side[0, here, neuron], side[1, here, neuron] = -1, 1
    twice = example.repeat(2)
    signs = dict(zip(nodes, side.flatten(0, 1).split(sizes, -1), strict=True))
    start = {k: Interval(v.lower[twice], v.upper[twice]) for k, v in bounds.items()}
    region = Interval(box.lower[twice], box.upper[twice])
    return split_bounds(network, region, signs, start, memory=memory, deadline=deadline)


def _hull(neuron: Tensor, lows: Tensor, highs: Tensor, low_gone: Tensor, high_gone: Tensor) -> tuple[Tensor, Tensor]:
    """What holds on either side of each probed neuron, (probes, neurons); a side without inputs adds nothing."""
    (low_a, low_b), (high_a, high_b) = lows.chunk(2), highs.chunk(2)
    a, b = low_gone.unsqueeze(-1), high_gone.unsqueeze(-1)
    low = torch.where(a, low_b, torch.where(b, low_a, torch.minimum(low_a, low_b)))
    high = torch.where(a, high_b, torch.where(b, high_a, torch.maximum(high_a, high_b)))
    # A side without inputs leaves the neuron strictly on the other one, off the kink.
    tiny = torch.finfo(low.dtype).tiny
    here = torch.arange(len(neuron), device=neuron.device)
    low[here, neuron] = torch.where(low_gone, low[here, neuron].clamp(min=tiny), low[here, neuron])
    high[here, neuron] = torch.where(high_gone, high[here, neuron].clamp(max=-tiny), high[here, neuron])
    return low, high


def _excluded(
    example: Tensor, neuron: Tensor, lows: Tensor, highs: Tensor, others: Tensor, low_there: Tensor, high_there: Tensor
) -> Tensor:
    """Rows (example, neuron, its side, other neuron, the other's side that is excluded), sides 0 and 1."""
    here = torch.arange(len(neuron), device=neuron.device)
    others = others.clone()
    others[here, neuron] = False
    rows = []
    for side, there in ((0, low_there), (1, high_there)):
        low, high = lows.chunk(2)[side], highs.chunk(2)[side]
        for other_side, gone in ((1, high < 0), (0, low > 0)):
            probe_index, other = (gone & others & there.unsqueeze(-1)).nonzero(as_tuple=True)
            mine, sides = neuron[probe_index], torch.full_like(other, side)
            rows.append(torch.stack([example[probe_index], mine, sides, other, torch.full_like(other, other_side)], -1))
    return torch.cat(rows)


def _conflicts(pairs: list[Tensor], undecided: Tensor, nodes: list[int], sizes: list[int]) -> Conflicts:
    """Each pair once. Of two that together make two gates the same or opposite, one: both leave no room between."""
    if not pairs:
        return Conflicts.none(undecided.device)
    rows = torch.cat(pairs)
    swap = rows[:, 1] > rows[:, 3]
    rows = torch.where(swap.unsqueeze(-1), rows[:, [0, 3, 4, 1, 2]], rows)
    rows = rows[undecided[rows[:, 0], rows[:, 1]] & undecided[rows[:, 0], rows[:, 3]]]
    rows = torch.unique(rows[:, [0, 1, 3, 2, 4]], dim=0)  # example, both neurons, both sides
    if len(rows) > 1:
        _, group, counts = torch.unique_consecutive(rows[:, :3], dim=0, return_inverse=True, return_counts=True)
        code = rows[:, 3] * 2 + rows[:, 4]
        present = torch.zeros(len(counts), 4, dtype=torch.bool, device=rows.device)
        present[group, code] = True
        rows = rows[~(present[group, 3 - code] & (code >= 2))]
    offsets = torch.tensor([0, *sizes], device=rows.device).cumsum(0)
    both = rows[:, 1:3].contiguous()
    index = torch.bucketize(both, offsets[1:], right=True)
    names = torch.tensor(nodes, device=rows.device)
    return Conflicts(rows[:, 0], names[index], both - offsets[index], rows[:, 3:5].bool())
