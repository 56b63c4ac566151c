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
from lipcompare.quadratic.solver.newton import State, advance, complementarity

# The start, in units of problems that sdp_scaling has prepared: the sizes of all coordinates and of the optimum near 1.
_CONSTANT = 1.0  # theta_0
_GATES = 0.3  # sum of the other theta
_SIGNS = 0.25  # lam_j times the size of its entry
_CUTS = 0.03  # sum of the nu
_MARGIN = 0.3  # smallest d times the number of coordinates
_PRIMAL = 5.0  # M = 5 I: large and infeasible; small or feasible starts take two to five times the iterations


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
class Solution:
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

    def select(self, index: Tensor) -> Solution:
        changes = {
            f.name: getattr(self, f.name)[index] for f in dataclasses.fields(self) if f.name not in ("dual", "history")
        }
        return Solution(dual=self.dual.select(index), history=self.history[:, index], **changes)


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
    rest = dual_value(data, dual) - signs
    uneven = scalable & (signs > 0) & (rest > 0)
    t = torch.where(uneven, signs / rest, 1.0).sqrt().unsqueeze(-1)
    nu = None if dual.nu is None else torch.where(data.cuts.mask, dual.nu * t, 1.0)
    scaled = Dual(dual.theta * t, dual.lam * t, dual.d * t[:, 0], nu)
    return scaled, dual_value(data, scaled)


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
    nu = _CUTS / data.cuts.mask.sum(-1, keepdim=True).clamp(min=1) * torch.ones_like(data.cuts.left[:, 0])
    nu = torch.where(data.cuts.mask, nu, 1.0).masked_fill(data.cuts.equal, 0.0)
    return feasible_trace(data, Dual(theta, lam, torch.zeros_like(data.trace), nu))


def feasible_trace(data: SdpData, dual: Dual) -> Dual:
    """The same multipliers with a trace multiplier that leaves a margin to the boundary."""
    least = _MARGIN / data.mask.sum(-1)
    lowest = _lowest_eigenvalue(slack_matrix(data, dataclasses.replace(dual, d=torch.zeros_like(dual.d))))
    d = torch.maximum(torch.maximum(least, dual.d), 0.3 * least - 1.2 * lowest)
    return dataclasses.replace(dual, d=d)


def _lowest_eigenvalue(matrix: Tensor) -> Tensor:
    lowest: Tensor = torch.linalg.eigvalsh(matrix)[..., 0]
    return lowest


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
) -> Solution:
    """Solve a batch of problems.

    Args:
        tolerance: relative gap at which a problem stops.
        start: a dual point; its trace multiplier is raised where needed. None for the cold start.
        target: (problems,) in scaled units: a problem stops once its dual value is at most this.
        group: (problems,) the group of each problem.
        floor: (groups,) in the network's units: a problem stops once its dual value is at most its group's floor.
        compete: also stop a problem once another of its group is expected to end above it. Its bound stays valid, if
            only less tight.
        deadline: no iteration is begun that would end after it, going by how long the last one took.
    """
    deadline = deadline or Deadline()
    count, device = data.problems, data.columns.device
    first = default_start(data) if start is None else feasible_trace(data, start)
    best = dual_value(data, first)
    if first.nu is None:
        first = dataclasses.replace(first, nu=torch.ones_like(data.cuts.left[:, 0]))
    assert first.nu is not None
    theta, lam, d, nu = first.theta.clone(), first.lam.clone(), first.d.clone(), first.nu.clone()
    moments = torch.zeros_like(data.columns)
    infeasibility = torch.full_like(best, torch.inf)
    iterations = torch.zeros(count, dtype=torch.int64, device=device)
    converged = torch.zeros(count, dtype=torch.bool, device=device)
    stopped = torch.zeros_like(converged)
    alive = torch.arange(count, device=device)
    scalable = ~data.cost.flatten(1).any(-1)
    state = _begin(data, first)
    history = [best.clone()]
    expected = torch.full_like(best, -torch.inf)
    with torch.inference_mode():  # small programs are mostly the overhead of their operations
        for step in range(1, max_iterations + 1):
            begun = time.perf_counter()
            state, healthy = advance(state)
            _loosen(state)
            point = Dual(state.theta, state.lam, state.d, state.nu)
            value = dual_value(state.data, point)
            point, balanced = balance(state.data, point, scalable[alive])
            better = healthy & (balanced < best[alive])
            where = alive[better]
            best[where] = balanced[better]
            assert point.nu is not None
            for kept, new in zip((theta, lam, d, nu), (point.theta, point.lam, point.d, point.nu), strict=True):
                kept[where] = new[better]
            history.append(best.clone())
            iterations[alive] = step
            gap = _gap(state)
            done = healthy & (gap <= tolerance * value.abs().clamp(min=1e-3)) & (state.infeasible <= 1e-3)
            converged[alive[done]] = True
            stop = done | ~healthy
            if target is not None:
                met = best[alive] <= target[alive]
                stopped[alive[met]] = True
                stop |= met
            if group is not None:
                offset, scale = state.data.offset, state.data.scale
                trusted = healthy & (state.infeasible <= 0.1)
                guess = torch.where(trusted, value - 1.5 * gap - 0.5 * state.infeasible, -torch.inf)
                groups = int(group.max()) + 1 if floor is None else len(floor)
                top = torch.full((groups,), -torch.inf, dtype=best.dtype, device=device) if floor is None else floor
                if compete:
                    expected[alive] = torch.maximum(expected[alive], (guess + offset) * scale)
                    top = top.scatter_reduce(0, group, expected, "amax")
                beaten = (best[alive] + offset) * scale < top[group[alive]]
                stopped[alive[beaten]] = True
                stop |= beaten
            some = bool(stop.any())
            last = step == max_iterations or (not bool(stop.all()) and deadline.passed(time.perf_counter() - begun))
            if last or some:
                out = alive if last else alive[stop]
                which = torch.ones_like(stop) if last else stop
                moments[out] = state.moments[which]
                infeasibility[out] = _infeasibility(state)[which]
                keep = ~which
                alive = alive[keep]
                if not len(alive):
                    break
                state = state.select(keep)
    return Solution(
        Dual(theta, lam, d, nu), best, moments, infeasibility, iterations, converged, stopped, torch.stack(history)
    )


def _begin(data: SdpData, dual: Dual) -> State:
    slack = slack_matrix(data, dual)
    tau = 0.5 / dual.lam
    diagonal = (slack.diagonal(dim1=-2, dim2=-1) * data.mask).sum(-1)
    mu = _PRIMAL * diagonal / data.mask.sum(-1)
    determinant = tau * dual.lam - 0.25
    inverse = mu.unsqueeze(-1) / determinant
    start = 1 + (_PRIMAL - 1) * data.mask.to(slack)
    factor, _ = torch.linalg.cholesky_ex(slack)
    assert dual.nu is not None
    nu = dual.nu
    x = (mu.unsqueeze(-1) / nu).masked_fill(data.cuts.equal, 0.0)
    return State(
        data, dual.theta, dual.lam, tau, dual.d, nu, x, slack, torch.diag_embed(start),
        inverse * dual.lam, 0.5 * inverse, inverse * tau, mu / dual.d, torch.ones_like(mu),
        data.probe, torch.stack([torch.diag_embed(start.sqrt()), factor]),
    )  # fmt: skip


def _gap(state: State) -> Tensor:
    """What the dual value is expected to lose: complementarity, less what the closed form of tau gains already, and
    what the trace multiplier costs beyond the solver's own trace constraint."""
    gain = torch.where(state.data.entry_mask, state.tau - 0.25 / state.lam, 0.0).sum(-1)
    return complementarity(state) - gain + state.d * (state.data.bound - state.data.trace)


def _loosen(state: State) -> None:
    """Raise the solver's trace constraint where it gets in the way: it is meant to guide, not to bind."""
    trace, bound = state.data.trace, state.data.bound
    tight = (state.s < 0.2 * trace) & (trace < bound) & (state.infeasible < 0.3)
    raised = torch.where(tight, torch.minimum(2 * trace, bound), trace)
    state.s = state.s + (raised - trace)
    state.data = dataclasses.replace(state.data, trace=raised)


def _infeasibility(state: State) -> Tensor:
    rows = 2 * (state.moments * state.data.columns).sum(-2) - state.data.right
    return rows.abs().amax(-1)
