"""The heuristic that reads the moments of the quadratic-gate bound."""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor

from lipcompare.branching.heuristics.base import Candidates
from lipcompare.branching.multipliers import gate_numbers

_VARIANCE = 0.1
"""Weight of a coordinate's variance beside its distance from its gate's two states: it breaks ties."""


@final
class Moment:
    """How far the moments are from those of a single point, weighted with the gate's multiplier: what the gate
    contributes to the difference between the bound and the value at the mean point. Entries of the input gradient are
    scored by what their undecided sign adds to the norm."""

    name: ClassVar[str] = "moment"
    reads_moments: ClassVar[bool] = True

    def __call__(self, candidates: Candidates) -> Tensor:
        assert candidates.moments is not None
        data, solution, numbering = candidates.moments.data, candidates.moments.solution, candidates.numbering
        moments = solution.moments
        mean = moments[..., 0] / moments[:, :1, 0]
        incoming = mean - 2 * (mean.unsqueeze(-2) @ data.columns).squeeze(-2)
        spread = (mean * (incoming - mean)).abs()
        variance = (moments.diagonal(dim1=-2, dim2=-1) - mean.square()).clamp(min=0)
        gate = solution.dual.theta.abs() * (spread + _VARIANCE * variance) * data.mask
        number = gate_numbers(data, numbering)
        score = mean.new_zeros(len(mean), numbering.count)
        score.scatter_add_(1, number[:, 1:], gate[:, 1:])
        if data.entries.shape[-1]:
            second = ((data.entries.mT @ moments) * data.entries.mT).sum(-1).clamp(min=0)
            first_moment = (mean.unsqueeze(-2) @ data.entries).squeeze(-2)
            loss = (second.sqrt() - first_moment.abs()).clamp(min=0) * data.entry_mask
            score.scatter_add_(1, numbering.gates + data.entry, loss)
        return score
