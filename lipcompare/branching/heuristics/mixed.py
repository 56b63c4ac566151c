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
    """The geometric mean of ``moment`` and ``area``, as large as the former at most.

    Moments say what a gate costs the bound of this subdomain at its solution, the area what its decision can mean at
    all: a gate is worth a split that both think so of. Signs of the input gradient have a score by moments alone: a
    decision of one restricts no input, so that nothing else is settled by it, and it counts the less the closer the
    bound is to the target, where subdomains end because no input is left.
    """

    name: ClassVar[str] = "mixed"
    reads_moments: ClassVar[bool] = True

    def __call__(self, candidates: Candidates) -> Tensor:
        gates = candidates.numbering.gates
        moment = Moment()(candidates)
        mean = (moment * Area()(candidates))[:, :gates].sqrt()
        largest = moment[:, :gates].amax(-1, keepdim=True) / mean.amax(-1, keepdim=True).clamp(min=DIVISOR)
        signs = _SIGNS * (candidates.excess / _FAR).clamp(max=1).unsqueeze(-1)
        return torch.cat([mean * largest, moment[:, gates:] * signs], -1)
