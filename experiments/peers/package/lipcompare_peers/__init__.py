"""Public programs as methods of lipcompare, each run by its own interpreter from a copy outside this repository.

``docs/peers.md`` says how each is set up. What is not there has the status of a solver that is not installed.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from lipcompare import Norm, Problem
from lipcompare.domain import NormBall
from lipcompare_peers.peer import Peer


@dataclasses.dataclass(frozen=True)
class AutoLirpa(Peer):
    """auto_LiRPA's bounds of the Jacobian's norm (``examples/vision/jacobian.py`` there).

    Attributes:
        optimized: whether the slopes of the pre-activation bounds are optimised, as it does by default.
    """

    name: ClassVar[str] = "auto_lirpa"
    summary: ClassVar[str] = "auto_LiRPA's Jacobian bounds"
    reference: ClassVar[str] = "shi2022lipschitz"
    convolutions: ClassVar[bool] = True
    optimized: bool = True

    @property
    def choice(self) -> str:
        return "optimized" if self.optimized else "plain"


@dataclasses.dataclass(frozen=True)
class PaperCode(Peer):
    """The code that was published with the paper (arXiv 2210.07394).

    Attributes:
        branching: whether it goes on with branch and bound until the time limit.
    """

    name: ClassVar[str] = "paper_code"
    summary: ClassVar[str] = "the code of Shi et al. 2022"
    reference: ClassVar[str] = "shi2022lipschitz"
    convolutions: ClassVar[bool] = True
    branching: bool = False

    @property
    def choice(self) -> str:
        return "branching" if self.branching else "plain"


@dataclasses.dataclass(frozen=True)
class LipMipCode(Peer):
    """LipMIP's own code, with Gurobi."""

    name: ClassVar[str] = "lipmip_code"
    summary: ClassVar[str] = "LipMIP's own code, with Gurobi"
    reference: ClassVar[str] = "jordan2020lipmip"


@dataclasses.dataclass(frozen=True)
class LipBabCode(Peer):
    """LipBaB's own code, with GLPK."""

    name: ClassVar[str] = "lipbab_code"
    summary: ClassVar[str] = "LipBaB's own code, with GLPK"
    reference: ClassVar[str] = "bhowmick2021lipbab"


@dataclasses.dataclass(frozen=True)
class ExLipBab(Peer):
    """ExLipBaB's own code, with GLPK."""

    name: ClassVar[str] = "exlipbab"
    summary: ClassVar[str] = "ExLipBaB, with GLPK"
    reference: ClassVar[str] = "splittgerber2026exlipbab"


@dataclasses.dataclass(frozen=True)
class Eclipse(Peer):
    """ECLipsE-Gen-Local of the package eclipse-nn: the l_2 norm of the Jacobian over an l_2 ball.

    Attributes:
        variant: ``Acc``, ``Fast`` or ``CF``.
    """

    name: ClassVar[str] = "eclipse"
    summary: ClassVar[str] = "ECLipsE-Gen-Local of eclipse-nn"
    reference: ClassVar[str] = "xu2024eclipse"
    balls: ClassVar[bool] = True
    variant: str = "Fast"

    @property
    def choice(self) -> str:
        return self.variant

    def domain_reason(self, problem: Problem) -> str | None:
        ball = isinstance(problem.box, NormBall) and problem.box.norm is Norm.TWO
        if not ball or problem.norm is not Norm.TWO:
            return "It bounds the l_2 norm over an l_2 ball: give norm=2 and ball=2."
        return None
