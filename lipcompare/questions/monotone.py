"""Is the network monotone in some of its inputs over a domain?"""

from __future__ import annotations

import dataclasses
import enum
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lipcompare.budget import Copies, Deadline, core_seconds, fitting, tensor_bytes
from lipcompare.errors import Contradiction, InvalidInput, known_keywords
from lipcompare.gates import Gates
from lipcompare.jacobian import interval_gradient
from lipcompare.network.environment import computing
from lipcompare.network.interval import Interval
from lipcompare.preactivation import Tightening, interval_bounds
from lipcompare.problem import Problem
from lipcompare.questions.ending import Ending
from lipcompare.questions.entries import directional_bounds
from lipcompare.questions.halving import HALVINGS, halved
from lipcompare.result import Status

_FEW = 4
"""Points that are looked at in any case."""
_BOUNDING, _LOOKING = 0.6, 0.5
"""Shares of the time that is left for bounds over the domain, and then for points to look at; the rest proves signs at
those."""
_TOGETHER = 0.1
"""Seconds of a processor that points of one pass should take: no clock is looked at meanwhile."""
_PROVING = 4
"""Passes that an interval of derivatives at a point takes as much as: both ends of values and of gradients."""


class Direction(enum.Enum):
    """What is known about a functional and an input; the value is the sentence a person reads."""

    INCREASING = "Proved: it never decreases in this input."
    DECREASING = "Proved: it never increases in this input."
    CONSTANT = "Proved: it does not depend on this input."
    NEITHER = "It increases at one point and decreases at another; both are given."
    UNDECIDED = "Not proved, and no counterexample found."


@dataclasses.dataclass(frozen=True, eq=False)
class Monotonicity:
    """The answer for every domain, functional and feature; arrays of shape (batch, rows, features).

    Attributes:
        directions: one :class:`Direction` each.
        lower, upper: bounds on the derivative.
        rising, falling: points (batch, rows, features, inputs) where the derivative was seen largest and smallest.
        seen_lower, seen_upper: the derivatives there.
        status: why it ended; what is proved by then stands.
    """

    features: tuple[int, ...]
    directions: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    rising: np.ndarray
    falling: np.ndarray
    seen_lower: np.ndarray
    seen_upper: np.ndarray
    status: Status = Status.COMPLETE

    def share(self, direction: Direction) -> np.ndarray:
        """Per feature the share of examples and rows with this answer; constants count as both kinds of monotone."""
        kinds = {direction}
        if direction in (Direction.INCREASING, Direction.DECREASING):
            kinds.add(Direction.CONSTANT)
        hits = np.vectorize(lambda d: d in kinds, otypes=[float])(self.directions)
        result: np.ndarray = hits.mean(axis=(0, 1))
        return result


@known_keywords
@computing()
def monotonicity(
    problem: Problem,
    features: Sequence[int] | None = None,
    relaxation: str = "lbp",
    *,
    tightening: Tightening = Tightening.ALPHA_CROWN,
    samples: int = 128,
    halvings: int = HALVINGS,
    seed: int = 0,
    time_limit: float = float("inf"),
    memory: int = 2**30,
) -> Monotonicity:
    """Decide for every functional of the problem whether it is monotone in the chosen inputs over each domain.

    Increasing is proved where the lower bound of the derivative is not negative (as in the paper's study), decreasing
    where the upper bound is not positive. Bounds are rounded outward, and exactly 0 where no path is open, so that a
    derivative of which rounding hides the sign stays undecided. Points that are given as counterexamples have their
    signs proved too. Boxes in which a single input moves are halved until the sign is proved, or the pieces are tiny.

    Args:
        features: indices of inputs (all of them by default).
        samples: points at which counterexamples are looked for.
        halvings: how often a box in which one input moves may be halved; 0 leaves the bounds over whole boxes.
        time_limit: seconds, after which bounds are left as loose as they are and few points are looked at.
    """
    inputs = problem.network.in_size
    chosen = tuple(range(inputs)) if features is None else tuple(int(f) for f in features)
    if not chosen or any(not 0 <= f < inputs for f in chosen):
        raise InvalidInput(f"Features are indices 0..{inputs - 1}; got {list(chosen)}.")
    deadline = Deadline.after(time_limit)
    axes = torch.eye(inputs, dtype=problem.dtype, device=problem.device)[list(chosen)]
    seen = _extremes(problem, chosen, _FEW, seed, memory, Deadline())
    least, most = np.full(seen.low.shape, -np.inf), np.full(seen.low.shape, np.inf)
    share = _BOUNDING * deadline.left
    bounds = directional_bounds(problem, axes, relaxation, tightening=tightening, time_limit=share, memory=memory)
    status = bounds.status
    if status in (Status.COMPLETE, Status.TIME_LIMIT):
        looking = Deadline.after(_LOOKING * deadline.left)
        with Ending(deadline) as ending:
            if not looking.passed():
                seen = _extremes(problem, chosen, samples, seed, memory, looking)
            least, _ = _at(problem, chosen, seen.highest, memory, deadline)
            _, most = _at(problem, chosen, seen.lowest, memory, deadline)
        late = Status.TIME_LIMIT if looking.missed else status
        status = late if ending.status is Status.COMPLETE else ending.status
    if status is Status.COMPLETE:
        both = (least > 0) & (most < 0)
        with Ending() as ending:
            bounds = halved(problem, axes, relaxation, bounds, both, halvings, deadline=deadline, memory=memory)
        status = bounds.status if ending.status is Status.COMPLETE else ending.status
    if bool(((least > bounds.upper) | (most < bounds.lower)).any()):
        raise Contradiction("A derivative lies outside its bounds: a bug, please report it with the model.")
    increasing, decreasing = bounds.lower >= 0, bounds.upper <= 0
    answer = np.full(increasing.shape, Direction.UNDECIDED, dtype=object)
    answer[(least > 0) & (most < 0)] = Direction.NEITHER
    answer[increasing] = Direction.INCREASING
    answer[decreasing] = Direction.DECREASING
    answer[increasing & decreasing] = Direction.CONSTANT
    return Monotonicity(
        features=chosen, directions=answer, lower=bounds.lower, upper=bounds.upper, rising=seen.highest,
        falling=seen.lowest, seen_lower=seen.low, seen_upper=seen.high, status=status,
    )  # fmt: skip


class _Seen(NamedTuple):
    """Smallest and largest derivative seen (batch, rows, features), and where, with the inputs as another axis."""

    low: np.ndarray
    high: np.ndarray
    highest: np.ndarray
    lowest: np.ndarray


def _extremes(
    problem: Problem, features: Sequence[int], samples: int, seed: int, memory: int, deadline: Deadline
) -> _Seen:
    """Derivatives at random points; when ``deadline`` has passed, at the first of them, some of every domain."""
    random = torch.Generator().manual_seed(seed)
    network = problem.network
    unit = torch.rand(samples, network.in_size, generator=random, dtype=torch.float64)
    # The diagonal too: over a domain in which one input moves it is a grid.
    half = samples // 2
    unit[:half] = torch.linspace(0, 1, half, dtype=torch.float64).unsqueeze(-1)
    each = tensor_bytes(Copies.SAMPLE, problem.rows * network.widest, unit)
    examples = fitting(memory, _FEW * each)
    chunks = []
    for start in range(0, problem.batch, examples):
        chunk = problem.slice(start, min(start + examples, problem.batch))
        at_once = min(fitting(memory, chunk.batch * each), _in_time(chunk, chunk.batch * (1 + problem.rows)))
        lower, upper = (v.unsqueeze(1) for v in chunk.box.window)
        extremes: _Extremes | None = None
        for start_sample in range(0, samples, at_once):
            if extremes is not None and deadline.passed():
                break
            some = unit[start_sample : start_sample + at_once].to(lower)
            further = _extremes_at(chunk, features, chunk.box.clamp(lower + some * (upper - lower)), start_sample)
            extremes = further if extremes is None else extremes.further(further)
        assert extremes is not None
        points = chunk.box.clamp(lower + unit.to(lower) * (upper - lower))  # (batch, samples, inputs)
        where = [_taken(points, index) for index in (extremes.highest, extremes.lowest)]
        chunks.append((extremes.low, extremes.high, *where))
    return _Seen(*(torch.cat(p).cpu().double().numpy() for p in zip(*chunks, strict=True)))


def _taken(points: Tensor, index: Tensor) -> Tensor:
    """Points (batch, rows, features, inputs) of samples (batch, samples, inputs), by number (batch, rows, features)."""
    flat = index.flatten(1).unsqueeze(-1).expand(-1, -1, points.shape[-1])
    taken: Tensor = points.gather(1, flat).unflatten(1, index.shape[1:])
    return taken


def _in_time(problem: Problem, passes: int) -> int:
    """How many points of so many passes each to look at before the clock is asked; at least one."""
    each = core_seconds(float(passes) * problem.network.products, problem.device)
    return max(1, int(_TOGETHER / each)) if each else sys.maxsize


class _Extremes(NamedTuple):
    """Smallest and largest derivative (batch, rows, features), and the samples where they are, by number."""

    low: Tensor
    high: Tensor
    highest: Tensor
    lowest: Tensor

    def further(self, later: _Extremes) -> _Extremes:
        """Those of both; of the earlier samples where they are equal."""
        down, up = later.low < self.low, later.high > self.high
        return _Extremes(
            torch.where(down, later.low, self.low),
            torch.where(up, later.high, self.high),
            torch.where(up, later.highest, self.highest),
            torch.where(down, later.lowest, self.lowest),
        )


def _at(
    problem: Problem, features: Sequence[int], points: np.ndarray, memory: int, deadline: Deadline
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (batch, rows, features) on the derivative with respect to each feature at a point of its own, in float64;
    infinite for those that ``deadline`` left out.

    Args:
        points: (batch, rows, features, inputs).
    """
    network = problem.network.to(problem.device, torch.float64)
    x = torch.as_tensor(points, device=problem.device, dtype=torch.float64)
    rows = problem.functionals.double().unsqueeze(2).expand(*x.shape[:3], -1).flatten(0, 2).unsqueeze(1)
    entry = torch.tensor(list(features), device=x.device).expand(x.shape[:3]).flatten()
    each = tensor_bytes(Copies.EXAMPLE, network.widest, x)
    least, most = x.new_full((len(entry),), -torch.inf), x.new_full((len(entry),), torch.inf)
    at_once = min(fitting(memory, each), _in_time(problem, _PROVING))
    for some in torch.arange(len(entry), device=x.device).split(at_once):
        if deadline.passed():
            break
        flat = x.flatten(0, 2)[some]
        with torch.no_grad():
            gates = Gates.from_preactivations(network, interval_bounds(network, Interval(flat, flat)))
            gradient = interval_gradient(network, gates, rows[some])
        chosen = entry[some].reshape(-1, 1, 1)
        least[some], most[some] = (end.gather(-1, chosen).flatten() for end in gradient)
    low, high = (end.reshape(x.shape[:3]).cpu().numpy() for end in (least, most))
    return low, high


def _extremes_at(problem: Problem, features: Sequence[int], points: Tensor, first: int) -> _Extremes:
    """Of given points (batch, samples, inputs), of which the first has this number."""
    network = problem.network
    with torch.no_grad():
        slopes = {k: v.unsqueeze(2) for k, v in network.slopes(network.values(points)).items()}
        rows = problem.functionals.unsqueeze(1).expand(*points.shape[:2], -1, -1)
        entries = network.pull_back(slopes, rows)[..., list(features)]  # (batch, samples, rows, features)
    lowest, highest = entries.argmin(1), entries.argmax(1)
    low, high = (entries.gather(1, index.unsqueeze(1)).squeeze(1) for index in (lowest, highest))
    return _Extremes(low, high, highest + first, lowest + first)
