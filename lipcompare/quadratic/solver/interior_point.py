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
from lipcompare.quadratic.solver.advance import advance
from lipcompare.quadratic.solver.iterate import Coefficients, Iterate, joined
from lipcompare.quadratic.solver.steps import inverse_factor

# The start, in the units of quadratic/scaling.py: the sizes of all coordinates and of the optimum near 1.
_CONSTANT = 1.0  # theta_0
_GATES = 0.3  # sum of the other theta
_SIGNS = 0.25  # lam_j times the size of its entry
_CUTS = 0.03  # sum of the nu
_MARGIN = 0.3  # smallest d times the number of coordinates
_PRIMAL = 5.0  # M = 5 I: large and infeasible; small or feasible starts take two to five times the iterations

_FEASIBLE = 1e-3  # of the first primal infeasibility: with more left of it the gap means nothing
_TRUSTED = 0.1  # with more left of it a problem's expected end means nothing
_SINGLE = 1e-3  # gap that single precision reaches, in as many iterations as double, on every reference program
_SWITCH = 1e-2  # gap at which double precision takes over where a smaller one is asked for
_LARGE = 48  # coordinates from which on single precision pays
_MOST_SINGLE = 25  # iterations; what has not come there by then is left to double precision
_MARGIN_SINGLE = 1e-5  # relative: what the certificate may add to a point of single precision


@dataclasses.dataclass(frozen=True, eq=False)
class Dual:
    """A dual point: ``S = sum_i theta_i A_i - sum_j lam_j g_j g_j' - C0 + d I`` is positive semidefinite.

    Attributes:
        theta: (problems, n) one per coordinate.
        lam: (problems, J) positive, one per undecided sign.
        d: (problems,) multiplier of the trace.
        nu: (problems, cuts) one per cut, not negative unless the cut is an equation; None without cuts.
    """

    theta: Tensor
    lam: Tensor
    d: Tensor
    nu: Tensor | None = None

    def select(self, index: Tensor) -> Dual:
        return Dual(*(None if v is None else v[index] for v in (self.theta, self.lam, self.d, self.nu)))  # type: ignore[arg-type]


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


def slack_matrix(data: SdpData, dual: Dual) -> Tensor:
    """``S`` (problems, n, n) of a dual point; 1 on the diagonal of coordinates that a problem does not have."""
    half = data.columns * dual.theta.unsqueeze(-2)
    slack = half + half.mT - data.cost
    if data.entries.shape[-1]:
        slack = slack - (data.entries * dual.lam.unsqueeze(-2)) @ data.entries.mT
    if dual.nu is not None and data.cuts.left.shape[-1]:
        cuts = (data.cuts.left * dual.nu.unsqueeze(-2)) @ data.cuts.right.mT
        slack = slack - cuts - cuts.mT
    slack.diagonal(dim1=-2, dim2=-1).add_(torch.where(data.mask, dual.d.unsqueeze(-1), 1.0))
    return slack


def dual_value(data: SdpData, dual: Dual) -> Tensor:
    """Dual objective (problems,), in scaled units and without the offset."""
    signs = torch.where(data.entry_mask, 0.25 / dual.lam, torch.zeros_like(dual.lam)).sum(-1)
    return (data.right * dual.theta).sum(-1) + signs + dual.d * data.bound


def balance(data: SdpData, dual: Dual, scalable: Tensor) -> tuple[Dual, Tensor]:
    """The best multiple of a dual point, and its objective.

    Without a cost ``C0`` the multipliers times any ``t > 0`` are feasible as well, with the value ``t a + b / t`` for
    ``b = sum_j 1/(4 lam_j)`` and ``a`` all else: ``2 sqrt(a b)`` at best. In the first iterations, with ``a`` far
    above ``b``, this is a third or half of ``a + b``.

    Args:
        scalable: (problems,) those without a cost; the others keep their point.
    """
    signs = torch.where(data.entry_mask, 0.25 / dual.lam, 0.0).sum(-1)
    t = _balance(signs, dual_value(data, dual) - signs, scalable).unsqueeze(-1)
    nu = None if dual.nu is None else torch.where(data.cuts.mask, dual.nu * t, 1.0)
    scaled = Dual(dual.theta * t, dual.lam * t, dual.d * t[:, 0], nu)
    return scaled, dual_value(data, scaled)


def _balance(signs: Tensor, rest: Tensor, scalable: Tensor) -> Tensor:
    """``t`` (problems,) of :func:`balance`, from ``b`` and ``a``."""
    uneven = scalable & (signs > 0) & (rest > 0)
    return torch.where(uneven, signs / rest, 1.0).sqrt()


def default_start(data: SdpData) -> Dual:
    """The cold start: multipliers of about the right size, and the trace multiplier that makes them feasible."""
    theta = (_GATES / data.mask.sum(-1, keepdim=True)) * data.equations.to(data.columns)
    theta[:, 0] = _CONSTANT
    # Signs that are coordinates have b_i = 1 and share half of the value.
    extra = data.right.clone()
    extra[:, 0] = 0
    theta = torch.where(extra > 0, _CONSTANT / extra.sum(-1, keepdim=True).clamp(min=1), theta)
    sizes = torch.linalg.vector_norm(data.entries, dim=-2).clamp(min=1e-9)
    lam = torch.where(data.entry_mask, _SIGNS / sizes, 1.0)
    return feasible_trace(data, Dual(theta, lam, torch.zeros_like(data.trace), default_cuts(data)))


def default_cuts(data: SdpData) -> Tensor:
    """Where multipliers of cuts start, (problems, cuts)."""
    nu = _CUTS / data.cuts.mask.sum(-1, keepdim=True).clamp(min=1) * torch.ones_like(data.cuts.left[:, 0])
    return torch.where(data.cuts.mask, nu, 1.0).masked_fill(data.cuts.equal, 0.0)


def feasible_trace(data: SdpData, dual: Dual) -> Dual:
    """The same multipliers with a trace multiplier that leaves a margin to the boundary."""
    least = _MARGIN / data.mask.sum(-1)
    lowest = _lowest_eigenvalue(slack_matrix(data, dataclasses.replace(dual, d=torch.zeros_like(dual.d))))
    d = torch.maximum(torch.maximum(least, dual.d), 0.3 * least - 1.2 * lowest)
    return dataclasses.replace(dual, d=d)


def _lowest_eigenvalue(matrix: Tensor) -> Tensor:
    """Of each matrix; NaN, of which no bound comes, where its numbers are out of range."""
    finite = matrix.isfinite().flatten(-2).all(-1)
    lowest: Tensor = torch.linalg.eigvalsh(matrix.where(finite[..., None, None], 0.0))[..., 0]
    return lowest.where(finite, torch.nan)


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

    The first iterations run in single precision, which reaches a gap of ``_SINGLE`` in as many iterations; what is
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
    rules = _Rules(
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
        if _pays_single(data):
            iterate, which = _start(data, first, torch.float32), everything
            enough = tolerance if tolerance >= _SINGLE else _SWITCH
            run.iterate(iterate, which, enough, min(_MOST_SINGLE, max_iterations), final=enough == tolerance)
            waiting = run.take_waiting()
        else:
            waiting = (_start(data, first, data.columns.dtype), everything)
        if waiting is not None and run.steps < max_iterations and not rules.deadline.missed:
            run.iterate(*waiting, tolerance, max_iterations, final=True)
        return run.solution()


@dataclasses.dataclass(frozen=True, eq=False)
class _Rules:
    """When a problem stops; see :func:`solve`."""

    tolerance: float
    max_iterations: int
    target: Tensor | None
    group: Tensor | None
    floor: Tensor | None
    compete: bool
    deadline: Deadline
    review: int


@dataclasses.dataclass(eq=False)
class _Run:
    """What is known of all problems, filled in as they leave the iteration."""

    data: SdpData
    rules: _Rules
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
    def begin(cls, data: SdpData, first: Dual, rules: _Rules) -> _Run:
        best = dual_value(data, first)
        no = torch.zeros(data.problems, dtype=torch.bool, device=best.device)
        return cls(
            data=data,
            rules=rules,
            best=best,
            y=_row(first, data),
            moments=torch.zeros_like(data.columns),
            infeasibility=torch.full_like(best, torch.inf),
            iterations=torch.zeros_like(no, dtype=torch.int64),
            converged=no,
            stopped=no.clone(),
            expected=torch.full_like(best, -torch.inf),
            scalable=~data.cost.flatten(1).any(-1),
            history=[best.clone()],
        )

    def iterate(self, iterate: Iterate, alive: Tensor, tolerance: float, most: int, *, final: bool) -> None:
        """Iterate until all problems have left; not ``final``, those that could go on wait for another precision.

        Args:
            alive: (problems of ``iterate``,) which ones they are.
        """
        rules = self.rules
        local = _Local.of(self, alive)
        margin = _MARGIN_SINGLE if iterate.y.dtype == torch.float32 else 0.0
        while True:
            begun = time.perf_counter()
            iterate, healthy = advance(iterate, ask=rules.review == 1)
            iterate = _loosen(iterate)
            self.steps += 1
            local = local.after(iterate, healthy, tolerance)
            stop = local.converged | ~healthy
            if rules.target is not None:
                met = local.best <= local.target - margin * local.target.abs()
                local.stopped.logical_or_(met)
                stop |= met
            if rules.group is not None:
                stop |= self._beaten(local)
            self.history.append(self.best.index_copy(0, local.alive, local.best))
            last = self.steps >= most
            if not last and self.steps % rules.review:
                continue
            every = bool(stop.all())
            last |= not every and rules.deadline.passed(time.perf_counter() - begun)
            if not (last or every or bool(stop.any())):
                continue
            self._leave(local, iterate, stop | last, final)
            if last or every:
                return
            keep = (~stop).nonzero().squeeze(-1)
            iterate, local = iterate.select(keep), local.select(keep)

    def _beaten(self, local: _Local) -> Tensor:
        """Problems (problems,) that end below their group's floor, or below what another of the group is to reach."""
        assert self.rules.floor is not None and self.rules.group is not None
        top = self.rules.floor
        if self.rules.compete:
            self.expected.index_copy_(0, local.alive, local.expected)
            top = top.scatter_reduce(0, self.rules.group, self.expected, "amax")
        beaten = (local.best + local.offset) * local.scale < top.index_select(0, local.group)
        local.stopped.logical_or_(beaten)
        return beaten

    def _leave(self, local: _Local, iterate: Iterate, leaving: Tensor, final: bool) -> None:
        """Write down the results of the problems at ``leaving`` (problems of ``iterate``,)."""
        which = leaving.nonzero().squeeze(-1)
        gone, iterate = local.select(which), iterate.select(which)
        where = gone.alive
        self.best.index_copy_(0, where, gone.best)
        self.y.index_copy_(0, where, gone.y)
        self.moments.index_copy_(0, where, iterate.matrices[0].to(self.moments))
        self.infeasibility.index_copy_(0, where, _infeasibility(iterate).to(self.best))
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
        return _restored(self.data.select(where), together), where

    def solution(self) -> SdpSolution:
        n, signs = self.data.size, self.data.entries.shape[-1]
        trace = n + signs
        dual = Dual(self.y[:, :n], self.y[:, n:trace], self.y[:, trace], self.y[:, trace + 1 :])
        return SdpSolution(
            dual=dual,
            value=self.best,
            moments=self.moments,
            infeasibility=self.infeasibility,
            iterations=self.iterations,
            converged=self.converged,
            stopped=self.stopped,
            history=torch.stack(self.history),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class _Local:
    """The same of the problems that still run, so that a step needs no indices; ``alive`` says which they are."""

    alive: Tensor
    best: Tensor
    y: Tensor
    iterations: Tensor
    converged: Tensor
    stopped: Tensor
    expected: Tensor
    scalable: Tensor
    target: Tensor
    group: Tensor
    offset: Tensor
    scale: Tensor

    @classmethod
    def of(cls, run: _Run, alive: Tensor) -> _Local:
        rules = run.rules
        full = cls(
            alive=torch.arange(len(run.best), device=alive.device),
            best=run.best,
            y=run.y,
            iterations=run.iterations,
            converged=run.converged,
            stopped=run.stopped,
            expected=run.expected,
            scalable=run.scalable,
            target=torch.full_like(run.best, -torch.inf) if rules.target is None else rules.target.to(run.best),
            group=torch.zeros_like(run.iterations) if rules.group is None else rules.group,
            offset=run.data.offset,
            scale=run.data.scale,
        )
        return full.select(alive)

    def select(self, index: Tensor) -> _Local:
        return _Local(**{f.name: getattr(self, f.name).index_select(0, index) for f in dataclasses.fields(self)})

    def after(self, iterate: Iterate, healthy: Tensor, tolerance: float) -> _Local:
        """With the point that the iterate gives, if it is the best so far."""
        c, y = iterate.coefficients, iterate.y
        signs, rest = (0.25 / iterate.lam * c.signs).sum(-1), (c.linear * y).sum(-1)
        value = signs + rest
        t = _balance(signs, rest, self.scalable)
        balanced = torch.where(t == 1, value, t * rest + signs / t)
        better = healthy & (balanced < self.best)
        gap = _gap(iterate)
        done = healthy & (gap <= tolerance * value.abs().clamp(min=1e-3)) & (iterate.infeasible <= _FEASIBLE)
        trusted = healthy & (iterate.infeasible <= _TRUSTED)
        guess = torch.where(trusted, value - 1.5 * gap - 0.5 * iterate.infeasible, -torch.inf).to(self.best)
        return dataclasses.replace(
            self,
            best=torch.where(better, balanced, self.best),
            y=torch.where(better.unsqueeze(-1), y * t.unsqueeze(-1), self.y),
            iterations=self.iterations + 1,
            converged=self.converged | done,
            expected=torch.maximum(self.expected, (guess + self.offset) * self.scale),
        )


def _pays_single(data: SdpData) -> bool:
    """Whether to begin in single precision: it takes half the time where matrices are large; small programs are mostly
    the overhead of their operations. Equations of cuts are nearly dependent, which it cannot tell from dependent."""
    if data.size < _LARGE or data.columns.dtype != torch.float64:
        return False
    return not data.cuts.count or not bool(data.cuts.equal.any())


def _row(dual: Dual, data: SdpData) -> Tensor:
    """``theta``, ``lam``, ``d`` and ``nu`` side by side."""
    nu = torch.ones_like(data.cuts.slack) if dual.nu is None else dual.nu
    return torch.cat([dual.theta, dual.lam, dual.d.unsqueeze(-1), nu], -1)


def _start(data: SdpData, dual: Dual, dtype: torch.dtype) -> Iterate:
    """The first iterate: the dual point, and ``M`` large and infeasible, everything on the central path."""
    c = Coefficients.of(data, dtype)
    y, slack = _row(dual, data).to(dtype), slack_matrix(data, dual).to(dtype)
    lam, scalars = y[:, c.size : c.size + c.sign_count], y[:, c.size + c.sign_count :]
    tau = 0.5 / lam
    mu = _PRIMAL * (slack.diagonal(dim1=-2, dim2=-1) * c.present).sum(-1) / c.present.sum(-1)
    inverse = mu.unsqueeze(-1) / (tau * lam - 0.25)
    moments = 1 + (_PRIMAL - 1) * c.present
    return Iterate(
        coefficients=c,
        y=y,
        tau=tau,
        blocks=torch.stack([inverse * lam, 0.5 * inverse, inverse * tau]),
        slacks=(mu.unsqueeze(-1) / scalars).masked_fill(c.pairs == 0, 0.0),
        matrices=torch.stack([torch.diag_embed(moments), slack]),
        inverses=torch.stack([torch.diag_embed(moments.rsqrt()), inverse_factor(slack)[0]]),
        infeasible=torch.ones_like(mu),
        caution=torch.ones_like(mu).expand(2, -1),
    )


def _restored(data: SdpData, single: Iterate) -> Iterate:
    """An iterate in the precision of the data, with ``S`` formed anew from the multipliers.

    What rounding took from either matrix comes back as a multiple of the identity, for ``S`` by way of ``d``.
    """
    dtype = data.columns.dtype
    c = dataclasses.replace(Coefficients.of(data, dtype), trace=single.coefficients.trace.to(dtype))
    y, at = single.y.to(dtype), c.size + c.sign_count
    dual = Dual(y[:, : c.size], y[:, c.size : at], y[:, at], y[:, at + 1 :])
    matrices = torch.stack([single.matrices[0].to(dtype), slack_matrix(data, dual)])
    inverses, inside = inverse_factor(matrices)
    for relative in (1e-7, 1e-6, 1e-5, 1e-4, 1e-3):
        if bool(inside.all()):
            break
        size = relative * (matrices.diagonal(dim1=-2, dim2=-1) * c.present).sum(-1) / c.present.sum(-1)
        shift = torch.where(inside, 0.0, size)
        matrices.diagonal(dim1=-2, dim2=-1).add_(shift.unsqueeze(-1) * c.present)
        y[:, at] += shift[1]
        inverses, inside = inverse_factor(matrices)
    return Iterate(
        coefficients=c,
        y=y,
        tau=single.tau.to(dtype),
        blocks=single.blocks.to(dtype),
        slacks=single.slacks.to(dtype),
        matrices=matrices,
        inverses=inverses,
        infeasible=single.infeasible.to(dtype),
        caution=torch.ones_like(single.caution, dtype=dtype),
    )


def _gap(iterate: Iterate) -> Tensor:
    """What the dual value is expected to lose: complementarity, less what the closed form of tau gains already, and
    what the trace multiplier costs beyond the solver's own trace constraint."""
    c = iterate.coefficients
    gain = ((iterate.tau - 0.25 / iterate.lam) * c.signs).sum(-1)
    return iterate.complementarity - gain + iterate.d * (c.bound - c.trace)


def _loosen(iterate: Iterate) -> Iterate:
    """Raise the solver's trace constraint where it gets in the way: it is meant to guide, not to bind."""
    c = iterate.coefficients
    slack = iterate.slacks[:, 0]
    tight = (slack < 0.2 * c.trace) & (c.trace < c.bound) & (iterate.infeasible < 0.3)
    raised = torch.where(tight, torch.minimum(2 * c.trace, c.bound), c.trace)
    slacks = torch.cat([(slack + (raised - c.trace)).unsqueeze(-1), iterate.slacks[:, 1:]], -1)
    return dataclasses.replace(iterate, slacks=slacks, coefficients=dataclasses.replace(c, trace=raised))


def _infeasibility(iterate: Iterate) -> Tensor:
    rows = 2 * (iterate.matrices[0] * iterate.coefficients.k).sum(-2) - iterate.coefficients.b
    return rows.abs().amax(-1)
