"""Witnesses: points that attain a gradient norm, and their check, which no method shares."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lipcompare.errors import Contradiction
from lipcompare.network.graph import Network
from lipcompare.network.interval import Interval
from lipcompare.preactivation.interval import interval_bounds
from lipcompare.problem import Norm, Problem
from lipcompare.result import Witnesses


def gradient_norms(network: Network, functionals: Tensor, points: Tensor, norm: Norm) -> Tensor:
    """Dual norms of the gradients at points, as autograd takes them at kinks.

    Args:
        functionals: (..., outputs).
        points: (..., inputs); the leading axes of both broadcast.

    Returns:
        Tensor of the leading axes.
    """
    slopes = network.slopes(network.values(points))
    rows = functionals.expand(*torch.broadcast_shapes(functionals.shape[:-1], points.shape[:-1]), -1)
    return norm.dual.of(network.pull_back(slopes, rows))


def undecided(network: Network, points: Tensor) -> dict[int, Tensor]:
    """Neurons whose Clarke derivative at a point is not one number, up to rounding.

    The pre-activations of the point are enclosed by interval arithmetic that is rounded outward, so a neuron that is
    not reported has the same sign in exact arithmetic.

    Args:
        points: (n, inputs).

    Returns:
        Per activation node a mask (n, neurons); smooth activations are never undecided.
    """
    bounds = interval_bounds(network, Interval(points, points))
    masks: dict[int, Tensor] = {}
    for k, z in bounds.items():
        slope = network.activation(k).slope_range(z)
        kinked = network.activation(k).piecewise_linear
        masks[k] = (slope.upper > slope.lower) if kinked else torch.zeros_like(slope.upper, dtype=torch.bool)
    return masks


def make_witnesses(problem: Problem, points: Tensor, patterns: dict[int, Tensor] | None = None) -> Witnesses:
    """Witnesses at ``points`` (batch, rows, inputs).

    ``patterns``: slopes (batch, rows, neurons) per activation node where a kink is meant to take another slope than
    autograd's; ``None`` takes autograd's everywhere. Values are those of float64, where a neuron that single precision
    takes for a kink, or puts on the wrong side of one, has the slope that it really has.
    """
    network, rows = problem.network.to(problem.device, torch.float64), problem.functionals.double()
    points = points.double()
    plain = gradient_norms(network, rows, points, problem.norm)
    values = plain
    if patterns is not None and problem.dtype != torch.float64:
        slopes = network.slopes(network.values(points))
        free = undecided(network, points.reshape(-1, network.in_size))
        patterns = {
            k: torch.where(free[k].reshape(slopes[k].shape), pattern.double(), slopes[k])
            for k, pattern in patterns.items()
        }
    if patterns is not None:
        values = problem.norm.dual.of(network.pull_back(patterns, rows))
    at_kink = values > plain * (1 + 1e-9)
    values = torch.where(at_kink, values, plain)
    kept = None
    if patterns is not None and bool(at_kink.any()):
        kept = {k: _numpy(v.expand(*values.shape, -1)) for k, v in patterns.items()}
    return Witnesses(_numpy(points), _numpy(values), at_kink.cpu().numpy(), kept)


def better_witnesses(problem: Problem, first: Witnesses, second: Witnesses) -> Witnesses:
    """The witness of larger value for every example and row (``first`` on ties)."""
    take = second.values > first.values
    points = np.where(take[..., None], second.points, first.points)
    if first.patterns is None and second.patterns is None:
        patterns = None
    else:
        one, two = (w.patterns or _patterns(problem, w.points) for w in (first, second))
        patterns = {k: np.where(take[..., None], two[k], one[k]) for k in one}
    return Witnesses(
        points, np.where(take, second.values, first.values), np.where(take, second.at_kink, first.at_kink), patterns
    )


def _patterns(problem: Problem, points: np.ndarray) -> dict[int, np.ndarray]:
    """Slopes that autograd takes at the points."""
    x = torch.as_tensor(points).to(problem.box.lower)
    return {k: _numpy(v) for k, v in problem.network.slopes(problem.network.values(x)).items()}


def check_witnesses(problem: Problem, witnesses: Witnesses) -> np.ndarray:
    """Recompute every witness in float64 and return what it really attains, (batch, rows).

    Each point must lie in its box, and a pattern that differs from autograd's at the point may do so only at neurons
    whose pre-activation vanishes there up to rounding.

    Raises:
        Contradiction: a witness does not attain the value that was claimed for it.
    """
    network = problem.network.to("cpu", torch.float64)
    rows = problem.functionals.cpu().double()
    points = torch.as_tensor(witnesses.points, dtype=torch.float64)
    if not bool(problem.box.contains(points).all()):
        raise Contradiction("A witness lies outside its box.")
    slopes = network.slopes(network.values(points))
    values = problem.norm.dual.of(network.pull_back(slopes, rows))
    if witnesses.patterns is not None:
        flat = points.reshape(-1, network.in_size)
        free = undecided(network, flat)
        for k, pattern in witnesses.patterns.items():
            claimed = torch.as_tensor(pattern, dtype=torch.float64)
            limits = network.activation(k).slope_range(
                Interval(*(v.new_full(v.shape, s) for v, s in ((claimed, -torch.inf), (claimed, torch.inf))))
            )
            moved = (claimed != slopes[k]) & torch.as_tensor(witnesses.at_kink).unsqueeze(-1)
            allowed = free[k].reshape(claimed.shape) & (claimed >= limits.lower) & (claimed <= limits.upper)
            if bool((moved & ~allowed).any()):
                raise Contradiction("A witness takes a slope that no point near it has.")
            slopes[k] = torch.where(moved, claimed, slopes[k])
        kinked = problem.norm.dual.of(network.pull_back(slopes, rows))
        values = torch.where(torch.as_tensor(witnesses.at_kink), kinked, values)
    attained = values.numpy()
    # The claim may stem from single precision; more than its rounding means that the witness is wrong.
    slack = 1e-9 if problem.dtype == torch.float64 else 1e-3
    if bool((attained < witnesses.values * (1 - slack) - slack).any()):
        worst = float((witnesses.values - attained).max())
        raise Contradiction(f"A witness attains less than was claimed for it, by {worst:g}.")
    return attained


def _numpy(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().cpu().double().numpy()
    return array
