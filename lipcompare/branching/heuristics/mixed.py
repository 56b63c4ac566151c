"""The heuristic that reads both the moments of the quadratic-gate bound and the linear bound."""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor

from lipcompare.branching.heuristics.base import Candidates
from lipcompare.branching.heuristics.linear import Area
from lipcompare.branching.heuristics.moment import Moment


@final
class Mixed:
    """The geometric mean of ``moment`` and ``area``.

    Moments say what a gate costs the bound of this subdomain at its solution, the area what its decision can mean at
    all: a gate is worth a split that both think so of (docs/performance.md). Signs of the input gradient, which have no
    area, restrict no input, so that a decision of them settles nothing else; they are never split.
    """

    name: ClassVar[str] = "mixed"
    reads_moments: ClassVar[bool] = True

    def __call__(self, candidates: Candidates) -> Tensor:
        score: Tensor = (Moment()(candidates) * Area()(candidates)).sqrt()
        return score
