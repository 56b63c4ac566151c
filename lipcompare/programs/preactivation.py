"""Pre-activation bounds by optimisation: one program per side of every undecided neuron (LP or MILP tightening).

The program of a neuron holds the exact encoding of everything before it (Tjeng et al. 2019, arXiv 1711.07356), or its
linear relaxation. The bound used is the solver's dual bound, so a program stopped early still gives a valid one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
from collections.abc import Callable

import numpy as np
import torch

import solvers
from lipcompare.encoding.builder import OutOfRange
from lipcompare.encoding.network import forward_programs
from lipcompare.gates import Gates, PreactivationBounds
from lipcompare.network.graph import Network
from lipcompare.network.interval import Interval
from lipcompare.preactivation.forward import Tightening, preactivation_bounds
from lipcompare.programs.tolerance import solver_error
from lipcompare.rounding import SOLVED


class Refinement(enum.Enum):
    """How pre-activations are bounded for exact methods; each includes the ones before it."""

    INTERVAL = "interval"
    CROWN = "crown"
    ALPHA_CROWN = "alpha-crown"
    SIGNS = "signs"
    """Programs only for neurons of which no sample showed both signs, solved until the missing sign is found or
    excluded: the part of MILP tightening that makes neurons stable."""
    LP = "lp"
    MILP = "milp"

    @property
    def solves(self) -> bool:
        """Whether it takes a solver."""
        return self in (Refinement.SIGNS, Refinement.LP, Refinement.MILP)

    @property
    def propagated(self) -> Tightening:
        """The bound propagation that this starts from."""
        return Tightening.ALPHA_CROWN if self.solves else Tightening(self.value)


def refined_bounds(
    network: Network,
    box: Interval,
    refinement: Refinement,
    solver: solvers.Solver,
    *,
    seconds_per_neuron: float = 1.0,
    left: Callable[[], float] = lambda: float("inf"),
    memory: int = 2**30,
    start: PreactivationBounds | None = None,
) -> dict[int, Interval]:
    """Bounds (batch, neurons) on every pre-activation over a batch of boxes.

    Args:
        box: (batch, inputs), float64 on the CPU.
        seconds_per_neuron: time limit of a single program.
        left: seconds that remain; when there are none the bounds so far are returned.
        start: the bounds of the propagation that the refinement starts from, where they are known already.
    """
    bounds = dict(start or preactivation_bounds(network, box, refinement.propagated, memory=memory))
    if not refinement.solves:
        return bounds
    parts = []
    for b in range(box.lower.shape[0]):
        one = {k: Interval(v.lower[b : b + 1].clone(), v.upper[b : b + 1].clone()) for k, v in bounds.items()}
        part = Interval(box.lower[b : b + 1], box.upper[b : b + 1])
        work = _Refiner(
            network=network,
            box=part,
            bounds=one,
            refinement=refinement,
            solver=solver,
            seconds=seconds_per_neuron,
            left=left,
        )
        with contextlib.suppress(OutOfRange):  # the bounds so far stand
            for k in network.activations:
                work.refine(k)
        parts.append(one)
    return {k: Interval(*(torch.cat([getattr(p[k], s) for p in parts]) for s in ("lower", "upper"))) for k in bounds}


@dataclasses.dataclass(frozen=True, eq=False)
class _Refiner:
    """Tightens the bounds of one example in place."""

    network: Network
    box: Interval
    bounds: dict[int, Interval]
    refinement: Refinement
    solver: solvers.Solver
    seconds: float
    left: Callable[[], float]

    def refine(self, k: int) -> None:
        """The undecided neurons of one node. A neuron that becomes stable is not bounded further."""
        if all(p == 0 for p in self.network.nodes[self.network.nodes[k].parents[0]].parents):
            return  # an affine function of the box, where interval arithmetic is exact
        if self.left() <= 0:
            return
        gates = Gates.from_preactivations(self.network, self.bounds)
        undecided = gates.unstable(k)[0].nonzero().squeeze(-1).tolist()
        seen = seen_ranges(self.network, self.box)[k]
        lower, upper = self.bounds[k].lower[0], self.bounds[k].upper[0]
        signs = self.refinement is Refinement.SIGNS
        if signs:
            undecided = [i for i in undecided if seen.lower[i] > 0 or seen.upper[i] < 0]
        if not undecided:
            return
        for neuron, program, rounding in forward_programs(self.network, self.box, self.bounds, gates, k, undecided):
            for below in (True, False):
                # With SIGNS only the side of the sign that was not seen is of use.
                if self.left() <= 0 or (signs and below != bool(seen.lower[neuron] > 0)):
                    continue
                end = self._least(program if below else _negated(program))
                reached = float(seen.lower[neuron] if below else -seen.upper[neuron])
                if not np.isfinite(end) or end > reached + SOLVED * (1 + abs(reached)):
                    continue  # the program has a point and bounded columns: anything else is the solver's trouble
                end -= rounding
                if below:
                    lower[neuron] = max(float(lower[neuron]), end)
                else:
                    upper[neuron] = min(float(upper[neuron]), -end)
            # Two bounds on a neuron that hardly moves may cross by what they are rounded outward.
            ends = sorted((float(lower[neuron]), float(upper[neuron])))
            lower[neuron], upper[neuron] = ends

    def _least(self, program: solvers.MixedIntegerProgram) -> float:
        """A proved lower bound on the program's minimum."""
        exact = self.refinement is not Refinement.LP

        def decided(_seconds: float, objective: float, bound: float) -> bool:
            return self.refinement is Refinement.SIGNS and (objective < 0 or bound > SOLVED * (1 + abs(objective)))

        # A bound that is closer than that decides no more signs, and what is taken is the bound whatever the gap is.
        limits = solvers.Limits(time_limit=min(self.seconds, max(self.left(), 0.01)), relative_gap=1e-4)
        program = program if exact else program.relaxed()
        solution = self.solver.solve(program, limits, on_progress=decided)
        if solution.status is solvers.SolveStatus.INTERRUPTED and not decided(0.0, *_last(solution)):
            raise KeyboardInterrupt  # the solver turned it into a status
        return solution.dual_bound - solver_error(self.solver, program, solution)


def _last(solution: solvers.Solution) -> tuple[float, float]:
    """Objective (inf if there is none) and bound that a solve ended with."""
    return (np.inf if solution.objective is None else solution.objective), solution.dual_bound


def _negated(program: solvers.MixedIntegerProgram) -> solvers.MixedIntegerProgram:
    return dataclasses.replace(program, cost=-program.cost, offset=-program.offset)


def seen_ranges(network: Network, box: Interval, samples: int = 1024) -> dict[int, Interval]:
    """Ranges (neurons,) of every pre-activation over random points and corners of one box: inside the true ranges."""
    random = torch.Generator(box.lower.device).manual_seed(0)
    unit = torch.rand(samples, network.in_size, generator=random, dtype=box.lower.dtype, device=box.lower.device)
    unit[: samples // 2] = unit[: samples // 2].round()
    values = network.values(box.lower + unit * (box.upper - box.lower))
    z = {k: values[network.nodes[k].parents[0]] for k in network.activations}
    return {k: Interval(v.amin(0), v.amax(0)) for k, v in z.items()}
