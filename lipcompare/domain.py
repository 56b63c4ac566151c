"""Sets of inputs: boxes, l_1 and l_2 balls, and the whole space."""

from __future__ import annotations

import dataclasses
import enum
from typing import Self

import torch
from torch import Tensor

from lipcompare.errors import InvalidInput, nearest
from lipcompare.network.interval import Interval
from lipcompare.rounding import SPARE, allowance, euclidean, raised


class Norm(enum.Enum):
    """Norm ``p`` on the input; gradients are then measured in the dual norm ``q``, ``1/p + 1/q = 1``."""

    INF = "inf"
    TWO = "2"
    ONE = "1"

    @classmethod
    def parse(cls, value: Norm | str | float) -> Norm:
        """From ``"inf"``, ``"2"``, ``"l1"``, ``float("inf")``, ``2`` and the like."""
        if isinstance(value, Norm):
            return value
        text = str(value).lower().strip().removesuffix(".0").removeprefix("l").removeprefix("_")
        for norm in cls:
            if norm.value == text:
                return norm
        raise InvalidInput(f"Unknown norm {value!r}.{nearest(text, [n.value for n in cls])}")

    @property
    def dual(self) -> Norm:
        """The norm ``q`` of gradients."""
        return {Norm.INF: Norm.ONE, Norm.TWO: Norm.TWO, Norm.ONE: Norm.INF}[self]

    def of(self, x: Tensor) -> Tensor:
        """This norm of the last axis."""
        if self is Norm.TWO:
            return euclidean(x)
        size = x.abs()  # torch's own norms of short axes take ten times as long
        return size.sum(-1) if self is Norm.ONE else size.amax(-1)


@dataclasses.dataclass(frozen=True, eq=False)
class Box:
    """A batch of axis-parallel boxes ``lower <= x <= upper``; both of shape (batch, inputs).

    Every other domain is a box with a further restriction: ``lower`` and ``upper`` are its bounding box, so a method
    that only knows boxes bounds it from above. Points of the domain itself come from :meth:`clamp`.
    """

    lower: Tensor
    upper: Tensor

    def __post_init__(self) -> None:
        lower, upper = self.lower, self.upper
        if lower.shape != upper.shape:
            raise InvalidInput(f"Box bounds differ in shape: lower {tuple(lower.shape)}, upper {tuple(upper.shape)}.")
        if lower.ndim != 2 or lower.shape[0] == 0 or lower.shape[1] == 0:
            raise InvalidInput(f"A box has shape (batch, inputs), both at least 1; got {tuple(lower.shape)}.")
        if not bool(torch.isfinite(lower).all() and torch.isfinite(upper).all()):
            raise InvalidInput("The box has NaN or infinite bounds: give finite input values and radii.")
        if bool((lower > upper).any()):
            b, i = (int(v) for v in (lower > upper).nonzero()[0])
            raise InvalidInput(
                f"The box is empty: in example {b}, input {i}, lower {float(lower[b, i]):g} is above upper "
                f"{float(upper[b, i]):g}."
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.described}, {self.lower.shape[1]} inputs>"

    @property
    def described(self) -> str:
        """The shape, size and number of the domains, in a few words."""
        radius = float((self.upper - self.lower).max()) / 2
        return f"{self.batch} box{'' if self.batch == 1 else 'es'} of radius {radius:.4g}"

    @property
    def interval(self) -> Interval:
        """The bounding box."""
        return Interval(self.lower, self.upper)

    @property
    def region(self) -> Region:
        """The domain as the bounds on pre-activations know it: an interval, or a ball."""
        return self.interval

    @property
    def window(self) -> Interval:
        """Where a search starts: the bounding box if that is bounded."""
        return self.interval

    @property
    def batch(self) -> int:
        return int(self.lower.shape[0])

    def slice(self, start: int, stop: int) -> Self:
        """Some consecutive domains of the batch."""
        changes = {
            f.name: value[start:stop]
            for f in dataclasses.fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return dataclasses.replace(self, **changes)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        """The same domain on another device or in another precision."""
        changes = {
            f.name: value.to(device=device, dtype=dtype)
            for f in dataclasses.fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return dataclasses.replace(self, **changes)

    def clamp(self, points: Tensor) -> Tensor:
        """Points (batch, ..., inputs) of the domain near the given ones; points of the domain stay where they are."""
        lower, upper = (_beside(v, points) for v in (self.lower, self.upper))
        return torch.minimum(torch.maximum(points, lower), upper)

    def contains(self, points: Tensor) -> Tensor:
        """Which of the points (batch, ..., inputs) lie in the domain: (batch, ...). Decided in float64."""
        points = points.to(self.lower.device, torch.float64)
        lower, upper = (_beside(v.double(), points) for v in (self.lower, self.upper))
        return ((points >= lower) & (points <= upper)).all(-1)

    @classmethod
    def ball(cls, center: Tensor, radius: Tensor | float, clip: tuple[float, float] | None = None) -> Box:
        """The l_inf ball of ``radius`` (scalar, or broadcastable to ``center``) around (batch, inputs) centres.

        ``clip`` cuts it with the range of valid inputs, such as ``(0, 1)`` for pixels.
        """
        radius = torch.as_tensor(radius, dtype=center.dtype, device=center.device)
        if not bool(torch.isfinite(radius).all()) or bool((radius < 0).any()):
            raise InvalidInput("The radius eps must be a finite number that is not negative.")
        lower, upper = center - radius, center + radius
        if clip is not None:
            if not clip[0] <= clip[1]:
                raise InvalidInput(f"The clip range is empty: {clip[0]:g} is above {clip[1]:g}.")
            if bool(((upper < clip[0]) | (lower > clip[1])).any()):
                raise InvalidInput(
                    f"The clip range {clip[0]:g} to {clip[1]:g} does not meet the box: is the input scaled to it?"
                )
            lower, upper = lower.clamp(*clip), upper.clamp(*clip)
        return Box(lower, upper)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class NormBall(Box):
    """A batch of l_1 or l_2 balls, cut with boxes. Make one with :meth:`around`.

    Attributes:
        lower, upper: bounding box, (batch, inputs); where the ball is clipped, the box that it is cut with.
        center: (batch, inputs), inside the box.
        radius: (batch,).
        norm: l_1 or l2.
    """

    center: Tensor
    radius: Tensor
    norm: Norm

    @classmethod
    def around(
        cls,
        center: Tensor,
        radius: Tensor | float,
        norm: Norm | str | float = Norm.TWO,
        clip: tuple[float, float] | None = None,
    ) -> Box:
        """Balls of ``radius`` (a number, or one per example) around (batch, inputs) centres; l_inf balls are boxes."""
        norm = Norm.parse(norm)
        size = torch.as_tensor(radius, dtype=center.dtype, device=center.device).reshape(-1)
        if size.numel() not in (1, len(center)):
            raise InvalidInput(f"A ball has one radius; got {size.numel()} for a batch of {len(center)}.")
        size = size.expand(len(center))
        box = Box.ball(center, size.unsqueeze(-1), clip)
        if norm is Norm.INF:
            return box
        if bool(((center < box.lower) | (center > box.upper)).any()):
            raise InvalidInput(
                f"The centre of an l_{norm.value} ball must lie in the range {clip} that it is cut with."
            )
        return cls(box.lower, box.upper, center, size, norm)

    @property
    def described(self) -> str:
        balls = f"{self.batch} l_{self.norm.value} ball{'' if self.batch == 1 else 's'}"
        return f"{balls} of radius {float(self.radius.max()):.4g}"

    @property
    def region(self) -> Region:
        return self

    def maximum(self, coefficient: Tensor) -> Tensor:
        """Upper bounds (batch, targets) on linear functions over the ball: its dual norm, or the box if that is less.

        Args:
            coefficient: (targets, inputs) or (batch, targets, inputs).
        """
        if coefficient.ndim == 2:
            coefficient = coefficient.unsqueeze(0)
        at_center = torch.matmul(coefficient, self.center.unsqueeze(-1)).squeeze(-1)
        on_ball = at_center + self.radius.unsqueeze(-1) * self.norm.dual.of(coefficient)
        box = self.interval
        middle = torch.matmul(coefficient, box.center.unsqueeze(-1)).squeeze(-1)
        return torch.minimum(on_ball, middle + torch.matmul(coefficient.abs(), box.radius.unsqueeze(-1)).squeeze(-1))

    def clamp(self, points: Tensor) -> Tensor:
        points = super().clamp(points)
        center, radius = _beside(self.center, points), _beside(self.radius.unsqueeze(-1), points)
        away = points - center
        distance = self.norm.of(away).unsqueeze(-1)
        # A little inside, so that rounding does not carry the point out again: the norm, the factor and the way back
        # from it are off by a few units of the distance, and :meth:`contains` raises its own norm by as much; the sum
        # with the centre rounds relative to the coordinate.
        coordinate = self.norm.of((center.abs() + radius) * allowance(1, points.dtype)).unsqueeze(-1)
        inside = (radius * (1 - 3 * allowance(points.shape[-1] + SPARE, points.dtype)) - coordinate).clamp(min=0)
        safe = torch.where(distance > inside, distance, torch.ones_like(distance))
        # The box is convex and holds the centre, so it holds the whole segment.
        pulled = super().clamp(center + away * (inside / safe))
        return torch.where(distance > inside, pulled, points)

    def contains(self, points: Tensor) -> Tensor:
        points = points.to(self.lower.device, torch.float64)
        center = _beside(self.center.double(), points)
        radius = _beside(self.radius.double().unsqueeze(-1), points).squeeze(-1)
        distance = raised(self.norm.of(points - center), points.shape[-1])  # outside is outside
        return super().contains(points) & (distance <= radius)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Space(Box):
    """All inputs (a global constant): every gate is open. Make one with :meth:`of`.

    Attributes:
        scale: half-width of the box around 0 in which searches for lower bounds start.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not bool((self.lower == -torch.inf).all() and (self.upper == torch.inf).all()):
            raise InvalidInput("The whole space has no finite bounds: use Space.of(inputs), or a Box.")
        if not 0 < self.scale < float("inf"):
            raise InvalidInput("The scale of a search over the whole space must be positive and finite.")

    @property
    def described(self) -> str:
        return "all inputs"

    @classmethod
    def of(
        cls, inputs: int, *, scale: float = 1.0, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float64
    ) -> Space:
        far = torch.full((1, inputs), torch.inf, device=device, dtype=dtype)
        return cls(-far, far, scale)

    @property
    def window(self) -> Interval:
        size = torch.full_like(self.upper, self.scale)
        return Interval(-size, size)


Region = Interval | NormBall
"""What linear functions of the input are maximised over."""


def _beside(values: Tensor, points: Tensor) -> Tensor:
    """``values`` (batch, n) with axes to broadcast against ``points`` (batch, ..., n)."""
    return values.reshape(values.shape[0], *(1,) * (points.ndim - 2), values.shape[-1])
