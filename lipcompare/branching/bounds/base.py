"""What a bound on subdomains is: certified values, scores for splitting, a pattern to try, and a start for the parts.

A bound is a function of the gates, as everything in ``jacobian``. :class:`TreeBound` is an entry of the table of those
that the tree can use; :class:`SubdomainBound` is one that is ready to bound the subdomains of one network.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from lipcompare.branching.cuts import NamedCuts
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.heuristics import Heuristic
from lipcompare.branching.subdomains import Subdomains
from lipcompare.budget import Deadline
from lipcompare.problem import Norm


@dataclasses.dataclass(frozen=True, eq=False)
class Relaxed:
    """Bounds on a batch of subdomains, one row each.

    Attributes:
        upper: (subdomains,) certified.
        score: (subdomains, gates + inputs) how much a split should gain; 0 where there is nothing to split.
        slopes: (subdomains, gates) a pattern that might attain the bound.
        value: (subdomains,) what this pattern gives if an input attains it; 0 for no proposal.
        multipliers: (subdomains, 1 + gates + inputs) for the parts to start from, zeros for none.
        cuts: for the parts to start with.
    """

    upper: Tensor
    score: Tensor
    slopes: Tensor
    value: Tensor
    multipliers: Tensor
    cuts: NamedCuts


class SubdomainBound(Protocol):
    """Bounds a batch of subdomains."""

    def __call__(self, batch: Subdomains, floor: float, target: float) -> Relaxed:
        """Bound the subdomains.

        Args:
            batch: subdomains whose linear bound is above ``target``.
            floor: the best value attained so far.
            target: a smaller bound is of no use.
        """


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a user may ask of a bound.

    Attributes:
        tolerance: relative accuracy of a program.
        memory: bytes that one pass may take.
        cuts: most cutting planes per program.
        deadline: when it has passed, programs end with the bound that they have, and none is begun.
    """

    tolerance: float = 3e-3
    memory: int = 2**30
    cuts: int = 0
    deadline: Deadline = dataclasses.field(default_factory=Deadline)


@runtime_checkable
class TreeBound(Protocol):
    """A bound that branch and bound can use.

    Attributes:
        pivots, passes: how much re-propagation of a decision pays beside the bound's own cost.
        shares: whether rows share their subdomains: what a decision means for pre-activations is then found once for
            all of them, and how to split is asked of one of them. That pays where the first is most of the work.
    """

    pivots: ClassVar[int]
    passes: ClassVar[int]
    shares: ClassVar[bool]

    @property
    def name(self) -> str:
        """How users ask for it."""

    @property
    def propagation(self) -> str:
        """The relaxation (:mod:`lipcompare.jacobian.relaxations`) that bounds every subdomain before this does."""

    def has_moments(self, norm: Norm) -> bool:
        """Whether heuristics that read moments work on it."""

    def default_heuristic(self, norm: Norm) -> str:
        """Name of the heuristic that suits it."""

    def on(self, numbering: Numbering, norm: Norm, heuristic: Heuristic, settings: Settings) -> SubdomainBound:
        """The bound on subdomains of one network."""
