"""Lower bounds on operator norms: points where the Jacobian is large, and what is proved there."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lipcompare.attack.search import Effort, kink_patterns, search
from lipcompare.budget import Deadline
from lipcompare.domain import Norm
from lipcompare.gates import Gates, by_node
from lipcompare.jacobian import interval_gradient
from lipcompare.jacobian.norms import spectral_norm
from lipcompare.network.interval import Interval
from lipcompare.preactivation import interval_bounds
from lipcompare.problem import Problem
from lipcompare.rounding import lowered, raised
from lipcompare.witness import clarke


def search_norms(
    problem: Problem, norm: Norm, effort: Effort, seed: int, memory: int, deadline: Deadline
) -> tuple[Tensor, Tensor, Tensor]:
    """The largest operator norm found (batch,), where (batch, inputs), and whether at a kink (batch,).

    The points are those where single rows are large; for p = 1 and 2 a local search then follows the norm itself.
    """
    starts = search(problem, effort, seed=seed, memory=memory, deadline=deadline)  # (batch, rows, inputs)
    center = problem.box.clamp(problem.box.window.center.unsqueeze(1))
    points = torch.cat([center, starts], 1)
    values = _norms_at(problem, points, norm)
    random = torch.Generator().manual_seed(seed)
    radius = problem.box.window.radius.unsqueeze(1)
    rounds = effort.scaled(problem.network, problem.network.out_size).rounds
    for _ in range(rounds):
        if deadline.passed():
            break
        size = 10.0 ** (-3 * torch.rand(points.shape[1], 1, generator=random, dtype=torch.float64))
        step = torch.randn(points.shape[1:], generator=random, dtype=torch.float64) * size
        moved = problem.box.clamp(points + radius * step.to(points))
        found = _norms_at(problem, moved, norm)
        better = found > values
        points = torch.where(better.unsqueeze(-1), moved, points)
        values = torch.where(better, found, values)
    best = values.argmax(1, keepdim=True)
    where = points.gather(1, best.unsqueeze(-1).expand(-1, -1, points.shape[-1])).squeeze(1)
    value = values.gather(1, best).squeeze(1)
    value, middle = _proved(problem, where, None, norm), center.squeeze(1)
    kinked = _at_center(problem, middle, norm)
    at_kink = kinked > value
    where = torch.where(at_kink.unsqueeze(-1), middle, where)
    return torch.maximum(value, kinked), where, at_kink


def _at_center(problem: Problem, centers: Tensor, norm: Norm) -> Tensor:
    """The norm (batch,) at the centre with the patterns of its kinks, 0 if it has none: a lower bound in float64."""
    patterns = kink_patterns(problem, centers.unsqueeze(1).expand(-1, problem.rows, -1))
    best = centers.new_zeros(len(centers), dtype=torch.float64)
    for row in range(problem.rows if patterns is not None else 0):
        slopes = {k: v[:, row] for k, v in (patterns or {}).items()}
        best = torch.maximum(best, _proved(problem, centers, slopes, norm))
    return best


def attained_norm(problem: Problem, point: np.ndarray, slopes: np.ndarray | None) -> float:
    """A lower bound in real numbers on the norm of one example at a point, with slopes (neurons,) where it has a kink.

    As the slopes of a kink are chosen there, so they are where no choice is given: as autograd takes them.
    """
    x = torch.from_numpy(point).to(problem.device).unsqueeze(0)
    if slopes is None:
        pattern = clarke(problem.network.to(problem.device, torch.float64), x).slopes
    else:
        pattern = {k: v.unsqueeze(0) for k, v in by_node(problem.network, torch.from_numpy(slopes).to(x)).items()}
    return float(_proved(problem, x, pattern, problem.norm))


def _proved(problem: Problem, points: Tensor, pattern: dict[int, Tensor] | None, norm: Norm) -> Tensor:
    """Lower bounds (batch,) on the norm at points (batch, inputs) of the domain, in float64.

    The Jacobian there is enclosed; ``pattern`` chooses the slopes (batch, neurons) of neurons that are exactly at a
    kink. Of an enclosure with centre ``C`` and radius ``R``, the spectral norm is at least ``||C|| - ||R||``.
    """
    network, x = problem.network.to(problem.device, torch.float64), points.double()
    slopes = Gates.from_preactivations(network, interval_bounds(network, Interval(x, x))).slopes
    if pattern is not None:
        kinks = clarke(network, x).kinks
        chosen = {k: Interval(pattern[k].double(), pattern[k].double()) for k in kinks}
        slopes = {**slopes, **{k: chosen[k].select(kinks[k], slopes[k]) for k in kinks}}
    entries = interval_gradient(network, Gates(slopes), problem.functionals.double())
    if norm is not Norm.TWO:
        least = torch.maximum(entries.lower, -entries.upper).clamp(min=0)
        return lowered(matrix_norm(least, norm), sum(least.shape[-2:]))
    radius = raised(torch.maximum(entries.upper - entries.center, entries.center - entries.lower), 1)
    size = sum(radius.shape[-2:])
    return lowered((lowered(matrix_norm(entries.center, norm), 8 * size) - spectral_norm(radius)).clamp(min=0), 1)


def _norms_at(problem: Problem, points: Tensor, norm: Norm) -> Tensor:
    """Operator norms (batch, k) of the Jacobian at points (batch, k, inputs)."""
    slopes = problem.network.slopes(problem.network.values(points))
    slopes = {k: v.unsqueeze(2) for k, v in slopes.items()}
    rows = problem.functionals.unsqueeze(1).expand(*points.shape[:2], -1, -1)
    return matrix_norm(problem.network.pull_back(slopes, rows), norm)


def matrix_norm(matrices: Tensor, norm: Norm) -> Tensor:
    """Operator norm ``p -> p`` of matrices (..., outputs, inputs); for p = 2, 0 where an entry is not finite."""
    if norm is Norm.TWO:
        finite = matrices.isfinite().all(-1).all(-1)
        largest = torch.linalg.matrix_norm(torch.where(finite[..., None, None], matrices, 0.0), ord=2)
        return torch.where(finite, largest, 0.0)
    return matrices.abs().sum(-1 if norm is Norm.INF else -2).amax(-1)
