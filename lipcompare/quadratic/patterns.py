"""Gate patterns in the coordinates of the relaxation: evaluation and local search.

A pattern fixes every gate at one end of its slope range; its moment matrix ``w w'`` is feasible for the relaxation, so
its value is a lower bound on the relaxation's optimum (not on the network's constant: nothing says that an ``x``
attains it). Patterns give the solver a scale, a starting size per coordinate and a floor, and the attack candidates.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lipcompare.quadratic.program import SdpData


@dataclasses.dataclass(frozen=True, eq=False)
class Patterns:
    """A few patterns per problem.

    Attributes:
        high: (problems, samples, n) gates at their high slope; true for the constant.
        points: (problems, samples, n) the coordinates ``w`` that they give.
        values: (problems, samples) objective, in scaled units and without the offset.
    """

    high: Tensor
    points: Tensor
    values: Tensor


def evaluate(data: SdpData, high: Tensor) -> Patterns:
    """Coordinates and values of patterns ``high`` (problems, samples, n)."""
    points = torch.zeros(high.shape, dtype=data.columns.dtype, device=high.device)
    points[..., 0] = 1
    for start, stop in data.ranges:
        incoming = -2 * (points[..., :start] @ data.columns[:, :start, start:stop])
        points[..., start:stop] = incoming * high[..., start:stop]
    return Patterns(high, points, _values(data, points))


def _values(data: SdpData, points: Tensor) -> Tensor:
    return ((points @ data.cost) * points).sum(-1) + (points @ data.entries).abs().sum(-1)


def improve(data: SdpData, patterns: Patterns, sweeps: int) -> Patterns:
    """Local search: each sweep sets every gate to the side that its linearised influence asks for; the best is kept."""
    best = patterns
    ranges = data.ranges
    for _ in range(sweeps):
        points = patterns.points
        influence = 2 * (points @ data.cost) + (points @ data.entries).sign() @ data.entries.mT
        high = patterns.high.clone()
        for start, stop in reversed(ranges):
            linear = -2 * data.columns[:, :start, start:stop]
            gain = influence[..., start:stop]
            chosen = gain * (points[..., :start] @ linear) > 0
            high[..., start:stop] = chosen
            influence[..., :start] += (gain * chosen) @ linear.mT
        patterns = evaluate(data, high)
        better = patterns.values > best.values
        best = Patterns(
            torch.where(better.unsqueeze(-1), patterns.high, best.high),
            torch.where(better.unsqueeze(-1), patterns.points, best.points),
            torch.where(better, patterns.values, best.values),
        )
    return best


def random_patterns(data: SdpData, samples: int) -> Tensor:
    """Reproducible patterns (problems, samples, n); a neuron's draws depend on its name alone, not on the batch."""
    names = data.coordinates
    neuron = names.neuron[data.example]
    draws = []
    for k, (start, stop) in zip(names.node.unique_consecutive()[1:].tolist(), data.ranges, strict=True):
        index = neuron[:, start:stop]
        generator = torch.Generator().manual_seed(k)
        width = int(index.max()) + 1
        # One row per neuron, so that a wider table starts with the same rows.
        table = torch.rand(width, samples, generator=generator).to(index.device) < 0.5
        draws.append(table[index])
    first = torch.ones(data.problems, 1, samples, dtype=torch.bool, device=neuron.device)
    return torch.cat([first, *draws], 1).mT


def explore(data: SdpData, *, samples: int = 8, sweeps: int = 4) -> Patterns:
    """Good patterns of every problem, by local search from random ones, and behind them the random ones."""
    start = evaluate(data, random_patterns(data, samples))
    return joined(improve(data, start, sweeps), start)


def joined(first: Patterns, second: Patterns) -> Patterns:
    """The patterns of both, for the same problems."""
    return Patterns(
        high=torch.cat([first.high, second.high], 1),
        points=torch.cat([first.points, second.points], 1),
        values=torch.cat([first.values, second.values], 1),
    )
