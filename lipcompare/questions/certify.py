"""Certified robustness radii from Lipschitz constants of the margins.

If ``L_j`` bounds the dual norm of the gradient of ``f_y - f_j`` over the ball of radius ``r`` around ``x``, no point
closer than ``min(r, (f_y(x) - f_j(x)) / L_j)`` has class ``j`` (Hein and Andriushchenko 2017; Weng et al. 2018).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lipcompare.api import bound
from lipcompare.domain import Norm, NormBall
from lipcompare.errors import InvalidInput, UnsupportedOperation
from lipcompare.methods import Method, get
from lipcompare.network.environment import computing
from lipcompare.network.graph import Network
from lipcompare.network.interval import Interval
from lipcompare.preactivation.interval import interval_values
from lipcompare.problem import ArrayLike, Problem, as_batch, margins
from lipcompare.result import Status
from lipcompare.rounding import SPARE, allowance, unit_roundoff

_NO_ANSWER = (Status.UNSUPPORTED, Status.UNAVAILABLE, Status.LICENCE_TOO_SMALL)


@dataclasses.dataclass(frozen=True, eq=False)
class Certificate:
    """What is proved about every example; arrays of shape (batch,).

    Attributes:
        radius: no input closer than this has another class; 0 where nothing is proved.
        labels: the class of each example.
        correct: whether the network gives it that class.
        margin: smallest difference between the output of the class and another one.
    """

    norm: Norm
    radius: np.ndarray
    labels: np.ndarray
    correct: np.ndarray
    margin: np.ndarray


@computing()
def certified_radius(
    network: Network,
    inputs: ArrayLike,
    labels: int | Sequence[int] | Tensor | None = None,
    *,
    norm: Norm | str | float = Norm.INF,
    method: Method | str = "lbp",
    largest: float = 1.0,
    steps: int = 12,
    time_limit: float = float("inf"),
    clip: tuple[float, float] | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float64,
) -> Certificate:
    """The largest radius that the method's Lipschitz constants certify, by bisection over the radius of the ball.

    Args:
        inputs: one example or a batch.
        labels: the classes that must not change; by default what the network says.
        largest: where the bisection starts; no larger radius is reported.
        steps: bisections, each of which runs the method on the whole batch.
        time_limit: seconds for each of them, which methods that can stop midway keep.
        clip: range of valid inputs; radii then hold against inputs within it.

    Raises:
        InvalidInput: a method that proves no upper bounds, or numbers out of range.
        UnsupportedOperation: the method does not apply to the network or the norm, or is not there.
    """
    chosen_method = get(method)
    if chosen_method.proves == "lower":
        raise InvalidInput(f"{chosen_method.name} proves lower bounds only: take 'lbp', 'sdp' or another upper bound.")
    if not 0 < largest < float("inf") or steps < 1:
        raise InvalidInput("The largest radius must be positive and finite, and there must be at least one step.")
    norm = Norm.parse(norm)
    points = as_batch(inputs, network, device=device, dtype=dtype)
    moved = network.to(points.device, points.dtype)
    with torch.no_grad():
        outputs = moved.forward(points)
    said = outputs.argmax(-1)
    chosen = said if labels is None else torch.as_tensor(labels).reshape(-1).to(points.device).expand(len(points))
    rows = margins(chosen, network.out_size).to(points)
    gaps = _proved_gaps(moved, points, rows)
    correct = (gaps > 0).all(-1)
    best = gaps.new_zeros(len(points))
    low, high = torch.zeros_like(best), torch.full_like(best, largest)
    for step in range(steps):
        radius = high if step == 0 else (low + high) / 2
        problem = Problem(moved, NormBall.around(points, radius.to(points.dtype), norm, clip), norm, rows)
        radius = torch.minimum(radius, _inner_radius(problem, points, clip))
        found = bound(problem, chosen_method, time_limit=time_limit)
        if found.status in _NO_ANSWER:
            raise UnsupportedOperation(f"{found.method} cannot certify this: {found.sentence}")
        upper = torch.as_tensor(found.upper).to(gaps)
        # The quotient is off by one roundoff; the factor takes two off.
        safe = torch.where(upper > 0, gaps / upper * (1 - 4 * unit_roundoff(gaps.dtype)), torch.inf)
        reach = torch.minimum(safe.amin(-1), radius)
        best = torch.maximum(best, torch.where(correct, reach, torch.zeros_like(reach)))
        holds = safe.amin(-1) >= radius
        low, high = torch.where(holds, radius, low), torch.where(holds, high, radius)
        low = torch.maximum(low, torch.minimum(best, high))
        if bool((~correct | (high - low <= 1e-4 * high)).all()):
            break
    arrays = (t.cpu().numpy() for t in (best.double(), chosen, correct, gaps.amin(-1).double()))
    return Certificate(norm, *arrays)


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


def _inner_radius(problem: Problem, points: Tensor, clip: tuple[float, float] | None) -> Tensor:
    """The radius (batch,) of a ball inside the problem's domain, up to the range of valid inputs.

    The ends of a box are rounded when they are stored, to either side.
    """
    box = problem.box
    if isinstance(box, NormBall):
        return box.radius.double()
    below, above = points.double() - box.lower.double(), box.upper.double() - points.double()
    if clip is not None:
        below = torch.where(box.lower <= clip[0], torch.inf, below)
        above = torch.where(box.upper >= clip[1], torch.inf, above)
    return torch.minimum(below, above).amin(-1) * (1 - 2 * unit_roundoff(torch.float64))
