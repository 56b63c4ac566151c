"""The heuristic that reads both the moments of the quadratic-gate bound and the linear bound."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor

from lipcompare.branching.heuristics.base import Candidates
from lipcompare.branching.heuristics.linear import Area
from lipcompare.branching.heuristics.moment import Moment
from lipcompare.rounding import DIVISOR

_SIGNS, _FAR = 0.5, 0.1
"""Weight of the signs of gradient entries, from bounds that are so much of the target above it on
(docs/performance.md)."""


@final
class Mixed:
    """Between ``moment`` and the geometric mean of it and ``area``, the nearer to that the more gates share an input.

    Moments say what a gate costs the bound of this subdomain at its solution, the area what its decision can mean at
    all. Where there are many more gates than inputs most patterns hold nowhere, subdomains end because no input is
    left, and a gate is worth a split that both think so of; with more inputs than gates every pattern holds somewhere,
    and what counts is the bound. The same goes for signs of the input gradient: a decision of one restricts no input,
    so that it counts the less the closer the bound is to the target.
    """

    name: ClassVar[str] = "mixed"
    reads_moments: ClassVar[bool] = True

    def __call__(self, candidates: Candidates) -> Tensor:
        numbering, gates = candidates.numbering, candidates.numbering.gates
        moment = Moment()(candidates)
        gate, sign = moment[:, :gates], moment[:, gates:]
        crowded = candidates.subdomains.gates.unstable_count.to(moment) / numbering.network.in_size
        crowded = crowded.clamp(max=1).unsqueeze(-1)
        mean = gate.pow(1 - 0.5 * crowded) * Area()(candidates)[:, :gates].pow(0.5 * crowded)
        mean = mean * gate.amax(-1, keepdim=True) / mean.amax(-1, keepdim=True).clamp(min=DIVISOR)
        near = 1 - _SIGNS * (candidates.excess / _FAR).clamp(max=1).unsqueeze(-1)
        return torch.cat([mean, sign * (1 - crowded * near)], -1)
