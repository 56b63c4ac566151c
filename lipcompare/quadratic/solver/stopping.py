"""When a problem stops: its gap is small, it has met a target, or another of its group beats it."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lipcompare.budget import Deadline
from lipcompare.quadratic.solver.dual import best_multiple
from lipcompare.quadratic.solver.iterate import Iterate

_FEASIBLE = 1e-3
"""Of the first primal infeasibility: with more left of it the gap means nothing."""
_TRUSTED = 0.1
"""With more left of it a problem's expected end means nothing."""


@dataclasses.dataclass(frozen=True, eq=False)
class Rules:
    """When a problem stops; see :func:`~lipcompare.quadratic.solver.interior_point.solve`."""

    tolerance: float
    max_iterations: int
    target: Tensor | None
    group: Tensor | None
    floor: Tensor | None
    compete: bool
    deadline: Deadline
    review: int


@dataclasses.dataclass(frozen=True, eq=False)
class Remaining:
    """What is known of the problems that still run, one entry each, so that a step needs no indices.

    Attributes:
        alive: which of all problems they are.
        best: the best dual value so far, scaled.
        y: its point, see :meth:`~lipcompare.quadratic.solver.dual.Dual.row`.
        expected: value in the network's units that a problem is expected not to end below.
        scalable: those without a cost, see :func:`~lipcompare.quadratic.solver.dual.best_multiple`.
        target, group: as for :func:`~lipcompare.quadratic.solver.interior_point.solve`; -inf, 0 for none.
    """

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

    def select(self, index: Tensor) -> Remaining:
        return Remaining(**{f.name: getattr(self, f.name).index_select(0, index) for f in dataclasses.fields(self)})

    def after(self, iterate: Iterate, healthy: Tensor, tolerance: float) -> Remaining:
        """After an iteration: with the iterate's point, if it is the best so far, and what its gap says."""
        c, y = iterate.coefficients, iterate.y
        signs, rest = (0.25 / iterate.lam * c.signs).sum(-1), (c.linear * y).sum(-1)
        value = signs + rest
        t = best_multiple(signs, rest, self.scalable)
        balanced = torch.where(t == 1, value, t * rest + signs / t)
        better = healthy & (balanced < self.best)
        distance = gap(iterate)
        # Values are about one (rescaled); those of next to nothing are not solved to their own size.
        done = healthy & (distance <= tolerance * value.abs().clamp(min=1e-3)) & (iterate.infeasible <= _FEASIBLE)
        trusted = healthy & (iterate.infeasible <= _TRUSTED)
        guess = torch.where(trusted, value - 1.5 * distance - 0.5 * iterate.infeasible, -torch.inf).to(self.best)
        return dataclasses.replace(
            self,
            best=torch.where(better, balanced, self.best),
            y=torch.where(better.unsqueeze(-1), y * t.unsqueeze(-1), self.y),
            iterations=self.iterations + 1,
            converged=self.converged | done,
            expected=torch.maximum(self.expected, (guess + self.offset) * self.scale),
        )


def gap(iterate: Iterate) -> Tensor:
    """What the dual value is expected to lose: complementarity, less what the closed form of tau gains already, and
    what the trace multiplier costs beyond the solver's own trace constraint."""
    c = iterate.coefficients
    gain = ((iterate.tau - 0.25 / iterate.lam) * c.signs).sum(-1)
    return iterate.complementarity - gain + iterate.d * (c.bound - c.trace)


def infeasibility(iterate: Iterate) -> Tensor:
    rows = 2 * (iterate.matrices[0] * iterate.coefficients.k).sum(-2) - iterate.coefficients.b
    return rows.abs().amax(-1)
