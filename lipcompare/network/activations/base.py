"""What every elementwise activation provides.

Conventions: a *pre-activation* ``z`` is the input of an activation. ``slope_range`` is the Clarke derivative over an
interval, which is all that the Jacobian bounds of kinked networks ever see (as :class:`~lipcompare.gates.Gates`);
``relaxation`` is a pair of lines around the function, which is all that the bounds on later pre-activations see;
``slope_lines`` is a pair of lines around the derivative, which smooth activations have besides.
"""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from lipcompare.network.interval import Interval


class Lines(NamedTuple):
    """``lower_slope * z + lower_intercept <= sigma(z) <= upper_slope * z + upper_intercept``, entrywise."""

    lower_slope: Tensor
    lower_intercept: Tensor
    upper_slope: Tensor
    upper_intercept: Tensor


class Passing(Protocol):
    """What arrived at an activation on the way back through it, by sign."""

    @property
    def positive(self) -> Tensor: ...

    @property
    def negative(self) -> Tensor: ...


Pull = Callable[[Passing, Tensor, Tensor], None]
"""From the coefficients that passed and the pre-activation ``z``, writes the gradient in the choice of ``positive
(upper line at z) + negative (lower line at z)`` into the last argument; all broadcast to the shape of the choice."""

Adjustable = Callable[[Tensor], tuple[Lines, Pull]]
"""A family of relaxations over one interval: from a choice to its lines, and to what pulls gradients back to it."""


def differentiated(lines: Callable[[Tensor], Lines], choice: Tensor) -> tuple[Lines, Pull]:
    """A :data:`Adjustable` from a function that autograd can see through."""
    with torch.enable_grad():
        free = choice.detach().requires_grad_()
        relaxed = lines(free)

    def pull(passed: Passing, z: Tensor, gradient: Tensor) -> None:
        above, below = passed.positive, passed.negative
        weights = Lines(below * z, below, above * z, above)
        pairs = [(line, w.expand_as(line)) for line, w in zip(relaxed, weights, strict=True) if line.requires_grad]
        if pairs:
            gradient.copy_(torch.autograd.grad([line for line, _ in pairs], free, [w for _, w in pairs])[0])

    return Lines(*(line.detach() for line in relaxed)), pull


@dataclasses.dataclass(frozen=True, eq=False)
class Activation(ABC):
    """An elementwise function with a Clarke derivative that is bounded on bounded intervals."""

    @property
    @abstractmethod
    def piecewise_linear(self) -> bool:
        """Whether activation patterns describe it exactly (then exact methods apply)."""

    @property
    def increasing(self) -> bool:
        """Whether its slopes are known to be nowhere negative."""
        return False

    @property
    def lower_through_origin(self) -> bool:
        """Whether the lower line of every relaxation has no intercept, exactly."""
        return False

    @abstractmethod
    def value(self, z: Tensor) -> Tensor:
        """``sigma(z)`` for ``z`` of shape (..., n)."""

    @abstractmethod
    def derivative(self, z: Tensor) -> Tensor:
        """``sigma'(z)``; at a kink the value that autograd takes."""

    @abstractmethod
    def smoothed_derivative(self, z: Tensor, width: Tensor) -> Tensor:
        """A differentiable stand-in for ``derivative`` that varies over ``width`` (the search for lower bounds)."""

    @abstractmethod
    def slope_range(self, z: Interval) -> Interval:
        """Smallest interval that holds every Clarke derivative over the pre-activation interval ``z``."""

    def steepest(self, z: Interval) -> Tensor:
        """The largest absolute slope over ``z``."""
        return self.slope_range(z).magnitude

    def slopes_anywhere(self, like: Tensor) -> Interval:
        """Range of the slope over the whole line, of the shape of ``like`` (..., n), on its device and in its dtype.

        With one kink, its ends are the slopes below and above the kink.
        """
        far = torch.full_like(like, torch.inf)
        return self.slope_range(Interval(-far, far))

    @abstractmethod
    def image(self, z: Interval) -> Interval:
        """Smallest interval that holds every value over the pre-activation interval ``z``."""

    @abstractmethod
    def relaxation(self, z: Interval, choice: Tensor | None = None) -> Lines:
        """Lines around the function over ``z``.

        ``choice`` in [0, 1], broadcastable to ``z``, moves within the family of valid lower (for smooth functions also
        upper) lines and is what alpha-CROWN optimises; ``None`` takes the default that CROWN takes.
        """

    def family(self, z: Interval) -> Adjustable:
        """:meth:`relaxation` over one interval as a function of ``choice`` that can be pulled back; what no choice
        changes is computed once."""
        return functools.partial(differentiated, functools.partial(self.relaxation, z))

    def start(self, z: Interval) -> Tensor:
        """The choice at which alpha-CROWN starts, of the shape of ``z``."""
        return (z.upper > -z.lower).to(z.lower.dtype)

    def slope_lines(self, z: Interval) -> Lines | None:
        """Lines around the derivative over ``z``; None where its range says all (activations with kinks only)."""
        return None

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        return self
