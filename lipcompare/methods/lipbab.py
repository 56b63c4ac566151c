"""LipBaB: exact constants by activation regions, interval bounds and linear programs."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from lipcompare.attack.search import Effort
from lipcompare.attack.search import search as search_points
from lipcompare.branching.activation_regions import RegionEvaluator
from lipcompare.branching.driver import Search, SearchLimits, Stop, run
from lipcompare.branching.ledger import Ledger
from lipcompare.branching.roots import attained, root_bounds, settled
from lipcompare.branching.spectral import SpectralEvaluator
from lipcompare.budget import Budget, Clock, Deadline
from lipcompare.domain import Space
from lipcompare.gates import Gates, has_patterns
from lipcompare.jacobian import interval_gradient
from lipcompare.methods.base import REFINING, Method
from lipcompare.methods.linear import Linear, linear_bounds
from lipcompare.methods.searches import PART, Ended, searched
from lipcompare.preactivation import Tightening
from lipcompare.problem import Norm, Problem
from lipcompare.result import Bound, Witness, Witnesses
from lipcompare.rounding import raised

_SEARCH = 0.2
"""At most of the time for the search for a first lower bound."""


@final
@dataclasses.dataclass(frozen=True)
class LipBab(Method):
    """LipBaB (Bhowmick, D'Souza, Raghavan 2021, arXiv 2105.05495): neurons are decided in the order of the layers.

    Regions are bounded by interval arithmetic on the chain rule and checked by a linear program each.

    Attributes:
        tightening: pre-activation bounds over the whole box.
        batch: regions bounded at once.
        node_limit: regions bounded in all, per example (0: no limit).
    """

    name: ClassVar[str] = "lipbab"
    proves: ClassVar[str] = "exact"
    summary: ClassVar[str] = "branch and bound over activation regions with linear programs (LipBaB)"
    reference: ClassVar[str] = "bhowmick2021lipbab"

    tightening: Tightening = Tightening.CROWN
    batch: int = 64
    node_limit: int = 0

    def __post_init__(self) -> None:
        self.at_least(1, "batch")
        self.at_least(0, "node_limit")

    def supports(self, problem: Problem) -> str | None:
        if not has_patterns(problem.network):
            return "LipBaB needs ReLU-like activations: smooth ones have no finite set of patterns."
        return None

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        return self.after(linear_bounds(problem.double(), clock, self.tightening), problem, clock)

    def after(self, linear: Linear, problem: Problem, clock: Clock, known: Witnesses | None = None) -> Bound:
        """Go on from the linear bounds of the problem, in float64, to the end of the clock's time.

        ``known``: points to beat.
        """

        def search(ledger: Ledger, b: int, part: Linear, deadline: Deadline) -> Ended:
            points = [] if known is None else known.example(b)
            return self._example(ledger, b, part, points, clock.budget, deadline)

        return searched(self, problem, linear, clock, search, nodes="region")

    def _example(
        self, ledger: Ledger, b: int, linear: Linear, known: list[Witness], budget: Budget, deadline: Deadline
    ) -> Ended:
        problem, norm = linear.problem, linear.problem.norm.dual.of
        center = attained(problem, problem.box.interval.center.repeat(1, problem.rows, 1))
        search = Search.start(ledger.upper[b].copy(), [*center, *known])
        if deadline.passed(linear.ahead + PART * linear.seconds):  # as for bab
            ledger.keep(b, [search])
            return Ended(Stop.TIME, 0, 0)
        bounds = linear.propagated(budget.memory, REFINING * deadline.left).bounds
        evaluator = RegionEvaluator(
            problem=problem, bounds=bounds, measure=norm, memory=budget.memory, deadline=deadline
        )
        limits = SearchLimits(
            gap=budget.gap,
            seconds=deadline.left,
            nodes=self.node_limit or float("inf"),
            memory=budget.memory,
            batch=self.batch,
        )
        try:
            stop = run(search, evaluator, limits, report=ledger.watch(b, [search]))
        finally:
            ledger.keep(b, [search])
        return Ended(stop, search.nodes, evaluator.programs)


@dataclasses.dataclass(frozen=True)
class NormSearch:
    """An interval around the largest operator norm of the Jacobian of all rows at once.

    Attributes:
        lower, upper: the first as a search in floating point finds it, to be checked; the second is rounded upward.
        point, slopes: (inputs,) and (neurons,) where ``lower`` is attained; None for the slopes that the point has.
    """

    lower: float
    upper: float
    stop: Stop
    point: np.ndarray
    slopes: np.ndarray | None
    nodes: int


def lipbab_operator_norm(
    problem: Problem,
    known: float = float("inf"),
    *,
    gap: float = 1e-6,
    time_limit: float = float("inf"),
    batch: int = 64,
) -> NormSearch:
    """The largest norm ``p -> p`` of the Jacobian (all functionals at once) over a single box, by activation regions.

    These are the constants that LipBaB publishes; a :class:`~lipcompare.problem.Problem` asks for rows.

    ``known``: an upper bound over the whole box.
    """
    example = problem.example(0).double()
    bounds, _ = root_bounds(example, Tightening.CROWN, 2**30)

    def norms(matrices: Tensor) -> Tensor:
        """(..., rows, inputs) -> (..., 1); for absolute entries a bound on every matrix that they bound."""
        order = {Norm.INF: float("inf"), Norm.ONE: 1.0, Norm.TWO: 2.0}[example.norm]
        norm: Tensor = torch.linalg.matrix_norm(matrices, ord=order)
        return norm.unsqueeze(-1)

    with torch.no_grad():
        network = example.network
        center = example.box.interval.center[0]
        jacobian = network.pull_back(network.slopes(network.values(center)), example.functionals[0])
        start = Witness(0, float(norms(jacobian)), center.cpu().numpy())
        if not network.activations:
            entries = interval_gradient(network, Gates({}), example.functionals)
            center, size = entries.center, 8 * sum(entries.lower.shape[-2:])
            radius = raised(torch.maximum(entries.upper - center, center - entries.lower), 1)
            upper = float(raised(raised(norms(center), size) + raised(norms(radius), size), 1))
            return NormSearch(start.value, min(upper, known), Stop.DONE, start.point, None, nodes=0)
        search = Search.start([known], [start])
        evaluator = RegionEvaluator(problem=example, bounds=bounds, measure=norms, deadline=Deadline.after(time_limit))
        stop = run(search, evaluator, SearchLimits(gap=gap, seconds=time_limit, batch=batch))
        # A zero Jacobian is attained everywhere, and no search takes note of a zero.
        best = search.attained.witnesses.get(0, start)
    return NormSearch(search.best, search.upper, stop, best.point, best.slopes, nodes=search.nodes)


def spectral_search(
    problem: Problem,
    known: float = float("inf"),
    *,
    gap: float = 1e-4,
    time_limit: float = float("inf"),
    memory: int = 2**30,
    batch: int = 32,
) -> NormSearch:
    """The largest singular value of the Jacobian (all rows at once) over one box or everywhere, by branch and
    bound on gates over the joint program (:mod:`lipcompare.branching.spectral`).

    ``known``: an upper bound over the whole domain.
    """
    example = problem.example(0).double()
    deadline = Deadline.after(time_limit)
    center = example.box.window.center[0].cpu().numpy()
    with torch.no_grad():
        if not example.network.activations:
            return lipbab_operator_norm(example, known, gap=gap)
        root, _ = root_bounds(example, Tightening.ALPHA_CROWN, memory, REFINING * time_limit)
        everywhere = isinstance(example.box, Space)
        bounds = root if everywhere else settled(example, root, memory, deadline.left)
        evaluator = SpectralEvaluator(example, bounds, memory=memory, deadline=deadline)
        points = search_points(example, Effort(), deadline=Deadline.after(_SEARCH * deadline.left), memory=memory)
        slopes = example.network.slopes(example.network.values(points[0]))
        rows = example.functionals.expand(len(points[0]), -1, -1)
        jacobians = example.network.pull_back({k: v.unsqueeze(1) for k, v in slopes.items()}, rows)
        values = torch.linalg.matrix_norm(jacobians, ord=2)
        best = int(values.argmax())
        start = Witness(0, float(values[best]), points[0, best].cpu().numpy())
        search = Search.start([known], [start])
        limits = SearchLimits(gap=gap, seconds=deadline.left, memory=memory, batch=batch)
        stop = run(search, evaluator, limits)
        found = search.attained.witnesses.get(0, Witness(0, 0.0, center))
    return NormSearch(search.best, search.upper, stop, found.point, found.slopes, nodes=search.nodes)
