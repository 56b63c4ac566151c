"""Gate patterns in the coordinates of the relaxation: evaluation, local search, rounding of the moment matrix.

A pattern fixes every gate at one end of its slope range; its moment matrix ``w w'`` is feasible for the relaxation, so
its value is a lower bound on the relaxation's optimum (not on the network's constant: nothing says that an ``x``
attains it). Patterns give the solver a scale, a starting size per coordinate and a floor, and the attack candidates.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lipcompare.gates import Gates
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
        part = neuron[:, start:stop]
        generator = torch.Generator().manual_seed(k)
        width = int(part.max()) + 1
        # One row per neuron, so that a wider table starts with the same rows.
        table = torch.rand(width, samples, generator=generator).to(part.device) < 0.5
        draws.append(table[part])
    first = torch.ones(data.problems, 1, samples, dtype=torch.bool, device=neuron.device)
    return torch.cat([first, *draws], 1).mT


def explore(data: SdpData, *, samples: int = 8, sweeps: int = 4) -> Patterns:
    """Good patterns of every problem, by local search from random ones, and behind them the random ones."""
    start = evaluate(data, random_patterns(data, samples))
    good = improve(data, start, sweeps)
    return Patterns(*(torch.cat(pair, 1) for pair in zip(vars(good).values(), vars(start).values(), strict=True)))


def round_moments(data: SdpData, moments: Tensor, *, samples: int = 16, sweeps: int = 4) -> Patterns:
    """Patterns from a moment matrix ``M`` (problems, n, n): Gaussian points with these moments, gates read off them.

    The first sample takes the mean over the distribution instead: a gate is high where ``E v^2 > E K^2 / 2``. Local
    search improves all of them.
    """
    forms = -2 * data.columns
    forms.diagonal(dim1=-2, dim2=-1).zero_()
    square = ((moments @ forms) * forms).sum(-2)
    diagonal = moments.diagonal(dim1=-2, dim2=-1)
    mean = diagonal > 0.5 * square
    shifted = moments + 1e-9 * torch.diag_embed(1 + diagonal.abs())
    factor, info = torch.linalg.cholesky_ex(shifted)
    factor = torch.where((info == 0).view(-1, 1, 1), factor, torch.diag_embed(diagonal.clamp(min=0).sqrt()))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(data.problems, max(samples - 1, 0), data.size, generator=generator, dtype=torch.float64)
    points = noise.to(moments.device) @ factor.mT
    incoming = points @ forms
    high = torch.cat([mean.unsqueeze(1), points * incoming > 0.5 * incoming.square()], 1)
    high[..., 0] = True
    return improve(data, evaluate(data, high), sweeps)


def by_node(data: SdpData, high: Tensor, gates: Gates) -> dict[int, Tensor]:
    """Patterns ``high`` (problems, samples, n) as masks (problems, samples, neurons) per activation node.

    Gates that are decided, or that no gradient reaches, are reported as active where their slope can be 1.
    """
    patterns: dict[int, Tensor] = {}
    for k, slope in gates.slopes.items():
        patterns[k] = (slope.upper >= 1)[data.example].unsqueeze(1).repeat(1, high.shape[1], 1)
    present = data.coordinates.present[data.example] & data.mask
    neuron = data.coordinates.neuron[data.example]
    for start, stop in data.ranges:
        pattern = patterns[int(data.coordinates.node[start])]
        index = neuron[:, None, start:stop].expand(-1, high.shape[1], -1)
        old = pattern.gather(-1, index)
        pattern.scatter_(-1, index, torch.where(present[:, None, start:stop], high[..., start:stop], old))
    return patterns
