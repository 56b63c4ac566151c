"""The paper's bound: nothing to add to the linear bound that every subdomain has but the scores."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, final

import torch

from lipcompare.branching.bounds.base import Relaxed, Settings, SubdomainBound
from lipcompare.branching.cuts import NamedCuts
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.heuristics import Candidates, Heuristic
from lipcompare.branching.subdomains import Subdomains
from lipcompare.problem import Norm


@final
@dataclasses.dataclass(frozen=True)
class RelaxationBound:
    """A relaxation of the chain rule in the tree; with ``lbp`` it is the paper's (arXiv 2210.07394, section 3.4)."""

    pivots: ClassVar[int] = 1
    passes: ClassVar[int] = 1
    shares: ClassVar[bool] = True

    propagation: str = "lbp"

    @property
    def name(self) -> str:
        return self.propagation

    def has_moments(self, norm: Norm) -> bool:
        return False

    def default_heuristic(self, norm: Norm) -> str:
        return "area"

    def on(self, numbering: Numbering, norm: Norm, heuristic: Heuristic, settings: Settings) -> SubdomainBound:
        return LinearBound(numbering, norm, heuristic)


@dataclasses.dataclass(frozen=True, eq=False)
class LinearBound:
    """See the module."""

    numbering: Numbering
    norm: Norm
    heuristic: Heuristic

    def __call__(self, batch: Subdomains, floor: float, target: float) -> Relaxed:
        return Relaxed(
            upper=batch.linear,
            score=self.heuristic(Candidates.above(target, batch.linear, self.numbering, self.norm, batch)),
            slopes=self.numbering.join({k: s.upper for k, s in batch.gates.slopes.items()}),
            value=torch.zeros_like(batch.linear),
            multipliers=torch.zeros_like(batch.multipliers),
            cuts=NamedCuts.none(len(batch.linear), batch.linear),
        )
