"""One predictor-corrector iteration: directions of the Newton system, step lengths, and the iterate after the step."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lipcompare.quadratic.solver.iterate import Iterate, inner
from lipcompare.quadratic.solver.newton import NewtonSystem, Step
from lipcompare.quadratic.solver.steps import block_limit, inverse_factor, matrix_limit, scalar_limit

FRACTION = 0.95  # of the step to the boundary
SIGMA = 1e-4  # smallest centring
LANCZOS = (6, 12)  # steps for the predictor and the corrector; with fewer the latter leaves the cone every other time
ATTEMPTS = 8  # at a step that stays in the cone
SHORTER = 0.7  # factor on the next step after one that left the cone
HOPELESS = 0.7**8  # a problem whose steps have shrunk to this has failed


def advance(iterate: Iterate, *, ask: bool = True) -> tuple[Iterate, Tensor]:
    """One iteration; False (problems,) marks problems whose linear algebra failed (they stay where they were).

    Args:
        ask: whether to look if a step stays in the cone, and to shorten it at once if not. On a GPU that would make
            everything wait: there such a matrix stands still for one iteration, and its next step is shorter.
    """
    newton = NewtonSystem(iterate)
    aff = newton.predictor()
    order, before = iterate.coefficients.order, iterate.complementarity
    reached = _complementarity_after(iterate, aff, _lengths(iterate, aff, LANCZOS[0]))
    sigma = (reached / before).clamp(min=0.0, max=1.0).square().clamp(min=SIGMA)
    step = newton.corrector(sigma * before / order, aff)
    alpha = _lengths(iterate, step, LANCZOS[1])
    healthy = newton.healthy & torch.isfinite(alpha).all(0) & torch.isfinite(step.y).all(-1)
    if not (ask and bool(healthy.all())):
        step = _still(step, healthy)
    after = _after(iterate, step, torch.where(healthy, alpha * iterate.caution, 0.0), ask)
    return after, healthy & (after.caution > HOPELESS).any(0)


def _lengths(iterate: Iterate, step: Step, lanczos: int) -> Tensor:
    """Step lengths (2, problems) in [0, 1] that keep a fraction of the way to the boundary, primal and dual."""
    c = iterate.coefficients
    inverses, change = iterate.inverses.flatten(0, 1), step.matrices.flatten(0, 1)
    limit = matrix_limit(inverses, change, c.probe.repeat(2, 1), lanczos).view(2, -1)
    if c.sign_count:
        lam, dlam = iterate.lam, step.y[:, c.size : c.size + c.sign_count]
        off, zero = torch.full_like(lam, -0.5), torch.zeros_like(lam)
        blocks = torch.stack([iterate.blocks, torch.stack([iterate.tau, off, lam])], 1)
        changes = torch.stack([step.blocks, torch.stack([step.tau, zero, dlam])], 1)
        limit = torch.minimum(limit, block_limit(*blocks, *changes))
    scalars = torch.stack([iterate.slacks, iterate.scalars])
    changes = torch.stack([step.slacks, step.y[:, c.size + c.sign_count :]])
    scalar = scalar_limit(scalars, changes).masked_fill_(c.pairs == 0, torch.inf).amin(-1)
    return (FRACTION * torch.minimum(limit, scalar)).clamp(max=1.0)


def _complementarity_after(iterate: Iterate, aff: Step, alpha: Tensor) -> Tensor:
    """Complementarity (problems,) after a step of the predictor.

    That direction solves the linearised ``M S = 0``: ``<dM, S> + <M, dS> = -<M, S>``, and so for every pair.
    """
    c = iterate.coefficients
    n, trace = c.size, c.size + c.sign_count
    (m, _), (dm, ds) = iterate.matrices, aff.matrices
    dlam, dscalars = aff.y[:, n:trace], aff.y[:, trace:]
    x11, _, x22 = iterate.blocks
    d11, _, d22 = aff.blocks
    dual = inner(m, ds) + (torch.addcmul(x11 * aff.tau, x22, dlam) * c.signs).sum(-1)
    dual = dual + (iterate.slacks * dscalars).sum(-1)
    both = inner(dm, ds) + (torch.addcmul(d11 * aff.tau, d22, dlam) * c.signs).sum(-1)
    both = both + (aff.slacks * dscalars).sum(-1)
    p, q = alpha
    after: Tensor = (1 - p) * iterate.complementarity + (q - p) * dual + p * q * both
    return after


def _after(iterate: Iterate, step: Step, alpha: Tensor, ask: bool) -> Iterate:
    """The iterate after a step of lengths ``alpha`` (2, problems); a matrix that leaves the cone stays where it was."""
    for _ in range(ATTEMPTS if ask else 1):
        matrices = torch.addcmul(iterate.matrices, alpha[..., None, None], step.matrices)
        inverses, inside = inverse_factor(matrices)
        every = ask and bool(inside.all())
        if every:
            break
        alpha = torch.where(inside, alpha, SHORTER * alpha)
    if not every:
        alpha = torch.where(inside, alpha, 0.0)
        stays = ~inside[..., None, None]
        matrices = torch.where(stays, iterate.matrices, matrices)
        inverses = torch.where(stays, iterate.inverses, inverses)
    p, q = alpha.unsqueeze(-1)
    return Iterate(
        coefficients=iterate.coefficients,
        y=torch.addcmul(iterate.y, q, step.y),
        tau=torch.addcmul(iterate.tau, q, step.tau),
        blocks=torch.addcmul(iterate.blocks, p, step.blocks),
        slacks=torch.addcmul(iterate.slacks, p, step.slacks),
        matrices=matrices,
        inverses=inverses,
        infeasible=iterate.infeasible * (1 - p[:, 0]),
        caution=torch.where(inside, 1.0, SHORTER * iterate.caution),
    )


def _still(step: Step, healthy: Tensor) -> Step:
    """The direction with the problems that are not ``healthy`` (problems,) standing still."""

    def of(value: Tensor, axis: int) -> Tensor:
        shape = [1] * value.ndim
        shape[axis] = -1
        return torch.where(healthy.view(shape), value, 0.0)

    return Step(
        y=of(step.y, 0),
        tau=of(step.tau, 0),
        blocks=of(step.blocks, 1),
        slacks=of(step.slacks, 0),
        matrices=of(step.matrices, 1),
        product=step.product,
    )


def with_loose_trace(iterate: Iterate) -> Iterate:
    """Raise the solver's trace constraint where it gets in the way: it is meant to guide, not to bind."""
    c = iterate.coefficients
    slack = iterate.slacks[:, 0]
    tight = (slack < 0.2 * c.trace) & (c.trace < c.bound) & (iterate.infeasible < 0.3)
    raised = torch.where(tight, torch.minimum(2 * c.trace, c.bound), c.trace)
    slacks = torch.cat([(slack + (raised - c.trace)).unsqueeze(-1), iterate.slacks[:, 1:]], -1)
    return dataclasses.replace(iterate, slacks=slacks, coefficients=dataclasses.replace(c, trace=raised))
