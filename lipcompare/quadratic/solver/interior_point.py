"""A batched primal-dual interior point method for the quadratic-gate relaxation.

HKM direction, Mehrotra predictor and corrector, signs eliminated, dual feasible at every iterate: stopping anywhere
gives a bound (docs/quadratic-gates.md has the derivation and the constants' origin). Every decision is taken per
problem, so a problem's result does not depend on the others of its batch beyond rounding.
"""

from __future__ import annotations

import dataclasses
import time

import torch
from torch import Tensor

from lipcompare.budget import Deadline
from lipcompare.quadratic.program import SdpData
from lipcompare.quadratic.solver.advance import advance, with_loose_trace
from lipcompare.quadratic.solver.dual import Dual, dual_value
from lipcompare.quadratic.solver.iterate import Iterate, joined
from lipcompare.quadratic.solver.precision import MARGIN_SINGLE, MOST_SINGLE, SINGLE, SWITCH, pays_single, restored
from lipcompare.quadratic.solver.start import default_start, feasible_trace, first_iterate
from lipcompare.quadratic.solver.stopping import Remaining, Rules, infeasibility


@dataclasses.dataclass(frozen=True, eq=False)
class SdpSolution:
    """Where the iteration stopped, one entry per problem.

    Attributes:
        dual: the best dual point met.
        value: (problems,) its objective in scaled units, not yet checked against rounding.
        moments: (problems, n, n) last primal iterate ``M``.
        infeasibility: (problems,) largest violation of a primal constraint by ``M``.
        iterations: (problems,).
        converged: (problems,) whether the relative gap met the tolerance.
        stopped: (problems,) whether the target, the floor or another problem of the group ended it.
        history: (iterations + 1, problems) dual objective; a stopped problem repeats its last value.
    """

    dual: Dual
    value: Tensor
    moments: Tensor
    infeasibility: Tensor
    iterations: Tensor
    converged: Tensor
    stopped: Tensor
    history: Tensor

    def select(self, index: Tensor) -> SdpSolution:
        changes = {
            f.name: getattr(self, f.name)[index] for f in dataclasses.fields(self) if f.name not in ("dual", "history")
        }
        return SdpSolution(dual=self.dual.select(index), history=self.history[:, index], **changes)


def solve(
    data: SdpData,
    *,
    tolerance: float = 1e-4,
    max_iterations: int = 40,
    start: Dual | None = None,
    target: Tensor | None = None,
    group: Tensor | None = None,
    floor: Tensor | None = None,
    compete: bool = True,
    deadline: Deadline | None = None,
    review: int | None = None,
) -> SdpSolution:
    """Solve a batch of problems.

    The first iterations run in single precision, which reaches a gap of ``SINGLE`` in as many iterations; what is
    left to do is done in double precision.

    Args:
        tolerance: relative gap at which a problem stops.
        start: a dual point; its trace multiplier is raised where needed. None for the cold start.
        target: (problems,) in scaled units: a problem stops once its dual value is at most this.
        group: (problems,) the group of each problem.
        floor: (groups,) in the network's units: a problem stops once its dual value is at most its group's floor.
        compete: also stop a problem once another of its group is expected to end above it. Its bound stays valid, if
            only less tight.
        deadline: no iteration is begun that would end after it, going by how long the last one took.
        review: after so many iterations each those that have stopped leave the batch; in between nothing waits for a
            result. None: 1 on a CPU, where waiting costs nothing, 4 elsewhere.
    """
    if group is not None and floor is None:
        floor = torch.full((int(group.max()) + 1,), -torch.inf, dtype=data.scale.dtype, device=data.scale.device)
    rules = Rules(
        tolerance=tolerance,
        max_iterations=max_iterations,
        target=target,
        group=group,
        floor=floor,
        compete=compete,
        deadline=deadline or Deadline(),
        review=review or (1 if data.columns.device.type == "cpu" else 4),
    )
    with torch.inference_mode():  # small programs are mostly the overhead of their operations
        first = default_start(data) if start is None else feasible_trace(data, start)
        run = _Run.begin(data, first, rules)
        everything = torch.arange(data.problems, device=data.columns.device)
        if pays_single(data):
            iterate, which = first_iterate(data, first, torch.float32), everything
            enough = tolerance if tolerance >= SINGLE else SWITCH
            run.iterate(iterate, which, enough, min(MOST_SINGLE, max_iterations), final=enough == tolerance)
            waiting = run.take_waiting()
        else:
            waiting = (first_iterate(data, first, data.columns.dtype), everything)
        if waiting is not None and run.steps < max_iterations and not rules.deadline.missed:
            run.iterate(*waiting, tolerance, max_iterations, final=True)
        return run.solution()


@dataclasses.dataclass(eq=False)
class _Run:
    """What is known of all problems, filled in as they leave the iteration."""

    data: SdpData
    rules: Rules
    best: Tensor
    y: Tensor
    moments: Tensor
    infeasibility: Tensor
    iterations: Tensor
    converged: Tensor
    stopped: Tensor
    expected: Tensor
    scalable: Tensor
    history: list[Tensor]
    steps: int = 0
    waiting: list[tuple[Iterate, Tensor]] = dataclasses.field(default_factory=list)

    @classmethod
    def begin(cls, data: SdpData, first: Dual, rules: Rules) -> _Run:
        best = dual_value(data, first)
        no = torch.zeros(data.problems, dtype=torch.bool, device=best.device)
        return cls(
            data=data,
            rules=rules,
            best=best,
            y=first.row(data),
            moments=torch.zeros_like(data.columns),
            infeasibility=torch.full_like(best, torch.inf),
            iterations=torch.zeros_like(no, dtype=torch.int64),
            converged=no,
            stopped=no.clone(),
            expected=torch.full_like(best, -torch.inf),
            scalable=~data.cost.flatten(1).any(-1),
            history=[best.clone()],
        )

    def remaining(self, alive: Tensor) -> Remaining:
        """What is known of the problems ``alive`` (some,)."""
        rules = self.rules
        every = Remaining(
            alive=torch.arange(len(self.best), device=alive.device),
            best=self.best,
            y=self.y,
            iterations=self.iterations,
            converged=self.converged,
            stopped=self.stopped,
            expected=self.expected,
            scalable=self.scalable,
            target=torch.full_like(self.best, -torch.inf) if rules.target is None else rules.target.to(self.best),
            group=torch.zeros_like(self.iterations) if rules.group is None else rules.group,
            offset=self.data.offset,
            scale=self.data.scale,
        )
        return every.select(alive)

    def iterate(self, iterate: Iterate, alive: Tensor, tolerance: float, most: int, *, final: bool) -> None:
        """Iterate until all problems have left; not ``final``, those that could go on wait for another precision.

        Args:
            alive: (problems of ``iterate``,) which ones they are.
        """
        rules = self.rules
        remaining = self.remaining(alive)
        margin = MARGIN_SINGLE if iterate.y.dtype == torch.float32 else 0.0
        while True:
            begun = time.perf_counter()
            iterate, healthy = advance(iterate, ask=rules.review == 1)
            iterate = with_loose_trace(iterate)
            self.steps += 1
            remaining = remaining.after(iterate, healthy, tolerance)
            stop = remaining.converged | ~healthy
            if rules.target is not None:
                met = remaining.best <= remaining.target - margin * remaining.target.abs()
                remaining.stopped.logical_or_(met)
                stop |= met
            if rules.group is not None:
                stop |= self._beaten(remaining)
            self.history.append(self.best.index_copy(0, remaining.alive, remaining.best))
            last = self.steps >= most
            if not last and self.steps % rules.review:
                continue
            every = bool(stop.all())
            last |= not every and rules.deadline.passed(time.perf_counter() - begun)
            if not (last or every or bool(stop.any())):
                continue
            self._leave(remaining, iterate, stop | last, final)
            if last or every:
                return
            keep = (~stop).nonzero().squeeze(-1)
            iterate, remaining = iterate.select(keep), remaining.select(keep)

    def _beaten(self, remaining: Remaining) -> Tensor:
        """Problems (problems,) that end below their group's floor, or below what another of the group is to reach."""
        assert self.rules.floor is not None and self.rules.group is not None
        top = self.rules.floor
        if self.rules.compete:
            self.expected.index_copy_(0, remaining.alive, remaining.expected)
            top = top.scatter_reduce(0, self.rules.group, self.expected, "amax")
        beaten = (remaining.best + remaining.offset) * remaining.scale < top.index_select(0, remaining.group)
        remaining.stopped.logical_or_(beaten)
        return beaten

    def _leave(self, remaining: Remaining, iterate: Iterate, leaving: Tensor, final: bool) -> None:
        """Write down the results of the problems at ``leaving`` (problems of ``iterate``,)."""
        which = leaving.nonzero().squeeze(-1)
        gone, iterate = remaining.select(which), iterate.select(which)
        where = gone.alive
        self.best.index_copy_(0, where, gone.best)
        self.y.index_copy_(0, where, gone.y)
        self.moments.index_copy_(0, where, iterate.matrices[0].to(self.moments))
        self.infeasibility.index_copy_(0, where, infeasibility(iterate).to(self.best))
        self.iterations.index_copy_(0, where, gone.iterations)
        self.stopped.index_copy_(0, where, gone.stopped)
        self.converged.index_copy_(0, where, gone.converged if final else gone.converged & gone.stopped)
        if not final or iterate.y.dtype == torch.float32:
            waits = ~gone.stopped & ~(gone.converged if final else torch.zeros_like(gone.converged))
            some = waits.nonzero().squeeze(-1)
            if len(some):
                self.waiting.append((iterate.select(some), where.index_select(0, some)))

    def take_waiting(self) -> tuple[Iterate, Tensor] | None:
        """The problems that single precision leaves, as iterates in that of the data; None if there are none."""
        if not self.waiting:
            return None
        where = torch.cat([which for _, which in self.waiting])
        order = where.argsort()
        together = joined([iterate for iterate, _ in self.waiting]).select(order)
        self.waiting.clear()
        where = where.index_select(0, order)
        return restored(self.data.select(where), together), where

    def solution(self) -> SdpSolution:
        return SdpSolution(
            dual=Dual.of_row(self.y, self.data.size, self.data.entries.shape[-1]),
            value=self.best,
            moments=self.moments,
            infeasibility=self.infeasibility,
            iterations=self.iterations,
            converged=self.converged,
            stopped=self.stopped,
            history=torch.stack(self.history),
        )
