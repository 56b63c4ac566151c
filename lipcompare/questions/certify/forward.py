"""Radii by bounds on the margins themselves: interval arithmetic, CROWN, and slopes optimised for the margins."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lipcompare.budget import Deadline
from lipcompare.domain import Box
from lipcompare.network.environment import ordinary
from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.preactivation.adam import Moments, adam_step
from lipcompare.preactivation.outputs import FreeSlopes, functional_lower, joint_lower
from lipcompare.questions.certify.balls import Balls
from lipcompare.rounding import DIVISOR

_ACCURACY = 1e-3
"""Relative width of the bracket at which a search for a radius ends."""
_GUESS = 0.7
"""Of the radius at which the linear parts vanish: where the first bound is asked for."""
_ROOM = 1.25
"""Of CROWN's radius: how far optimised slopes may carry it before bounds are started anew."""
_RATE, _DECAY, _SOFT = 0.25, 0.97, 0.1
"""Of Adam, and the share of the margin at the point over which the smallest rows share the attention."""


def crown_radius(
    balls: Balls, tightening: Tightening, largest: float, passes: int, memory: int, deadline: Deadline
) -> Tensor:
    """Certified radii (batch,), float64, by one bound after another on the margins of all examples at once.

    A bound at one radius says where the next one is asked for: the margins' lower bounds are nearly concave in it, so
    the search is regula falsi in the version of Illinois, which takes about half the passes of bisection.
    """
    best = torch.zeros_like(balls.gaps[:, 0])
    gap = balls.gaps.amin(-1)
    low, high = torch.zeros_like(best), torch.full_like(best, largest)
    at_low, at_high = gap.clone(), torch.full_like(best, torch.nan)  # not known yet
    radius = torch.minimum(_GUESS * balls.first_order(), high)
    alive = balls.correct.nonzero().squeeze(-1)
    before = torch.zeros_like(balls.correct)
    for _ in range(passes):
        if not len(alive) or deadline.passed():
            break
        some, tried = balls.select(alive), radius[alive]
        domain = some.domain(tried)
        with torch.no_grad():
            margins = functional_lower(some.network, domain.region, some.rows, tightening, memory=memory)
        value, holds = margins.double().amin(-1), (margins > 0).all(-1)
        best[alive] = torch.where(holds, torch.maximum(best[alive], some.inner(domain, tried)), best[alive])
        # Illinois: the end that has stayed twice counts half.
        twice = holds == before[alive]
        kept_low = torch.where(~holds & twice, 0.5 * at_low[alive], at_low[alive])
        kept_high = torch.where(holds & twice, 0.5 * at_high[alive], at_high[alive])
        low[alive], at_low[alive] = torch.where(holds, tried, low[alive]), torch.where(holds, value, kept_low)
        capped = torch.maximum(value, -gap[alive])  # far out bounds fall ever faster
        high[alive], at_high[alive] = torch.where(holds, high[alive], tried), torch.where(holds, kept_high, capped)
        before[alive] = holds
        radius = _next(low, at_low, high, at_high, gap)
        open_ = (low < largest) & ((high - low > _ACCURACY * high) | at_high.isnan())
        alive = alive[open_[alive]]
    return best


def _next(low: Tensor, at_low: Tensor, high: Tensor, at_high: Tensor, gap: Tensor) -> Tensor:
    """Where to ask next: between the ends, or beyond the lower one while nothing is known of the upper."""
    share = (at_low / (at_low - at_high)).clamp(0.02, 0.98)
    between = low + share * (high - low)
    beyond = low * (gap / (gap - at_low).clamp(min=DIVISOR)).clamp(1.1, 4.0)
    return torch.where(at_high.isnan(), torch.minimum(beyond, high), between)


def optimised_radius(
    balls: Balls, start: Tensor, largest: float, steps: int, memory: int, deadline: Deadline
) -> Tensor:
    """Radii (batch,) at least ``start``, with all slopes of the relaxation optimised for the margins.

    Slopes and radius move together: each pass bounds the margins at a radius, its gradient improves the slopes, and the
    next radius is where Newton's method expects the margins to end. Every pass whose margins hold proves its radius.

    Args:
        start: radii that are proved already; examples with none are left alone.
        steps: passes, each of which costs about three of CROWN.
    """
    best = start.clone()
    some = (balls.correct & (start > 0) & (start < largest)).nonzero().squeeze(-1)
    if not len(some) or not balls.network.activations:
        return best
    chosen = balls.select(some)
    if not FreeSlopes.fit(chosen.network, len(some), chosen.points, memory):
        if len(some) == 1:
            return best
        half = len(some) // 2
        for index in (some[:half], some[half:]):
            best[index] = optimised_radius(
                balls.select(index), start[index], largest, steps, memory, Deadline.after(deadline.left / 2)
            )
        return best
    best[some] = _climb(chosen, start[some], largest, steps, memory, deadline)
    return best


@ordinary()
def _climb(balls: Balls, start: Tensor, largest: float, steps: int, memory: int, deadline: Deadline) -> Tensor:
    network, dtype = balls.network, balls.points.dtype
    best, radius = start.clone(), start.clone()
    most = (_ROOM * start).clamp(max=largest)
    with torch.no_grad():
        known = preactivation_bounds(network, balls.domain(most).region, Tightening.CROWN, memory=memory)
    slopes = FreeSlopes(network, known, balls.rows.shape[1], memory)
    moments = {k: Moments.like(v) for k, v in slopes.tensors.items()}
    soft = _SOFT * balls.gaps.amin(-1, keepdim=True)
    for step in range(1, steps + 1):
        if deadline.passed():
            break
        for tensor in slopes.tensors.values():
            tensor.requires_grad_()
        size = radius.to(dtype).requires_grad_()
        with torch.enable_grad():
            domain = balls.domain(size)
            margins = joint_lower(network, domain.region, balls.rows, slopes, known)
            weight = torch.softmax(-margins.detach().double() / soft, -1).to(dtype)
            wanted = [size, *slopes.tensors.values()]
            steep, *gradients = torch.autograd.grad(
                (weight * margins).sum(), wanted, allow_unused=True, materialize_grads=True
            )
        margins = margins.detach()
        value, holds = margins.double().amin(-1), (margins > 0).all(-1)
        best = torch.where(holds, torch.maximum(best, balls.inner(_detached(domain), radius)), best)
        # Newton's method on the radius, within what the bounds at the start cover; flat margins go to the end of it.
        moved = radius + value / (-steep.double()).clamp(min=1e-12)
        # Where numbers are out of range there is no step.
        radius = torch.minimum(torch.maximum(torch.where(moved.isfinite(), moved, best), 0.9 * best), most)
        rate = _RATE * _DECAY ** (step - 1)
        with torch.no_grad():
            for key, gradient in zip(slopes.tensors, gradients, strict=True):
                adam_step(slopes.tensors[key], gradient, moments[key], step, -rate, least=1e-12)
    return best


def _detached(domain: Box) -> Box:
    """The same domain without what autograd remembers."""
    changes = {
        f.name: value.detach()
        for f in dataclasses.fields(domain)
        if isinstance(value := getattr(domain, f.name), Tensor)
    }
    return dataclasses.replace(domain, **changes)
