"""Where a search starts: bounds over the whole box, and points to beat."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from lipcompare.attack.search import SHORT, Effort, kink_patterns, search
from lipcompare.budget import Deadline
from lipcompare.gates import PreactivationBounds, has_patterns
from lipcompare.jacobian import RELAXATIONS
from lipcompare.network.interval import Interval
from lipcompare.preactivation import Tightening
from lipcompare.preactivation.settle import settle, worthwhile
from lipcompare.problem import Problem
from lipcompare.propagation import Propagated, propagate
from lipcompare.result import Witness
from lipcompare.witness import make_witnesses

LBP = "lbp"
"""The relaxation of the bounds over whole boxes."""


def root_bounds(
    problem: Problem, tightening: Tightening, memory: int, seconds: float = float("inf")
) -> tuple[dict[int, Interval], np.ndarray]:
    """Pre-activation bounds over one example's box, and the linear bound (rows,) that they give.

    ``seconds``: time for refining intervals.
    """
    linear = whole_box(problem, tightening, memory, seconds)
    upper: np.ndarray = linear.upper[0].cpu().numpy()
    return dict(linear.bounds), upper


def whole_box(
    problem: Problem,
    tightening: Tightening,
    memory: int,
    seconds: float = float("inf"),
    report: Callable[[torch.Tensor], None] = lambda upper: None,
) -> Propagated:
    """Bound propagation over one example's box; ``seconds``: time for refining intervals.

    ``report`` is given bounds (1, rows) on the way, where there are any.
    """
    return propagate(problem, tightening, RELAXATIONS[LBP], joint=True, memory=memory, seconds=seconds, report=report)


_SETTLE = 0.2
"""At most of the time for proving the signs of hidden neurons; on the reference networks it is over long before."""


def settled(
    problem: Problem,
    bounds: PreactivationBounds,
    memory: int,
    seconds: float = float("inf"),
    keep: Callable[[int, list[int]], None] | None = None,
) -> PreactivationBounds:
    """Tighter bounds over one example's box where the signs of hidden neurons can be proved by halving it.

    ``seconds``: what is left of the example's time, of which a share is spent; ``keep``: see :func:`settle`.
    """
    box = problem.box.interval
    inputs = Interval(box.lower[0], box.upper[0])
    if not has_patterns(problem.network) or not worthwhile(problem.network, inputs, bounds):
        return bounds
    deadline = Deadline.after(_SETTLE * seconds)
    return settle(problem.network, inputs, bounds, memory=memory, deadline=deadline, keep=keep)


def first_points(problem: Problem, seed: int, deadline: Deadline, memory: int) -> list[Witness]:
    """One point per row of large gradient norm; patterns are searched by branch and bound itself."""
    effort = SHORT if has_patterns(problem.network) else Effort()
    return attained(problem, search(problem, effort, seed=seed, deadline=deadline, memory=memory), deadline)


def attained(problem: Problem, points: torch.Tensor, deadline: Deadline | None = None) -> list[Witness]:
    """What one point per row (1, rows, inputs) attains, kinks used to advantage."""
    return make_witnesses(problem, points, kink_patterns(problem, points, deadline)).example(0)
