"""Witnesses: points that attain a gradient norm, and their check, which no method shares.

A value counts for the network in real numbers. Where intervals around the pre-activations of a point leave a sign open,
exact arithmetic decides it; where that is out of reach both slopes are allowed for. And the value of a witness is
reported less what rounding may have added to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lipcompare.errors import Contradiction
from lipcompare.gates import by_node
from lipcompare.network.activations import LeakyReLU
from lipcompare.network.exact import UNKNOWN, Exact, TooLarge
from lipcompare.network.graph import Activate, Affine, Network, fold_backward
from lipcompare.network.interval import Interval
from lipcompare.network.linear_maps import LinearMap
from lipcompare.preactivation.interval import interval_bounds
from lipcompare.problem import Norm, Problem
from lipcompare.result import Attained, Witnesses
from lipcompare.rounding import TIE, allowance, floor, lowered

_COARSE = 1e-6
"""Share of a witness's value above which rounding is worth exact arithmetic."""


def gradient_norms(network: Network, functionals: Tensor, points: Tensor, norm: Norm) -> Tensor:
    """Dual norms of the gradients at points, as autograd takes them at kinks.

    Args:
        functionals: (..., outputs).
        points: (..., inputs); the leading axes of both broadcast.

    Returns:
        Tensor of the leading axes.
    """
    slopes = network.slopes(network.values(points))
    # Not torch.broadcast_shapes, which imports sympy: a second, once a process.
    rows = functionals.expand(*np.broadcast_shapes(functionals.shape[:-1], points.shape[:-1]), -1)
    return norm.dual.of(network.pull_back(slopes, rows))


class Clarke(NamedTuple):
    """The slopes of a network with real numbers at points, (n, neurons) per activation node.

    Attributes:
        slopes: those that hold; where a neuron has both, the one that autograd takes.
        kinks: neurons whose pre-activation is 0, so that both their slopes hold.
        doubtful: neurons whose sign could not be decided; ``slopes`` has autograd's there.
    """

    slopes: dict[int, Tensor]
    kinks: dict[int, Tensor]
    doubtful: dict[int, Tensor]


def clarke(network: Network, points: Tensor) -> Clarke:
    """Clarke derivatives at points (n, inputs), in exact arithmetic where rounding leaves a sign open.

    Pre-activations are enclosed by interval arithmetic that is rounded outward. Points with an enclosure around 0 are
    evaluated exactly, as many as fit in a fraction of a second.

    Args:
        network: float64.
    """
    distinct, which = torch.unique(points, dim=0, return_inverse=True)  # rows often share a point
    if len(distinct) < len(points):
        found = clarke(network, distinct)
        return Clarke(*({k: v[which] for k, v in part.items()} for part in found))
    slopes = network.slopes(network.values(points))
    bounds = interval_bounds(network, Interval(points, points))
    kinked = [k for k in network.activations if network.activation(k).piecewise_linear]
    kinks = {k: (bounds[k].lower == 0) & (bounds[k].upper == 0) for k in kinked}
    doubtful = {k: (bounds[k].lower <= 0) & (bounds[k].upper >= 0) & ~kinks[k] for k in kinked}
    if not kinked:
        return Clarke(slopes, kinks, doubtful)
    open_ = torch.stack([mask.any(-1) for mask in doubtful.values()]).any(0)
    if not bool(open_.any()):
        return Clarke(slopes, kinks, doubtful)
    exact = Exact.of(network.to("cpu", torch.float64)).renewed()
    ends = {k: network.activation(k).slopes_anywhere(slopes[k][0]) for k in kinked}
    for i in open_.nonzero().squeeze(-1).tolist():
        try:
            signs = exact.signs(points[i].cpu())
        except TooLarge:
            continue
        for k in set(signs) & set(kinked):
            sign = torch.from_numpy(signs[k]).to(points.device)
            low, high = ends[k]
            open_here = doubtful[k][i] & (sign != UNKNOWN)
            decided = torch.where(sign > 0, high, torch.where(sign < 0, low, slopes[k][i]))
            slopes[k][i] = torch.where(open_here, decided, slopes[k][i])
            kinks[k][i] |= sign == 0
            doubtful[k][i] &= sign == UNKNOWN
    return Clarke(slopes, kinks, doubtful)


def make_witnesses(problem: Problem, points: Tensor, patterns: Mapping[int, Tensor] | None = None) -> Witnesses:
    """Witnesses at ``points`` (batch, rows, inputs), with the values that hold there in float64.

    ``patterns``: slopes (batch, rows, neurons) per activation node where a kink is meant to take another slope than
    autograd's. They are followed where the pre-activation is 0; everywhere else a neuron has the slope that it has.
    """
    network, rows = problem.network.to(problem.device, torch.float64), problem.functionals.double()
    points = points.double()
    shape = points.shape[:-1]
    autograd = network.slopes(network.values(points))
    at = clarke(network, points.reshape(-1, network.in_size))
    slopes = {k: v.reshape(*shape, -1) for k, v in at.slopes.items()}
    values = problem.norm.dual.of(network.pull_back(slopes, rows))
    moved = torch.zeros(shape, dtype=torch.bool, device=points.device)
    for k, v in slopes.items():
        moved |= (v != autograd[k]).any(-1)
    if patterns is not None:
        free = {k: mask.reshape(*shape, -1) for k, mask in at.kinks.items()}
        bent = {k: torch.where(free[k], patterns[k].double(), v) if k in free else v for k, v in slopes.items()}
        larger = problem.norm.dual.of(network.pull_back(bent, rows))
        better = larger > values * (1 + TIE)  # a tie is not worth a pattern
        slopes = {k: torch.where(better.unsqueeze(-1), bent[k], v) for k, v in slopes.items()}
        values = torch.where(better, larger, values)
        moved |= better
    values = torch.where(values.isfinite(), values, 0.0)  # one that overflowed proves nothing
    kept = {k: _numpy(v) for k, v in slopes.items()} if bool(moved.any()) else None
    return Witnesses(_numpy(points), _numpy(values), moved.cpu().numpy(), kept)


def as_witnesses(problem: Problem, attained: Sequence[Attained]) -> Witnesses:
    """The witnesses of a batch from those of its examples; where a row has none, the middle of the box stands in."""
    network = problem.network
    points = problem.box.clamp(problem.box.window.center.unsqueeze(1).repeat(1, problem.rows, 1))
    bent: list[tuple[int, int, np.ndarray]] = []
    for b, example in enumerate(attained):
        for row, witness in example.witnesses.items():
            points[b, row] = torch.as_tensor(witness.point).to(points)
            if witness.slopes is not None:
                bent.append((b, row, witness.slopes))
    if not bent:
        return make_witnesses(problem, points)
    patterns = network.slopes(network.values(points))
    for b, row, slopes in bent:
        for k, part in by_node(network, torch.as_tensor(slopes).to(points)).items():
            patterns[k][b, row] = part
    return make_witnesses(problem, points, patterns)


def as_noted(problem: Problem, attained: Sequence[Attained]) -> Witnesses:
    """The same with the values that were noted, 0 in the middle. Nothing is computed: for when memory ran out."""
    network, shape = problem.network, (len(attained), problem.rows)
    middle = problem.box.window.center.cpu().double().numpy()
    points = np.repeat(middle[:, None], problem.rows, axis=1)
    values, at_kink = np.zeros(shape), np.zeros(shape, dtype=bool)
    noted = [(b, row, w) for b, example in enumerate(attained) for row, w in example.witnesses.items()]
    patterns: dict[int, np.ndarray] = {}
    if any(w.slopes is not None for _, _, w in noted):
        patterns = {k: np.zeros((*shape, network.nodes[k].size)) for k in network.activations}
    for b, row, w in noted:
        points[b, row], values[b, row] = w.point, w.value
        if w.slopes is not None:
            at_kink[b, row] = True
            for k, part in by_node(network, torch.as_tensor(w.slopes)).items():
                patterns[k][b, row] = part.numpy()
    return Witnesses(points, values, at_kink, patterns or None)


def check_witnesses(problem: Problem, witnesses: Witnesses) -> np.ndarray:
    """What every witness attains at least in real numbers, (batch, rows): recomputed in float64, less its rounding.

    Each point must lie in its box, and a pattern may differ from the slopes that hold at the point only at neurons
    whose pre-activation vanishes there. Where a sign cannot be decided, the worse of its slopes counts.

    Raises:
        Contradiction: a witness does not attain the value that was claimed for it.
    """
    network = problem.network.to("cpu", torch.float64)
    rows = problem.functionals.cpu().double()
    points = torch.as_tensor(witnesses.points, dtype=torch.float64)
    shape = points.shape[:-1]
    if not bool(problem.box.contains(points).all()):
        raise Contradiction("A witness lies outside its box.")
    at = clarke(network, points.reshape(-1, network.in_size))
    slopes = {k: v.reshape(*shape, -1) for k, v in at.slopes.items()}
    doubtful = {k: v.reshape(*shape, -1) for k, v in at.doubtful.items()}
    at_kink = torch.as_tensor(witnesses.at_kink).unsqueeze(-1)
    for k, pattern in (witnesses.patterns or {}).items():
        if k not in at.kinks:
            continue  # a smooth activation has one slope
        claimed = torch.as_tensor(pattern, dtype=torch.float64)
        moved = (claimed != slopes[k]) & at_kink
        low, high = network.activation(k).slopes_anywhere(claimed)
        within = (claimed >= low) & (claimed <= high)
        free = at.kinks[k].reshape(claimed.shape) | doubtful[k]
        if bool((moved & ~(free & within)).any()):
            raise Contradiction("A witness takes a slope that no point near it has.")
        slopes[k] = torch.where(moved, claimed, slopes[k])
    gradients = network.pull_back(slopes, rows)
    values = problem.norm.dual.of(gradients)
    spread = {k: mask * _width(network, k, mask) for k, mask in doubtful.items() if bool(mask.any())}
    error, size = _error(network, slopes, spread, rows)
    least = (gradients.abs() - error).clamp(min=0)
    attained = lowered(problem.norm.dual.of(least), network.in_size)
    coarse = (attained < (1 - _COARSE) * values) & values.isfinite()
    for k in spread:
        coarse &= ~doubtful[k].any(-1)
    if bool(coarse.any()):
        _sharpen(network, slopes, rows, least, torch.where(coarse, values, 0.0))
        attained = lowered(problem.norm.dual.of(least), network.in_size)
    claims = torch.as_tensor(witnesses.values)
    # A claim may be off by the rounding of the precision it comes from; more than that means that the witness is wrong.
    unsure = problem.norm.dual.of(allowance(network.operations, problem.dtype) * size)
    short = values + (values - attained) + unsure < claims
    if bool(short.any()):
        worst = float((claims - values)[short].max())
        raise Contradiction(f"A witness attains less than was claimed for it, by {worst:g}.")
    return _numpy(attained)


def _sharpen(network: Network, slopes: Mapping[int, Tensor], rows: Tensor, least: Tensor, values: Tensor) -> None:
    """Replace what entries of gradients (batch, rows, inputs) are at least by what exact arithmetic says, for witnesses
    (batch, rows) with a positive value, the largest first: of networks so deep that bounds on rounding say little."""
    if not all(isinstance(network.activation(k), LeakyReLU) for k in network.activations):
        return
    exact = Exact.of(network).renewed()
    for flat in values.flatten().argsort(descending=True, stable=True)[: int((values > 0).sum())].tolist():
        b, row = divmod(flat, values.shape[1])
        try:
            entries = exact.gradient({k: v[b, row] for k, v in slopes.items()}, rows[b, row])
        except TooLarge:
            return
        least[b, row] = torch.maximum(least[b, row], torch.from_numpy(entries))


def _width(network: Network, k: int, like: Tensor) -> Tensor:
    """Length of the slope range of a kinked activation, of the shape of ``like`` (..., neurons)."""
    low, high = network.activation(k).slopes_anywhere(torch.zeros_like(like, dtype=torch.float64))
    return high - low


def _error(
    network: Network, slopes: Mapping[int, Tensor], spread: Mapping[int, Tensor], rows: Tensor
) -> tuple[Tensor, Tensor]:
    """What entries of a gradient (batch, rows, inputs) may be off by: rounding, and slopes off by ``spread``. And the
    sums of the absolute values of their terms.

    A sum of products is off by at most ``gamma_N`` times the same sum of absolute values, N the length of the longest
    chain of operations. The chain rule is linear in each slope, so moving slopes by ``spread`` moves it by at most what
    that adds to the sum of absolute values.
    """
    sizes = {k: v.abs() for k, v in slopes.items()}
    size = _size(network, sizes, rows)
    gamma = allowance(network.operations, size.dtype)
    error = gamma * size
    if spread:
        wide = {k: v + spread[k] if k in spread else v for k, v in sizes.items()}
        reach = _size(network, wide, rows)
        error = (reach - size).clamp(min=0) + 2 * gamma * reach
    return error, size


def _size(network: Network, slopes: Mapping[int, Tensor], rows: Tensor) -> Tensor:
    """The sums of the absolute values of the terms of entries of a gradient (batch, rows, inputs), with what covers
    underflow, which is multiplied by what comes after it.

    Args:
        slopes: absolute values (batch, rows, neurons).
    """
    least = floor(rows.dtype)

    def activation(k: int, node: Activate, size: Tensor) -> Tensor:
        return size * slopes[k] + least

    def affine(k: int, node: Affine, maps: Sequence[LinearMap], size: Tensor) -> Iterator[Tensor]:
        return (m.absolute.adjoint(size) + least for m in maps)

    start = fold_backward(network, {len(network.nodes) - 1: rows.abs()}, activation, affine)
    return rows.new_zeros(*rows.shape[:-1], network.in_size) if start is None else start


def _numpy(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().cpu().double().numpy()
    return array
