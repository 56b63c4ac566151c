"""What a branching heuristic sees, and what it answers."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from lipcompare.branching.decisions import Numbering
from lipcompare.branching.subdomains import Subdomains
from lipcompare.problem import Norm
from lipcompare.quadratic.program import SdpData
from lipcompare.quadratic.solver.interior_point import SdpSolution


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """The quadratic-gate programs of a batch of subdomains, solved."""

    data: SdpData
    solution: SdpSolution


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """Subdomains that are to be split.

    Attributes:
        excess: (subdomains,) by how much their bounds are above the target, as a share of it: infinite where that is 0.
        moments: of the quadratic-gate bound; None under a bound that has none.
    """

    numbering: Numbering
    norm: Norm
    subdomains: Subdomains
    excess: Tensor
    moments: Moments | None = None

    @classmethod
    def above(
        cls,
        target: float,
        upper: Tensor,
        numbering: Numbering,
        norm: Norm,
        subdomains: Subdomains,
        moments: Moments | None = None,
    ) -> Candidates:
        """Those with bounds ``upper`` (subdomains,)."""
        over = (upper - target).clamp(min=0)
        return cls(
            numbering, norm, subdomains, over / target if target > 0 else torch.full_like(over, torch.inf), moments
        )


@runtime_checkable
class Heuristic(Protocol):
    """Says how much a split on each gate, and on each sign of the input gradient, should gain."""

    name: ClassVar[str]
    reads_moments: ClassVar[bool]
    """Whether it needs :attr:`Candidates.moments`."""

    def __call__(self, candidates: Candidates) -> Tensor:
        """Scores (subdomains, gates + inputs); 0 where there is nothing to split, the largest is split."""
