"""Lower bounds with witnesses."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, final

import numpy as np
from torch import Tensor

from lipcompare.attack.search import Effort, kink_patterns, search
from lipcompare.budget import Budget, Clock, Copies, Deadline, Kept, tensor_bytes
from lipcompare.methods.base import Method, Piece, pieces
from lipcompare.methods.combine import best_witnesses, stacked
from lipcompare.problem import Problem
from lipcompare.result import Bound, Status, Witnesses
from lipcompare.witness import make_witnesses

_SEARCH = 0.7
"""Share of the time limit for the search; on large networks the check of what it found takes the rest."""


@final
@dataclasses.dataclass(frozen=True)
class Attack(Method):
    """Points of large gradient norm: sampling, ascent on a smoothed norm, local search over points and patterns.

    Attributes:
        samples: points tried at random.
        starts: of these kept per row, to climb from.
        ascent_steps: steps of gradient ascent from each of them.
        rounds, proposals: of the local search, and points that it tries in each.
        regions: activation regions next to a point that are tried by linear programs.
        seed: of the random numbers.
    """

    name: ClassVar[str] = "attack"
    proves: ClassVar[str] = "lower"
    summary: ClassVar[str] = "search for a point with a large gradient (a lower bound with a witness)"
    reference: ClassVar[str] = "weng2018clever"
    balls: ClassVar[bool] = True
    everywhere: ClassVar[bool] = True

    samples: int = Effort.samples
    starts: int = Effort.starts
    ascent_steps: int = Effort.ascent_steps
    rounds: int = Effort.rounds
    proposals: int = Effort.proposals
    regions: int = Effort.regions
    seed: int = 0

    def __post_init__(self) -> None:
        self.at_least(1, "samples", "starts")
        self.at_least(0, "ascent_steps", "rounds", "proposals", "regions")

    def supports(self, problem: Problem) -> str | None:
        return None

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        effort = Effort(
            samples=self.samples,
            starts=self.starts,
            ascent_steps=self.ascent_steps,
            rounds=self.rounds,
            proposals=self.proposals,
            regions=self.regions,
        )
        points = problem.rows * effort.starts * 2 * effort.proposals
        each = tensor_bytes(Copies.POINT, points * problem.network.widest, problem.box.lower)
        per_piece, hurried = [], False
        under_way: list[tuple[Piece, Tensor]] = []

        def kept() -> Kept:
            """What the search under way had found when something ended it."""
            if not under_way:
                return Kept(0, np.zeros((0, problem.rows)))
            piece, points = under_way[-1]
            witnesses = make_witnesses(piece.problem, points)
            return Kept(piece.first, np.full(witnesses.values.shape, np.inf), witnesses)

        clock.keep(kept)
        for piece in pieces(problem, clock, each):
            witnesses, late = self._search(piece, effort, budget, under_way)
            under_way.clear()
            clock.keep(Kept(piece.first, np.full(witnesses.values.shape, np.inf), witnesses))
            per_piece.append(witnesses)
            hurried |= late
        witnesses = stacked(per_piece)
        status = Status.TIME_LIMIT if hurried else Status.COMPLETE
        return self.result(problem, clock, lower=witnesses.values, status=status, witnesses=witnesses)

    def _search(
        self, piece: Piece, effort: Effort, budget: Budget, under_way: list[tuple[Piece, Tensor]]
    ) -> tuple[Witnesses, bool]:
        """Witnesses of a piece, and whether the time ended the search; ``under_way`` takes the points on the way."""
        problem = piece.problem
        searching, whole = Deadline.after(_SEARCH * piece.seconds), Deadline.after(piece.seconds)
        points = search(
            problem, effort, seed=self.seed, memory=budget.memory, deadline=searching,
            report=lambda points: under_way.append((piece, points)),
        )  # fmt: skip
        witnesses = make_witnesses(problem, points, kink_patterns(problem, points, whole))
        # Kinks have no volume, so no search meets them; people do ask about the kink they centre the box on.
        centers = problem.box.clamp(problem.box.window.center.unsqueeze(1).expand_as(points))
        patterns = kink_patterns(problem, centers, whole)
        if patterns is not None:
            witnesses = best_witnesses([witnesses, make_witnesses(problem, centers, patterns)])
        return witnesses, searching.missed or whole.passed()
