"""Is the network monotone in some of its inputs over a domain?"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lipcompare.budget import Copies, Deadline, fitting, tensor_bytes
from lipcompare.errors import Contradiction, InvalidInput
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
    low, high, highest, lowest = _extremes(problem, chosen, _FEW, seed, memory)
    least, most = np.full(low.shape, -np.inf), np.full(low.shape, np.inf)
    bounds = directional_bounds(problem, axes, relaxation, tightening=tightening, time_limit=time_limit, memory=memory)
    status = bounds.status
    if status in (Status.COMPLETE, Status.TIME_LIMIT):
        with Ending() as ending:
            if status is Status.COMPLETE:
                low, high, highest, lowest = _extremes(problem, chosen, samples, seed, memory)
            least, _ = _at(problem, chosen, highest, memory)
            _, most = _at(problem, chosen, lowest, memory)
        status = status if ending.status is Status.COMPLETE else ending.status
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
        features=chosen, directions=answer, lower=bounds.lower, upper=bounds.upper, rising=highest, falling=lowest,
        seen_lower=low, seen_upper=high, status=status,
    )  # fmt: skip


def _extremes(
    problem: Problem, features: Sequence[int], samples: int, seed: int, memory: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Smallest and largest derivative seen (batch, rows, features), and where they were seen: largest, smallest."""
    random = torch.Generator().manual_seed(seed)
    inputs = problem.network.in_size
    unit = torch.rand(samples, inputs, generator=random, dtype=torch.float64)
    # The diagonal too: over a domain in which one input moves it is a grid.
    half = samples // 2
    unit[:half] = torch.linspace(0, 1, half, dtype=torch.float64).unsqueeze(-1)
    entries = samples * problem.rows * problem.network.widest
    each = fitting(memory, tensor_bytes(Copies.SAMPLE, entries, unit))
    parts = []
    for start in range(0, problem.batch, each):
        part = problem.slice(start, min(start + each, problem.batch))
        lower, upper = (v.unsqueeze(1) for v in part.box.window)
        points = part.box.clamp(lower + unit.to(lower) * (upper - lower))
        parts.append(_extremes_at(part, features, points))
    low, high, highest, lowest = (torch.cat(p).cpu().double().numpy() for p in zip(*parts, strict=True))
    return low, high, highest, lowest


def _at(problem: Problem, features: Sequence[int], points: np.ndarray, memory: int) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (batch, rows, features) on the derivative with respect to each feature at a point of its own, in float64.

    Args:
        points: (batch, rows, features, inputs).
    """
    network = problem.network.to(problem.device, torch.float64)
    x = torch.as_tensor(points, device=problem.device, dtype=torch.float64)
    rows = problem.functionals.double().unsqueeze(2).expand(*x.shape[:3], -1).flatten(0, 2).unsqueeze(1)
    entry = torch.tensor(list(features), device=x.device).expand(x.shape[:3]).flatten()
    each = tensor_bytes(Copies.EXAMPLE, network.widest, x)
    parts = []
    for some in torch.arange(len(entry), device=x.device).split(fitting(memory, each)):
        flat = x.flatten(0, 2)[some]
        with torch.no_grad():
            gates = Gates.from_preactivations(network, interval_bounds(network, Interval(flat, flat)))
            gradient = interval_gradient(network, gates, rows[some])
        chosen = entry[some].reshape(-1, 1, 1)
        parts.append([end.gather(-1, chosen).flatten() for end in gradient])
    least, most = (torch.cat(part).reshape(x.shape[:3]).cpu().numpy() for part in zip(*parts, strict=True))
    return least, most


def _extremes_at(problem: Problem, features: Sequence[int], points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same at given points (batch, samples, inputs)."""
    network = problem.network
    with torch.no_grad():
        slopes = {k: v.unsqueeze(2) for k, v in network.slopes(network.values(points)).items()}
        rows = problem.functionals.unsqueeze(1).expand(*points.shape[:2], -1, -1)
        entries = network.pull_back(slopes, rows)[..., list(features)]  # (batch, samples, rows, features)
    found = []
    for extreme in (entries.argmin(1), entries.argmax(1)):
        value = entries.gather(1, extreme.unsqueeze(1)).squeeze(1)
        index = extreme.flatten(1).unsqueeze(-1).expand(-1, -1, points.shape[-1])
        found.append((value, points.gather(1, index).unflatten(1, extreme.shape[1:])))
    (low, lowest), (high, highest) = found
    return low, high, highest, lowest
