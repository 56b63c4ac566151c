"""The oracle for tests: every activation pattern of a tiny network, each with a linear program."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, final

import numpy as np
import torch

from lipcompare.budget import Budget, Clock
from lipcompare.gates import Gates
from lipcompare.jacobian import pattern_bound
from lipcompare.methods.base import Method
from lipcompare.network.interval import Interval
from lipcompare.preactivation import Tightening, interval_bounds, preactivation_bounds
from lipcompare.problem import Problem
from lipcompare.programs.witness import Pattern, attain, pattern_slopes
from lipcompare.regions.program import deepest, regions_of
from lipcompare.result import Attained, Bound, Status, Witness
from lipcompare.witness import as_witnesses, gradient_norms


@final
@dataclasses.dataclass(frozen=True)
class Enumerate(Method):
    """All activation patterns, neuron by neuron from the input; a partial pattern that no point has is cut off.

    A pattern counts unless its *closed* region is proved to be empty (:mod:`lipcompare.regions.program`). Regions with
    an interior give a witness there. A region that only touches counts for the upper bound, and for the lower bound
    only if a point can be verified to lie on its kinks; where none can, rounding leaves open whether the region is
    empty, and the interval says so.

    Attributes:
        limit: most undecided neurons; a network with more is refused.
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
        double = problem.double("cpu")
        attained: list[Attained] = []
        upper = np.full((problem.batch, problem.rows), np.inf)
        for b in range(problem.batch):
            best, reach = _example(double.example(b), clock)
            attained.append(best)
            upper[b] = reach if clock.running() else np.inf
        witnesses = as_witnesses(double, attained)
        lower = witnesses.values
        upper = np.maximum(upper, lower)
        if not clock.running():
            return self.result(problem, clock, lower=lower, status=Status.TIME_LIMIT, witnesses=witnesses)
        closed = bool(np.isfinite(upper).all()) and bool((upper - lower <= budget.gap * upper).all())
        status = Status.EXACT if closed else Status.COMPLETE
        detail = "" if closed else "A pattern with a larger norm holds on a set too thin to decide in floating point."
        return self.result(problem, clock, lower=lower, upper=upper, status=status, detail=detail, witnesses=witnesses)


def _example(problem: Problem, clock: Clock) -> tuple[Attained, np.ndarray]:
    """What every row attains, and the largest norm of any pattern that may be valid, (rows,)."""
    network, norm = problem.network, problem.norm
    center = problem.box.interval.center[0]
    values = gradient_norms(network, problem.functionals[0], center, norm).tolist()
    best = Attained(problem.rows, [Witness(row, value, center.numpy()) for row, value in enumerate(values)])
    reach = best.lower.copy()
    if not network.activations:
        return best, pattern_bound(network, {}, problem.functionals, norm)[0].numpy()
    gates = Gates.from_preactivations(network, preactivation_bounds(network, problem.box.interval, Tightening.CROWN))
    for pattern, x in patterns(problem, gates, clock):
        slopes = pattern_slopes(gates, pattern)
        one = {k: slope.unsqueeze(0) for k, slope in slopes.items()}
        norms = pattern_bound(network, one, problem.functionals, norm)[0].numpy()
        reach = np.maximum(reach, norms)
        for row in np.flatnonzero(norms > best.lower).tolist():
            witness = attain(problem, gates, row, x, pattern)
            if witness is not None:
                best.note(witness)
    return best, reach


def patterns(problem: Problem, gates: Gates, clock: Clock) -> Iterator[tuple[Pattern, np.ndarray]]:
    """Every pattern whose closed region in the box is not empty, with a point of it up to rounding.

    Args:
        problem, gates: one example (batch 1), float64 on the CPU.
    """
    network = problem.network
    box = Interval(*(v.expand(2, -1) for v in problem.box.interval))
    open_ = gates.undecided()
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
        active = {n: torch.from_numpy(np.stack([v, v])) for n, v in pattern.items()}
        active[k][:, i] = torch.tensor([True, False])
        slopes = {n: torch.where(side, gates.slopes[n].upper, gates.slopes[n].lower) for n, side in active.items()}
        for side, located in zip(
            (True, False), deepest(regions_of(network, box, slopes, active, decided)), strict=True
        ):
            if not located.empty:
                pattern[k][i] = side
                yield from extend(depth + 1, pattern, x if located.point is None else located.point)

    yield from extend(0, {k: v.copy() for k, v in stable.items()}, box.center[0].numpy())
