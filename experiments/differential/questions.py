"""What questions about a batch answer, held against the truth in rational arithmetic, or against points."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from experiments.differential.derivatives import Derivatives
from lipcompare import Network, Problem, Status
from lipcompare.domain import Norm, NormBall, Space
from lipcompare.network.interval import Interval
from lipcompare.preactivation.interval import interval_values
from lipcompare.questions import jacobian_bounds
from lipcompare.questions.certify import AUTO, EXACT_RADIUS, FORWARD, Certificate, certified_radius
from lipcompare.questions.monotone import Direction, monotonicity
from lipcompare.questions.operator_norm import BAB, LIPBAB, exact_operator_norms, operator_norm_bounds
from lipcompare.testing import exact

GAP = 1e-4
LOOKS = 2**13
"""What one truth may take (:data:`lipcompare.testing.exact.LIMIT`): about two seconds."""

Truths = list[exact.Truth | None]


def _monotone(problem: Problem, truths: Truths, seen: Derivatives, draw: random.Random) -> tuple[str, int]:
    answer = monotonicity(problem)
    least, largest = seen.ranges()
    for b, row, feature in np.ndindex(problem.batch, problem.rows, problem.network.in_size):
        truth = truths[b]
        said: Direction = answer.directions.item(b, row, feature)
        if truth is None and said is Direction.NEITHER:  # points do not say what is nowhere
            continue
        # Of points the least upper end and the largest lower one.
        low, high = (least[b, row, feature], largest[b, row, feature]) if truth is None else truth.range(row, feature)
        wrong = {
            Direction.CONSTANT: low < 0 or high > 0,
            Direction.INCREASING: low < 0,
            Direction.DECREASING: high > 0,
            Direction.NEITHER: low >= 0 or high <= 0,
        }
        if wrong.get(said, False):
            return f"example {b}: {said.name} for a derivative in [{float(low)!r}, {float(high)!r}]", problem.batch
    return "", problem.batch


def _jacobian(problem: Problem, truths: Truths, seen: Derivatives, draw: random.Random) -> tuple[str, int]:
    bounding = draw.choice(("ibp", "recurjac", "lbp"))
    bounds = jacobian_bounds(problem, bounding)
    least, largest = seen.ranges()
    for b, row, entry in np.ndindex(problem.batch, problem.rows, problem.network.in_size):
        lower, upper = float(bounds.lower[b, row, entry]), float(bounds.upper[b, row, entry])
        if np.isnan(lower) or np.isnan(upper) or lower > upper:
            return f"{bounding}: entry {row}, {entry} in [{lower!r}, {upper!r}]", problem.batch
        truth = truths[b]
        low, high = (least[b, row, entry], largest[b, row, entry]) if truth is None else truth.range(row, entry)
        if lower > low or upper < high:
            return f"{bounding}: [{lower!r}, {upper!r}] for [{float(low)!r}, {float(high)!r}]", problem.batch
    return "", problem.batch


def _operator_norm(
    bounding: str, problem: Problem, truths: Truths, seen: Derivatives, draw: random.Random
) -> tuple[str, int]:
    norm = draw.choice(("inf", "1", "2"))
    count = 1 if bounding in (BAB, LIPBAB) else min(4, problem.batch)
    part = problem.slice(0, count)
    if bounding in (BAB, LIPBAB):
        refused = (NormBall, Space) if bounding == LIPBAB else NormBall
        if isinstance(part.box, refused) or not part.network.piecewise_linear:
            return "", 0
        found = exact_operator_norms(part.network, part.box, norm, method=bounding, gap=GAP, time_limit=5.0)
    else:
        found = operator_norm_bounds(part.network, part.box, norm, bounding)
    for b in range(count):
        lower, upper = float(found.lower[b]), float(found.upper[b])
        if not lower <= upper:
            return f"{norm} {bounding}: [{lower!r}, {upper!r}]", count
        open_ = bounding in (BAB, LIPBAB) and not upper - lower <= GAP * upper
        if open_ and found.status in (Status.COMPLETE, Status.EXACT) and not found.detail:
            return f"{norm} {bounding}: [{lower!r}, {upper!r}] without a reason", count
        if truths[b] is None:
            attained = _attained(seen, b, norm)
            if upper < attained:
                return f"{norm} {bounding}: [{lower!r}, {upper!r}] and {attained!r} at a point", count
            continue
        inner, outer = exact.domains(part, b)
        inside, outside = (
            max(_size(j, norm) for domain in domains for j in exact.jacobians(problem.network, domain, LOOKS))
            for domains in (inner, outer)
        )
        slack = Fraction(1, 10**9) if norm == "2" else Fraction(0)
        if upper < inside * (1 - slack) or lower > outside * (1 + slack):
            return f"{norm} {bounding}: [{lower!r}, {upper!r}] for {float(inside)!r} to {float(outside)!r}", count
    return "", count


def _attained(seen: Derivatives, b: int, norm: str) -> float:
    """What the operator norm (of all outputs) is at least, by its enclosures at points."""
    lower, upper = (v[b][seen.inside[b]] for v in (seen.lower, seen.upper))  # (points, rows, inputs)
    if not len(lower):
        return 0.0
    if norm == "2":
        middle, radius = lower / 2 + upper / 2, upper / 2 - lower / 2
        if not np.isfinite(middle).all():
            return 0.0
        size = np.linalg.norm(middle, 2, axis=(1, 2)) * (1 - 1e-12) - np.linalg.norm(radius, axis=(1, 2)) * (1 + 1e-12)
        return float(size.max())
    least = np.maximum(np.maximum(lower, -upper), 0.0)
    return float(least.sum(2 if norm == "inf" else 1).max() * (1 - 1e-14 * lower[0].size))


def _size(jacobian: exact.Matrix, norm: str) -> Fraction:
    """For p = 2 without the last digits, which a singular value in floating point does not have."""
    if norm == "2":
        matrix = np.array([[float(v) for v in row] for row in jacobian])
        return Fraction(float(np.linalg.norm(matrix, 2)))
    lines = jacobian if norm == "inf" else tuple(zip(*jacobian, strict=True))
    return max(sum(map(abs, line), Fraction(0)) for line in lines)


def _certify(method: str, problem: Problem, truths: Truths, seen: Derivatives, draw: random.Random) -> tuple[str, int]:
    network, box = problem.network, problem.box
    if network.out_size < 2:
        return "", 0
    centers = box.center if isinstance(box, NormBall) else box.window.lower
    largest = float(box.window.radius.amax())
    if not largest > 0:
        return "", 0
    norm = problem.norm
    if method == EXACT_RADIUS:
        if not network.piecewise_linear:
            return "", 0
        centers = centers[:1]
    found = certified_radius(
        network, centers, norm=norm, method=method, largest=largest, steps=4, time_limit=5.0, dtype=problem.dtype
    )
    for b, radius in enumerate(found.radius.tolist()):
        if not 0 <= radius <= found.upper[b]:
            return f"{method}, example {b}: radius {radius!r}, at most {found.upper[b]!r}", len(centers)
        if truths[b] is None:
            if radius > 0 and _crossed(network, centers[b], found, b, norm):
                return f"{method}, example {b}: another class at a point within {radius!r}", len(centers)
            continue
        wrong = _not_another(network, found, b)
        if wrong:
            return f"{method}, example {b}: {wrong}", len(centers)
        if radius == 0:
            continue
        place, size = [Fraction(v) for v in centers[b].double().tolist()], Fraction(radius)
        if norm is Norm.INF:
            domain = exact.box_polytope([c - size for c in place], [c + size for c in place])
        else:  # the l1 ball lies in the l2 ball
            domain = exact.cross_polytope(place, size)
        label = int(found.labels[b])
        for other in range(network.out_size):
            row = [float(i == label) - float(i == other) for i in range(network.out_size)]
            if other != label and exact.least(network, domain, row, LOOKS) < 0:
                return f"{method}, example {b}: another class within {radius!r}", len(centers)
    return "", len(centers)


def _crossed(network: Network, center: Tensor, found: Certificate, b: int, norm: Norm, count: int = 64) -> bool:
    """Whether a point within the radius surely has another class."""
    generator = torch.Generator().manual_seed(b)
    steps = torch.randn(count, len(center), generator=generator, dtype=torch.float64)
    steps[: count // 2] = steps[: count // 2].sign()
    radius = float(found.radius[b]) * (1 - 1e-12)
    middle = center.cpu().double()
    points = middle + radius * steps / norm.of(steps).unsqueeze(-1)
    inside = norm.of(points - middle) <= radius  # the sum is rounded
    _, outputs = interval_values(network.to("cpu", torch.float64), Interval(points, points))
    label = int(found.labels[b])
    others = [i for i in range(network.out_size) if i != label]
    above = outputs.lower[:, others] > outputs.upper[:, label : label + 1]
    return bool((above.any(1) & inside).any())


def _not_another(network: Network, found: Certificate, b: int) -> str:
    """What is wrong with an input that is said to have another class; "" if nothing is."""
    if not np.isfinite(found.upper[b]) or not np.isfinite(found.points[b]).all():
        return ""
    point = [Fraction(v) for v in found.points[b].tolist()]
    label = int(found.labels[b])
    margins = []
    for other in set(range(network.out_size)) - {label}:
        row = [float(i == label) - float(i == other) for i in range(network.out_size)]
        margins.append(exact.least(network, exact.box_polytope(point, point), row))
    return "" if min(margins) <= 0 else f"{found.points[b].tolist()} has no other class, by {float(min(margins))!r}"


QUESTIONS: dict[str, Callable[[Problem, Truths, Derivatives, random.Random], tuple[str, int]]] = {
    "monotone": _monotone,
    "jacobian": _jacobian,
    **{
        f"operator-norm {bounding}": functools.partial(_operator_norm, bounding)
        for bounding in ("naive", "ibp", "recurjac", "lbp", "sdp", BAB, LIPBAB)
    },
    **{
        f"certify {method}": functools.partial(_certify, method)
        for method in ("lbp", "ibp", AUTO, EXACT_RADIUS, *FORWARD)
    },
}
