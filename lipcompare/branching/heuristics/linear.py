"""The paper's two heuristics, which read the linear bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, final

import torch
from torch import Tensor

from lipcompare.branching.heuristics.base import Candidates
from lipcompare.branching.heuristics.weights import gate_weights
from lipcompare.rounding import DIVISOR

_FREE = 1e-6
"""Score, per unit of its gradient, of a gate that costs the linear bound nothing: its decision may settle others."""


@final
class Area:
    """The area that ``(J, a J)`` covers, times the weight with which the bound uses the gate (arXiv 2210.07394, section
    3.4)."""

    name: ClassVar[str] = "area"
    reads_moments: ClassVar[bool] = False

    def __call__(self, candidates: Candidates) -> Tensor:
        return _scores(candidates, _area)


@final
class Babsr:
    """What the chords' constants add to the bound (Bunel et al. 2020, arXiv 1909.06588, applied to the backward
    network)."""

    name: ClassVar[str] = "babsr"
    reads_moments: ClassVar[bool] = False

    def __call__(self, candidates: Candidates) -> Tensor:
        return _scores(candidates, _intercept)


def _area(lower: Tensor, upper: Tensor) -> Tensor:
    """Twice the area of ``(J, a J)`` per unit of the slope's range, for J between ``lower`` and ``upper``; none where J
    has a sign."""
    below, above = lower.clamp(max=0), upper.clamp(min=0)
    signed = lower.clamp(min=0).square() + upper.clamp(max=0).square()
    return above.square() + below.square() - signed


def _intercept(lower: Tensor, upper: Tensor) -> Tensor:
    """The constant of the upper chord around ``a J`` per unit of the slope's range."""
    below, above = lower.clamp(max=0), upper.clamp(min=0)
    return above * -below / (above - below).clamp(min=DIVISOR)


def _scores(candidates: Candidates, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """``loss`` of every undecided gate, weighted by its use: (subdomains, gates + inputs)."""
    numbering, batch = candidates.numbering, candidates.subdomains
    gates, gradients = batch.gates, batch.gradients
    weights = gate_weights(numbering.network, gates, batch.functionals, gradients, candidates.norm)
    scores = {}
    for k in numbering.network.activations:
        slope = gates.slopes[k]
        if k not in gradients.intervals or k not in weights:
            scores[k] = torch.zeros_like(slope.lower)
            continue
        lower, upper = (v.squeeze(1) for v in gradients.intervals[k])
        width = slope.upper - slope.lower
        free = torch.where(width > 0, _FREE * torch.maximum(upper.clamp(min=0), -lower.clamp(max=0)), 0.0)
        scores[k] = (width * loss(lower, upper) * weights[k].squeeze(1) + free) * (width > 0)
    flat = numbering.join(scores)
    return torch.cat([flat, flat.new_zeros(len(flat), numbering.network.in_size)], -1)
