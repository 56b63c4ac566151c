"""Derivatives over boxes in which one input moves: halved until the sign is proved, which is cheap on a line."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from lipcompare.budget import Deadline
from lipcompare.domain import NormBall, Space
from lipcompare.preactivation import Tightening
from lipcompare.problem import Box, Problem
from lipcompare.questions.entries import EntryBounds, directional_bounds
from lipcompare.result import Status

HALVINGS = 10
"""A line is cut into pieces of no less than a thousandth of it: at a kink of the sign none is small enough."""
_PIECES = 256
"""Pieces that are bounded together."""


def halved(
    problem: Problem,
    axes: Tensor,
    relaxation: str,
    bounds: EntryBounds,
    settled: np.ndarray,
    halvings: int,
    *,
    deadline: Deadline,
    memory: int,
) -> EntryBounds:
    """The bounds, tightened where the sign is open and one input moves: each is that of the worst piece.

    Args:
        axes: (features, inputs).
        settled: (batch, rows, features) what no bound can decide, since both signs were seen.
    """
    box = problem.box
    if isinstance(box, (NormBall, Space)) or bounds.status is not Status.COMPLETE:
        return bounds
    moving = (box.upper > box.lower).sum(-1) == 1
    lower, upper = bounds.lower.copy(), bounds.upper.copy()
    examples = np.flatnonzero(moving.cpu().numpy() & _open(lower, upper, settled).any((1, 2)))
    pieces = _Pieces(examples, box.lower[examples], box.upper[examples], lower[examples], upper[examples])
    for _ in range(halvings):
        if not len(examples) or deadline.passed():
            break
        undecided = _open(lower, upper, settled)[pieces.owner] & (pieces.least < 0) & (pieces.most > 0)
        cut = undecided.any((1, 2))
        if not cut.any():
            break
        pieces = pieces.where(~cut).joined(_halves(problem, axes, relaxation, pieces.where(cut), deadline, memory))
        least, most = np.full_like(lower, np.inf), np.full_like(upper, -np.inf)
        np.minimum.at(least, pieces.owner, pieces.least)
        np.maximum.at(most, pieces.owner, pieces.most)
        lower[examples] = np.maximum(lower[examples], least[examples])
        upper[examples] = np.minimum(upper[examples], most[examples])
    status = Status.TIME_LIMIT if deadline.missed else bounds.status
    return EntryBounds(lower, upper, status)


def _open(lower: np.ndarray, upper: np.ndarray, settled: np.ndarray) -> np.ndarray:
    """Where (batch, rows, features) the sign is neither proved nor known to change."""
    result: np.ndarray = (lower < 0) & (upper > 0) & ~settled
    return result


@dataclasses.dataclass(frozen=True, eq=False)
class _Pieces:
    """Parts of boxes.

    Attributes:
        owner: (pieces,) the example of each.
        lower, upper: (pieces, inputs) of the box.
        least, most: (pieces, rows, features) of the derivatives.
    """

    owner: np.ndarray
    lower: Tensor
    upper: Tensor
    least: np.ndarray
    most: np.ndarray

    def where(self, mask: np.ndarray) -> _Pieces:
        index = torch.from_numpy(mask).to(self.lower.device)
        return _Pieces(self.owner[mask], self.lower[index], self.upper[index], self.least[mask], self.most[mask])

    def joined(self, other: _Pieces) -> _Pieces:
        return _Pieces(
            np.concatenate([self.owner, other.owner]),
            torch.cat([self.lower, other.lower]),
            torch.cat([self.upper, other.upper]),
            np.concatenate([self.least, other.least]),
            np.concatenate([self.most, other.most]),
        )


def _halves(
    problem: Problem, axes: Tensor, relaxation: str, pieces: _Pieces, deadline: Deadline, memory: int
) -> _Pieces:
    """Both halves of every piece; what holds on the piece holds on them."""
    middle = (pieces.lower + pieces.upper) / 2
    lower, upper = torch.cat([pieces.lower, middle]), torch.cat([middle, pieces.upper])
    owner = np.concatenate([pieces.owner, pieces.owner])
    least, most = np.concatenate([pieces.least] * 2), np.concatenate([pieces.most] * 2)
    for start in range(0, len(owner), _PIECES):
        some = slice(start, start + _PIECES)
        halves = dataclasses.replace(
            problem, box=Box(lower[some], upper[some]), functionals=problem.functionals[owner[some]]
        )
        bounds = directional_bounds(
            halves, axes, relaxation, tightening=Tightening.CROWN, time_limit=max(deadline.left, 0.0), memory=memory
        )
        if bounds.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        least[some], most[some] = np.maximum(least[some], bounds.lower), np.minimum(most[some], bounds.upper)
    return _Pieces(owner, lower, upper, least, most)
