"""Where a search starts: the problem in float64, bounds over the whole box, and points to beat."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch

from lipcompare.attack.search import Effort, kink_patterns, search
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.driver import Found
from lipcompare.jacobian import GateRelaxation
from lipcompare.network.interval import Interval
from lipcompare.preactivation import Tightening
from lipcompare.problem import Box, Problem
from lipcompare.propagation import propagate


def in_double(problem: Problem) -> Problem:
    """The problem in float64: an exact value is no use below its own rounding."""
    box = Box(problem.box.lower.double(), problem.box.upper.double())
    return dataclasses.replace(problem, box=box, functionals=problem.functionals.double())


def root_bounds(
    problem: Problem, tightening: Tightening, memory: int, seconds: float = float("inf")
) -> tuple[dict[int, Interval], np.ndarray]:
    """Pre-activation bounds over one example's box, and the linear bound (rows,) that they give.

    ``seconds``: time for refining intervals.
    """
    linear = propagate(problem, tightening, GateRelaxation.CHORDS, joint=True, memory=memory, seconds=seconds)
    upper: np.ndarray = linear.upper[0].cpu().numpy()
    return dict(linear.bounds), upper


def first_points(problem: Problem, seed: int, keep_going: Callable[[], bool], memory: int) -> list[Found]:
    """One point per row of large gradient norm, with the slopes that give it."""
    points = search(problem, Effort(), seed=seed, keep_going=keep_going, memory=memory)
    return attained(problem, points)


def attained(problem: Problem, points: torch.Tensor) -> list[Found]:
    """What one point per row (1, rows, inputs) attains, kinks used to advantage."""
    network = problem.network
    slopes = kink_patterns(problem, points)
    if slopes is None:
        slopes = network.slopes(network.values(points))
    values = problem.norm.dual.of(network.pull_back(slopes, problem.functionals))[0].tolist()
    flat = Numbering(network).join(slopes)[0].cpu().numpy()
    return [
        Found(row, value, point, pattern)
        for row, (value, point, pattern) in enumerate(zip(values, points[0].cpu().numpy(), flat, strict=True))
    ]
