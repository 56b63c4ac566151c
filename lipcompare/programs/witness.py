"""From a point and an activation pattern, as a solver gives them, to a witness that holds in exact arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lipcompare.gates import Gates
from lipcompare.network.interval import Interval
from lipcompare.problem import Problem
from lipcompare.regions.program import deepest, regions_of
from lipcompare.result import Witness
from lipcompare.witness import clarke, gradient_norms

Pattern = Mapping[int, NDArray[np.bool_]]
"""Which neurons take the upper end of their slope range, (neurons,) per activation node."""


def pattern_slopes(gates: Gates, pattern: Pattern) -> dict[int, Tensor]:
    """Slopes (neurons,) of one example's pattern; ``gates`` has a batch of 1."""
    return {
        k: torch.where(torch.from_numpy(pattern[k].copy()), s.upper[0], s.lower[0]) for k, s in gates.slopes.items()
    }


def attain(problem: Problem, gates: Gates, row: int, x: np.ndarray, pattern: Pattern) -> Witness | None:
    """The best that can be verified of a pattern near ``x``: strictly inside its region, else on its kinks.

    Solvers' points violate constraints by their tolerance, so a pattern is first given a new point, the one deepest
    inside its region. A region without interior is tried at ``x`` itself and at rounded copies of it.

    Args:
        problem, gates: one example (batch 1), float64 on the CPU.
        x: (inputs,).
    """
    network, box = problem.network, Interval(problem.box.lower[0], problem.box.upper[0])
    functional = problem.functionals[0, row]
    if not gates.slopes:
        point = torch.from_numpy(x.copy())
        return Witness(row, float(gradient_norms(network, functional, point, problem.norm)), x)
    slopes = pattern_slopes(gates, pattern)
    open_ = gates.undecided()
    active = {k: torch.from_numpy(pattern[k].copy()) for k in gates.slopes}
    value = float(problem.norm.dual.of(network.pull_back(slopes, functional)))
    one, sides = ({k: v.unsqueeze(0) for k, v in some.items()} for some in (slopes, active))
    (located,) = deepest(regions_of(network, problem.box.interval, one, sides, open_))
    inside = located.inside
    if inside is not None:
        value = float(gradient_norms(network, functional, torch.from_numpy(inside), problem.norm))
        return Witness(row, value, inside)
    for candidate in _candidates(x, box):
        if _valid(problem, slopes, candidate):
            return Witness(row, value, candidate.numpy(), torch.cat([slopes[k] for k in slopes]).numpy())
    return None


def _candidates(x: np.ndarray, box: Interval) -> Iterator[Tensor]:
    for decimals in (17, 12, 9, 6, 4):
        point = torch.from_numpy(x.round(decimals))
        yield torch.minimum(torch.maximum(point, box.lower), box.upper)


def _valid(problem: Problem, slopes: Mapping[int, Tensor], point: Tensor) -> bool:
    """Whether every neuron has its slope at the point, or a pre-activation that is 0 there."""
    at = clarke(problem.network, point.unsqueeze(0))
    return all(bool((((at.slopes[k][0] == slopes[k]) & ~at.doubtful[k][0]) | at.kinks[k][0]).all()) for k in slopes)
