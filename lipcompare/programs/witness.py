"""From a point and an activation pattern, as a solver gives them, to a witness that holds in exact arithmetic."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lipcompare.gates import Gates
from lipcompare.network.interval import Interval
from lipcompare.problem import Problem
from lipcompare.regions.pieces import affine_pieces, halfspaces, interior_point
from lipcompare.result import Witnesses
from lipcompare.witness import gradient_norms, make_witnesses, undecided

Pattern = Mapping[int, NDArray[np.bool_]]
"""Which neurons take the upper end of their slope range, (neurons,) per activation node."""


@dataclasses.dataclass(frozen=True, eq=False)
class Attained:
    """A point with its gradient norm; ``slopes`` (neurons,) per node are given where the point lies on a kink."""

    point: Tensor  # (inputs,)
    value: float
    slopes: Mapping[int, Tensor] | None = None


def pattern_slopes(gates: Gates, pattern: Pattern) -> dict[int, Tensor]:
    """Slopes (neurons,) of one example's pattern; ``gates`` has a batch of 1."""
    return {
        k: torch.where(torch.from_numpy(pattern[k].copy()), s.upper[0], s.lower[0]) for k, s in gates.slopes.items()
    }


def attain(problem: Problem, gates: Gates, row: int, x: np.ndarray, pattern: Pattern) -> Attained | None:
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
        return Attained(point, float(gradient_norms(network, functional, point, problem.norm)))
    slopes = pattern_slopes(gates, pattern)
    open_ = {k: gates.unstable(k)[0] for k in gates.slopes}
    active = {k: torch.from_numpy(pattern[k].copy()) for k in gates.slopes}
    value = float(problem.norm.dual.of(network.pull_back(slopes, functional)))
    found = interior_point(halfspaces(affine_pieces(network, slopes), active, open_, box), box)
    if found is not None:
        point = torch.from_numpy(found[0])
        return Attained(point, float(gradient_norms(network, functional, point, problem.norm)))
    for candidate in _candidates(x, box):
        if _valid(problem, slopes, candidate):
            return Attained(candidate, value, slopes)
    return None


def _candidates(x: np.ndarray, box: Interval) -> Iterator[Tensor]:
    for decimals in (17, 12, 9, 6, 4):
        point = torch.from_numpy(x.round(decimals))
        yield torch.minimum(torch.maximum(point, box.lower), box.upper)


def _valid(problem: Problem, slopes: Mapping[int, Tensor], point: Tensor) -> bool:
    """Whether every neuron takes its slope at the point or has a pre-activation that vanishes there."""
    network = problem.network
    free = undecided(network, point.unsqueeze(0))
    here = network.slopes(network.values(point))
    return all(bool(((here[k] == slopes[k]) | free[k][0]).all()) for k in slopes)


def as_witnesses(problem: Problem, found: list[list[Attained]]) -> Witnesses:
    """Witnesses of a batch from what was attained per example and row."""
    points = torch.stack([torch.stack([a.point for a in rows]) for rows in found])
    patterns = None
    if any(a.slopes is not None for rows in found for a in rows):
        patterns = problem.network.slopes(problem.network.values(points))
        for b, rows in enumerate(found):
            for row, attained in enumerate(rows):
                if attained.slopes is not None:
                    for k, slopes in attained.slopes.items():
                        patterns[k][b, row] = slopes
    return make_witnesses(problem, points, patterns)
