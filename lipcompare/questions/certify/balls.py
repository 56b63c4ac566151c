"""The balls around the examples, and what has to be shown over them."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lipcompare.domain import Box, Norm, NormBall
from lipcompare.network.graph import Network
from lipcompare.network.interval import Interval
from lipcompare.preactivation.interval import interval_values
from lipcompare.rounding import SPARE, allowance, unit_roundoff


@dataclasses.dataclass(frozen=True, eq=False)
class Balls:
    """A batch of examples whose classes shall not change.

    Attributes:
        network: on the device and in the precision of the points.
        points: (batch, inputs).
        rows: (batch, rows, outputs), the margins: the class's output less another one.
        norm: of the balls.
        clip: range of valid inputs.
        gaps: (batch, rows) lower bounds on the margins at the points, float64.
    """

    network: Network
    points: Tensor
    rows: Tensor
    norm: Norm
    clip: tuple[float, float] | None
    gaps: Tensor

    @classmethod
    def of(cls, network: Network, points: Tensor, rows: Tensor, norm: Norm, clip: tuple[float, float] | None) -> Balls:
        return cls(
            network=network, points=points, rows=rows, norm=norm, clip=clip, gaps=_proved_gaps(network, points, rows)
        )

    @property
    def correct(self) -> Tensor:
        """Which examples (batch,) are proved to have their class themselves."""
        return (self.gaps > 0).all(-1)

    @property
    def valid(self) -> Tensor:
        """Which examples (batch,) are valid inputs themselves: others are not in their clipped balls."""
        if self.clip is None:
            return torch.ones_like(self.correct)
        low, high = self.clip
        return ((self.points >= low) & (self.points <= high)).all(-1)

    def select(self, some: Tensor) -> Balls:
        """Some of the examples (some,)."""
        return dataclasses.replace(self, points=self.points[some], rows=self.rows[some], gaps=self.gaps[some])

    def domain(self, radius: Tensor) -> Box:
        """The balls of these radii (batch,)."""
        return NormBall.around(self.points, radius.to(self.points.dtype), self.norm, self.clip)

    def inner(self, domain: Box, radius: Tensor) -> Tensor:
        """Radii (batch,), float64, of balls inside the domain of this radius up to the range of valid inputs.

        The ends of a box are rounded when they are stored, to either side.
        """
        if isinstance(domain, NormBall):
            return domain.radius.double()
        below, above = self.points.double() - domain.lower.double(), domain.upper.double() - self.points.double()
        if self.clip is not None:
            below = torch.where(domain.lower <= self.clip[0], torch.inf, below)
            above = torch.where(domain.upper >= self.clip[1], torch.inf, above)
        inside = torch.minimum(below, above).amin(-1) * (1 - 2 * unit_roundoff(torch.float64))
        return torch.minimum(inside, radius.double())

    def first_order(self) -> Tensor:
        """Where the margins' linear parts vanish, (batch,): the order of magnitude of the radii, no bound."""
        network = self.network
        with torch.no_grad():
            slopes = {k: v.unsqueeze(1) for k, v in network.slopes(network.values(self.points)).items()}
            size = self.norm.dual.of(network.pull_back(slopes, self.rows)).double()
        return torch.where(size > 0, self.gaps.clamp(min=0) / size, torch.inf).amin(-1)


def _proved_gaps(network: Network, points: Tensor, rows: Tensor) -> Tensor:
    """Lower bounds (batch, rows) on ``rows`` times the outputs at the points, in float64."""
    double = network.to(points.device, torch.float64)
    with torch.no_grad():
        _, outputs = interval_values(double, Interval(points.double(), points.double()))
        weights = rows.double()
        up, down = weights.clamp(min=0), -weights.clamp(max=0)
        least = up @ outputs.lower.unsqueeze(-1) - down @ outputs.upper.unsqueeze(-1)
        size = weights.abs() @ outputs.magnitude.unsqueeze(-1)
        gaps: Tensor = (least - allowance(rows.shape[-1] + SPARE, size.dtype) * size).squeeze(-1)
    return gaps
