"""Certified radii: how far an input may move before the network's class can change.

Two routes prove radii, and the larger wins: bounds on the margins by the forward pass, and Lipschitz constants of the
margins. For small networks with patterns, branch and bound finds the true radius, with the input that limits it.
"""

from __future__ import annotations

import dataclasses
import enum
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lipcompare.branching.driver import Stop
from lipcompare.budget import Deadline
from lipcompare.domain import Norm
from lipcompare.errors import InvalidInput, UnsupportedOperation, known_keywords, nearest
from lipcompare.gates import has_patterns
from lipcompare.methods import METHODS, Method, get
from lipcompare.network.environment import computing
from lipcompare.network.graph import Network
from lipcompare.preactivation import Tightening
from lipcompare.problem import ArrayLike, as_batch, margins
from lipcompare.questions.certify.balls import Balls
from lipcompare.questions.certify.exact import exact_radius
from lipcompare.questions.certify.forward import crown_radius, optimised_radius
from lipcompare.questions.certify.lipschitz import lipschitz_radius
from lipcompare.questions.ending import Ending
from lipcompare.result import Status

FORWARD = tuple(t.value for t in Tightening)
"""Names that bound the margins by the forward pass alone."""
EXACT_RADIUS, AUTO = "exact", "auto"
_LIPSCHITZ = "lbp"
"""The method whose constants ``auto`` sets beside the forward pass."""
_PASSES = 20
"""Passes of the search with fixed slopes; about seven are used."""


class Route(enum.Enum):
    """What proved a radius; the value is what a person reads."""

    NONE = "nothing"
    FORWARD = "bounds of the margins"
    LIPSCHITZ = "Lipschitz constants of the margins"
    EXACT = "branch and bound"


@dataclasses.dataclass(frozen=True, eq=False)
class Certificate:
    """What is proved about every example; arrays of shape (batch,).

    Attributes:
        radius: no input closer than this has another class (one of the targets, if there are any); 0 where nothing is
            proved.
        labels: the class of each example.
        correct: whether the network gives it that class.
        margin: smallest difference between the output of the class and another one.
        route: a :class:`Route` each.
        upper: distance of the nearest input of another class that was found; inf where none was looked for or found.
        points: (batch, inputs) that input; NaN where there is none.
        status: why it ended.
    """

    norm: Norm
    radius: np.ndarray
    labels: np.ndarray
    correct: np.ndarray
    margin: np.ndarray
    route: np.ndarray
    upper: np.ndarray
    points: np.ndarray
    status: Status = Status.COMPLETE
    seconds: float = 0.0

    def share(self, radius: float) -> float:
        """Share of the examples that have their class and are certified to keep it within the radius."""
        return float((self.correct & (self.radius >= radius)).mean())


@known_keywords
@computing()
def certified_radius(
    network: Network,
    inputs: ArrayLike,
    labels: int | Sequence[int] | Tensor | None = None,
    *,
    norm: Norm | str | float = Norm.INF,
    method: Method | str = AUTO,
    targets: int | Sequence[int] | None = None,
    largest: float = 1.0,
    steps: int = 12,
    gap: float = 1e-4,
    time_limit: float = float("inf"),
    memory: int = 2**30,
    clip: tuple[float, float] | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float64,
) -> Certificate:
    """The largest radius that can be certified around every example, all examples of a batch together.

    Args:
        inputs: one example or a batch.
        labels: the classes that must not change; by default what the network says.
        method: ``interval``, ``crown`` or ``alpha-crown`` bound the margins by the forward pass (with ``alpha-crown``
            all slopes on the way are optimised for the margins). A method of :data:`lipcompare.METHODS` that proves
            upper bounds gives Lipschitz constants of the margins, beside CROWN's bounds; ``auto`` sets those of ``lbp``
            beside ``alpha-crown``. The larger radius wins. ``exact`` goes on from ``alpha-crown`` by branch and bound.
        targets: only these classes count as a change (by default all).
        largest: no larger radius is looked for.
        steps: of the bisection by Lipschitz constants; passes that optimise slopes are twice as many.
        gap: relative gap at which ``exact`` ends.
        time_limit: seconds for everything; each part may leave some of it to the next. What is proved by then holds.
        clip: range of valid inputs; radii then hold against inputs within it.
        device: where to compute; by default where ``inputs`` are, and on the CPU if these are no tensor.

    Raises:
        InvalidInput: a method that proves no upper bounds, or numbers out of range.
        UnsupportedOperation: the method does not apply to the network or the norm, or is not there.
    """
    plain = isinstance(method, str) and method in (*FORWARD, EXACT_RADIUS, AUTO)
    if isinstance(method, str) and not plain and method not in METHODS:
        names = [*FORWARD, EXACT_RADIUS, *METHODS]
        raise InvalidInput(f"Unknown method {method!r}.{nearest(method, names)}")
    lipschitz = (get(_LIPSCHITZ) if method == AUTO else None) if plain else get(method)
    if lipschitz is not None and lipschitz.proves == "lower":
        raise InvalidInput(f"{lipschitz.name} proves lower bounds only: take 'lbp', 'sdp' or another upper bound.")
    if not 0 < largest < float("inf") or steps < 1:
        raise InvalidInput("The largest radius must be positive and finite, and there must be at least one step.")
    if method == EXACT_RADIUS and not has_patterns(network):
        raise UnsupportedOperation("The exact radius needs ReLU-like activations: take 'alpha-crown' for smooth ones.")
    started, deadline = time.perf_counter(), Deadline.after(time_limit)
    points = as_batch(inputs, network, device=device, dtype=dtype)
    moved = network.to(points.device, points.dtype)
    with torch.no_grad():
        said = moved.forward(points).argmax(-1)
    chosen = said if labels is None else torch.as_tensor(labels).reshape(-1).to(points.device).expand(len(points))
    balls = Balls.of(moved, points, _rows(chosen, targets, network.out_size).to(points), Norm.parse(norm), clip)
    proved = _Proved(balls)
    with Ending() as ending:
        forward = Tightening(method) if method in FORWARD else Tightening.CROWN if not plain else Tightening.ALPHA_CROWN
        _forward(proved, forward, largest, 2 * steps, memory, deadline)
        if lipschitz is not None:
            _beside(proved, lipschitz, largest, steps, deadline)
        if method == EXACT_RADIUS:
            _exact(proved, largest, gap, deadline, memory)
    if ending.status is not Status.COMPLETE:
        proved.status = ending.status
    return proved.certificate(chosen, time.perf_counter() - started)


@dataclasses.dataclass(eq=False)
class _Proved:
    """What is proved so far; it stands whatever ends the run."""

    balls: Balls

    def __post_init__(self) -> None:
        self.radius = torch.zeros_like(self.balls.gaps[:, 0])
        self.upper = torch.full_like(self.radius, torch.inf)
        self.points = torch.full_like(self.balls.points, torch.nan, dtype=torch.float64)
        self.route = np.full(len(self.radius), Route.NONE, dtype=object)
        self.status = Status.COMPLETE

    def take(self, radius: Tensor, route: Route) -> None:
        """Take up radii (batch,) where they are larger."""
        better = radius > self.radius
        self.radius = torch.where(better, radius, self.radius)
        self.route[better.cpu().numpy()] = route

    def certificate(self, labels: Tensor, seconds: float) -> Certificate:
        balls = self.balls
        tensors = (self.radius, labels, balls.correct, balls.gaps.amin(-1), self.upper, self.points)
        radius, classes, correct, margin, upper, points = (t.cpu().numpy() for t in tensors)
        return Certificate(
            norm=balls.norm, radius=radius, labels=classes, correct=correct, margin=margin, route=self.route,
            upper=upper, points=points, status=self.status, seconds=seconds,
        )  # fmt: skip


def _forward(
    proved: _Proved, tightening: Tightening, largest: float, steps: int, memory: int, deadline: Deadline
) -> None:
    """Bounds of the margins; optimised slopes go on from those that CROWN takes."""
    balls = proved.balls
    cheap = Tightening.INTERVAL if tightening is Tightening.INTERVAL else Tightening.CROWN
    proved.take(crown_radius(balls, cheap, largest, _PASSES, memory, deadline), Route.FORWARD)
    if tightening is Tightening.ALPHA_CROWN:
        proved.take(optimised_radius(balls, proved.radius, largest, steps, memory, deadline), Route.FORWARD)
    if deadline.passed():
        proved.status = Status.TIME_LIMIT


def _beside(proved: _Proved, method: Method, largest: float, steps: int, deadline: Deadline) -> None:
    """Lipschitz constants, where they reach farther."""
    proved.take(lipschitz_radius(proved.balls, method, proved.radius, largest, steps, deadline), Route.LIPSCHITZ)
    if deadline.passed():
        proved.status = Status.TIME_LIMIT


def _exact(proved: _Proved, largest: float, gap: float, deadline: Deadline, memory: int) -> None:
    """The true radius of one example after another."""
    balls, open_ = proved.balls, False
    for b in balls.correct.nonzero().squeeze(-1).tolist():
        one = balls.select(torch.tensor([b], device=balls.points.device))
        waiting = int(balls.correct[b:].sum())
        end = Deadline.after(deadline.left / waiting)
        interval = exact_radius(one, float(proved.radius[b]), largest, gap, end, memory)
        if interval.lower > float(proved.radius[b]):
            proved.radius[b], proved.route[b] = interval.lower, Route.EXACT
        proved.upper[b] = interval.upper
        if interval.point is not None:
            proved.points[b] = torch.as_tensor(interval.point).to(proved.points)
        open_ |= min(interval.upper, largest) > float(proved.radius[b]) * (1 + 2 * gap)
        if interval.stop is Stop.INTERRUPTED:
            raise KeyboardInterrupt
    proved.status = Status.EXACT
    if open_:
        proved.status = Status.TIME_LIMIT if deadline.passed() else Status.NUMERICAL


def _rows(labels: Tensor, targets: int | Sequence[int] | None, outputs: int) -> Tensor:
    """The margins (batch, rows, outputs) of the labels over the targets.

    Raises:
        InvalidInput: classes that are not there, or a label that is the only target.
    """
    everything = margins(labels, outputs)
    if targets is None:
        return everything
    wanted = sorted(set(torch.as_tensor(targets).reshape(-1).tolist()))
    if not wanted or not 0 <= wanted[0] <= wanted[-1] < outputs:
        raise InvalidInput(f"Targets must lie in 0..{outputs - 1}; got {wanted}.")
    if any([label] == wanted for label in labels.tolist()):
        raise InvalidInput(f"Class {wanted[0]} is the only target and the class of an example: name another target.")
    parts = []
    for rows, label in zip(everything, labels.tolist(), strict=True):
        others = [j for j in wanted if j != label]
        picked = rows[[j - (j > label) for j in others]]
        # An example of a target's class has one row less: another one twice changes nothing.
        parts.append(torch.cat([picked, picked[:1].expand(len(wanted) - len(others), -1)]))
    return torch.stack(parts)
