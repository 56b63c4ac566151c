"""ReLU and its relatives: two slopes that meet at zero."""

from __future__ import annotations

import dataclasses
from typing import Self

import torch
from torch import Tensor

from lipcompare.network.activations.base import Activation, Adjustable, Lines, Passing
from lipcompare.network.interval import Interval
from lipcompare.rounding import unit_roundoff


@dataclasses.dataclass(frozen=True, eq=False)
class LeakyReLU(Activation):
    """``max(z, alpha z)`` with ``alpha <= 1``: ReLU (0), leaky ReLU, absolute value (-1), PReLU (one alpha per neuron).

    The lower relaxation is any slope in ``[alpha, 1]`` through the origin; CROWN's default takes whichever of the two
    ends leaves the smaller area (Zhang et al. 2018, arXiv 1811.00866).
    """

    alpha: float | Tensor = 0.0  # scalar, or (n,) one slope per neuron

    @property
    def piecewise_linear(self) -> bool:
        return True

    @property
    def increasing(self) -> bool:
        return not isinstance(self.alpha, Tensor) and self.alpha >= 0

    @property
    def _rectifies(self) -> bool:
        """Whether it is the ReLU, whose zeros need no arithmetic."""
        return not isinstance(self.alpha, Tensor) and self.alpha == 0

    @property
    def lower_through_origin(self) -> bool:
        return self._rectifies

    def value(self, z: Tensor) -> Tensor:
        return z.clamp(min=0) if self._rectifies else torch.maximum(z, self.alpha * z)

    def derivative(self, z: Tensor) -> Tensor:
        return self.slopes(z > 0, z.dtype)

    def smoothed_derivative(self, z: Tensor, width: Tensor) -> Tensor:
        on = torch.sigmoid(z / width)
        return on + (1 - on) * self.alpha

    def slopes(self, active: Tensor, dtype: torch.dtype) -> Tensor:
        """Slope of each neuron under a boolean pattern ``active`` of shape (..., n)."""
        return self._slope(active.to(dtype))

    def _slope(self, share: Tensor) -> Tensor:
        """The slope a ``share`` of the way from that below the kink to that above it."""
        return share if self._rectifies else share + (1 - share) * self.alpha

    def slope_range(self, z: Interval) -> Interval:
        # A neuron that only touches its kink keeps both slopes: every Clarke derivative counts. So do bounds that are
        # NaN. (No tensor is made of alpha: that would make a GPU wait.)
        # (Signs, as masks of booleans take several times as long to make numbers of. The sign of NaN is 0.)
        return Interval(self._slope(z.lower.sign().clamp_(min=0)), self._highest(z))

    def _highest(self, z: Interval) -> Tensor:
        return self._slope(1 + z.upper.sign().clamp_(max=0))

    def steepest(self, z: Interval) -> Tensor:
        return self._highest(z) if self.increasing else super().steepest(z)

    def slopes_anywhere(self, like: Tensor) -> Interval:
        return Interval(self._slope(torch.zeros_like(like)), self._slope(torch.ones_like(like)))

    def image(self, z: Interval) -> Interval:
        # The function is convex: its maximum is at an end, its minimum at an end or at the kink.
        lower, upper = self.value(z.lower), self.value(z.upper)
        if self.increasing:
            return Interval(lower, upper)
        least = torch.minimum(lower, upper)
        inside = (z.lower < 0) & (z.upper > 0)
        return Interval(torch.where(inside, least.clamp(max=0), least), torch.maximum(lower, upper))

    def relaxation(self, z: Interval, choice: Tensor | None = None) -> Lines:
        below, above = z.lower.clamp(max=0), z.upper.clamp(min=0)
        width, stable = above - below, (below == 0) | (above == 0)
        # The chord from (below, alpha below) to (above, above); for a stable neuron it is the function itself.
        rise = (above / width).nan_to_num_(nan=1.0)
        # Both lines hold with their stored coefficients: slopes are off by at most 6 roundoffs times the steeper side,
        # the intercept by as much times the far end; 16 times the width are allowed for. A ReLU's lower line is exact.
        error = 16 * unit_roundoff(width.dtype) * width
        intercept = below * rise
        if self._rectifies:
            intercept, lower_intercept = error - intercept, torch.zeros_like(error)
        else:
            error = error.masked_fill(stable, 0.0)
            size = torch.as_tensor(self.alpha, dtype=rise.dtype, device=rise.device).abs()
            intercept, lower_intercept = (self.alpha - 1) * intercept + (1 + size) * error, -size * error
        # Where the neuron is stable the larger side is the only one.
        choice = (above > -below).to(rise.dtype) if choice is None else torch.where(stable, rise, choice)
        return Lines(self._slope(choice), lower_intercept, self._slope(rise), intercept.masked_fill(stable, 0.0))

    def family(self, z: Interval) -> Adjustable:
        fixed = self.relaxation(z)
        # The slope of the line below per unit of the choice; where the neuron is stable the choice stays at its start.
        free = ((z.lower < 0) & (z.upper > 0)).to(z.lower.dtype) * (1 - self.alpha)

        def pull(passed: Passing, value: Tensor, gradient: Tensor) -> None:
            torch.mul(passed.negative, value, out=gradient).mul_(free)

        return lambda choice: (fixed._replace(lower_slope=self._slope(choice)), pull)

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        if isinstance(self.alpha, Tensor):
            moved = self.alpha.to(device=device, dtype=dtype)
            return self if moved is self.alpha else dataclasses.replace(self, alpha=moved)
        # A number is a weight like any other: it is the one that the precision stores.
        stored = float(torch.tensor(self.alpha, dtype=dtype))
        return self if stored == self.alpha else dataclasses.replace(self, alpha=stored)


def relu() -> LeakyReLU:
    """The ReLU, ``max(z, 0)``."""
    return LeakyReLU(0.0)
