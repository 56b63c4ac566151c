"""The oracle for tests: every activation pattern of a tiny network, each with a linear program."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, final

import numpy as np
import torch

import solvers
from lipcompare.budget import Budget, Clock
from lipcompare.gates import Gates
from lipcompare.methods.base import Method
from lipcompare.network.interval import Interval
from lipcompare.preactivation import Tightening, interval_bounds, preactivation_bounds
from lipcompare.problem import Problem
from lipcompare.programs.prepared import in_double
from lipcompare.programs.witness import Attained, Pattern, as_witnesses, attain, pattern_slopes
from lipcompare.regions.pieces import affine_pieces, halfspaces
from lipcompare.result import Bound, Status
from lipcompare.witness import gradient_norms

_EMPTY = -1e-10
"""A region is empty if no point comes closer to it than this, in units of each constraint's range over the box; the
constraints are computed to about 1e-14 of that."""


@final
@dataclasses.dataclass(frozen=True)
class Enumerate(Method):
    """All activation patterns, neuron by neuron from the input; a partial pattern that no point has is cut off.

    A pattern counts if its *closed* region is not empty. A linear program finds how deep a point lies in it. Regions
    with an interior give a witness there. A region that only touches (depth zero up to 1e-10) counts for the upper
    bound, and for the lower bound only if a point can be verified to lie on its kinks; where none can, rounding leaves
    open whether the region is empty, and the interval says so.
    """

    name: ClassVar[str] = "enumerate"
    proves: ClassVar[str] = "exact"
    summary: ClassVar[str] = "all activation patterns of a tiny network (an oracle for tests)"
    reference: ClassVar[str] = "bhowmick2021lipbab"

    limit: int = 16  # undecided neurons

    def supports(self, problem: Problem) -> str | None:
        if not problem.network.piecewise_linear:
            return "Patterns describe only piecewise linear networks; this one has smooth activations."
        # Interval arithmetic decides, so that the answer costs nothing.
        bounds = interval_bounds(problem.network, problem.box.interval)
        count = int(Gates.from_preactivations(problem.network, bounds).unstable_count.max()) if bounds else 0
        if count > self.limit:
            return f"There are {count} undecided neurons, the limit is {self.limit}: use milp, or raise the limit."
        return None

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        double = in_double(problem)
        found: list[list[Attained]] = []
        upper = np.full((problem.batch, problem.rows), np.inf)
        for b in range(problem.batch):
            best, reach = _example(double.example(b), clock)
            found.append(best)
            upper[b] = reach if clock.running() else np.inf
        witnesses = as_witnesses(double, found)
        lower = witnesses.values
        # The patterns' norms are sums of a few products.
        upper = np.maximum(upper * (1 + 1e-12), lower)
        if not clock.running():
            return self.result(problem, clock, lower=lower, status=Status.TIME_LIMIT, witnesses=witnesses)
        closed = bool((upper - lower <= budget.gap * upper + 1e-12).all())
        status = Status.EXACT if closed else Status.COMPLETE
        detail = "" if closed else "A pattern with a larger norm holds on a set too thin to decide in floating point."
        return self.result(problem, clock, lower=lower, upper=upper, status=status, detail=detail, witnesses=witnesses)


def _example(problem: Problem, clock: Clock) -> tuple[list[Attained], np.ndarray]:
    """What every row attains, and the largest norm of any pattern that may be valid, (rows,)."""
    network, norm = problem.network, problem.norm
    center = problem.box.interval.center[0]
    best = [Attained(center, float(gradient_norms(network, c, center, norm))) for c in problem.functionals[0]]
    reach = np.array([a.value for a in best])
    if not network.activations:
        return best, reach
    gates = Gates.from_preactivations(network, preactivation_bounds(network, problem.box.interval, Tightening.CROWN))
    for pattern, x in patterns(problem, gates, clock):
        slopes = pattern_slopes(gates, pattern)
        norms = norm.dual.of(network.pull_back(slopes, problem.functionals[0])).numpy()
        reach = np.maximum(reach, norms)
        for row in np.flatnonzero(norms > np.array([a.value for a in best]) * (1 + 1e-12)).tolist():
            attained = attain(problem, gates, row, x, pattern)
            if attained is not None and attained.value > best[row].value:
                best[row] = attained
    return best, reach


def patterns(problem: Problem, gates: Gates, clock: Clock) -> Iterator[tuple[Pattern, np.ndarray]]:
    """Every pattern whose closed region in the box is not empty, with a point of it up to rounding.

    Args:
        problem, gates: one example (batch 1), float64 on the CPU.
    """
    network = problem.network
    box = Interval(problem.box.lower[0], problem.box.upper[0])
    open_ = {k: gates.unstable(k)[0] for k in network.activations}
    queue = [(k, i) for k, mask in open_.items() for i in mask.nonzero().squeeze(-1).tolist()]
    stable = {k: (gates.slopes[k].upper[0] > 0).numpy() for k in network.activations}

    def extend(depth: int, pattern: dict[int, np.ndarray], x: np.ndarray) -> Iterator[tuple[Pattern, np.ndarray]]:
        if not clock.running():
            return
        if depth == len(queue):
            yield {k: v.copy() for k, v in pattern.items()}, x
            return
        k, i = queue[depth]
        decided = {n: torch.zeros_like(mask) for n, mask in open_.items()}
        for n, j in queue[: depth + 1]:
            decided[n][j] = True
        for side in (True, False):
            pattern[k][i] = side
            point = _point(network_regions(problem, gates, pattern, decided), box)
            if point is not None:
                yield from extend(depth + 1, pattern, point)

    yield from extend(0, {k: v.copy() for k, v in stable.items()}, box.center.numpy())


def network_regions(
    problem: Problem, gates: Gates, pattern: Pattern, decided: dict[int, torch.Tensor]
) -> tuple[np.ndarray, np.ndarray]:
    """``matrix x >= bound`` for the decided neurons of a pattern, rows scaled to a range of 1 over the box."""
    pieces = affine_pieces(problem.network, pattern_slopes(gates, pattern))
    active = {k: torch.from_numpy(v) for k, v in pattern.items()}
    region = halfspaces(pieces, active, decided, Interval(problem.box.lower[0], problem.box.upper[0]))
    return region.matrix, region.bound


def _point(region: tuple[np.ndarray, np.ndarray], box: Interval) -> np.ndarray | None:
    """The point deepest inside a region, or the one closest to it if it only touches; None if the region is empty.

    Emptiness is the solver's dual bound, which is recomputed from its multipliers.
    """
    matrix, bound = region
    lower, upper = box.lower.numpy(), box.upper.numpy()
    # A constraint that does not vary over the box is the sign of a constant, which the scaling may have blown up.
    flat = np.abs(matrix) @ ((upper - lower) / 2) < 0.5
    center = (lower + upper) / 2
    constant = matrix[flat] @ center - bound[flat]
    size = np.abs(matrix[flat]) @ np.abs(center) + np.abs(bound[flat])
    if bool((constant < _EMPTY * size).any()):
        return None
    matrix, bound = matrix[~flat], bound[~flat]
    program = solvers.MixedIntegerProgram(
        cost=np.append(np.zeros(len(lower)), -1.0),
        A=np.hstack([matrix, -np.ones((len(bound), 1))]),
        row_lower=bound,
        row_upper=np.full(len(bound), np.inf),
        lower=np.append(lower, -1e3),
        upper=np.append(upper, 1.0),
    )
    solution = solvers.get("highs").solve(program)
    if solution.status is solvers.Status.INTERRUPTED:
        raise KeyboardInterrupt  # the solver turned it into a status
    if -solution.dual_bound < _EMPTY:
        return None
    return np.clip(solution.x[:-1], lower, upper) if solution.x is not None else box.center.numpy()
