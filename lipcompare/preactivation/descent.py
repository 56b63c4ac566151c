"""Slopes of relaxations, optimised for each functional by itself (alpha-CROWN, Xu et al. 2021, arXiv 2011.13824).

A functional's upper bound is a pass back to the input, which ends at the corner of the region where the resulting
affine function is largest. Its derivatives come from the way forward again, from that corner: through every relaxation
a value takes the line that the way back took, and at an activation the bound depends on a line's slope through the
coefficient that arrived there times the value that arrives now. So a step costs two passes and keeps the coefficients.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lipcompare.budget import Deadline
from lipcompare.domain import NormBall, Region
from lipcompare.network.activations import Lines
from lipcompare.network.graph import Activate, Affine, Network, Terms, affine_value, fold_forward
from lipcompare.network.interval import Interval
from lipcompare.preactivation.adam import Moments, adam_step
from lipcompare.preactivation.backward import Passed, Start, concretise

Watch = Callable[[Tensor, Mapping[int, Lines]], None]
"""Is told which targets (batch, targets) were improved, and by which lines, (batch, 1 or targets, neurons)."""


class Descent(NamedTuple):
    """Schedule of the slope optimisation (Adam); the defaults are the paper's."""

    steps: int = 20
    rate: float = 0.5
    decay: float = 0.98


def descend(
    network: Network,
    region: Region,
    bounds: Mapping[int, Interval],
    start: Start,
    best: Tensor,
    descent: Descent,
    deadline: Deadline,
    watch: Watch | None = None,
) -> Tensor:
    """Best upper bounds (batch, targets) over the relaxations' free choices, each target with its own.

    Args:
        bounds: on every pre-activation before the node, (batch, neurons).
        start: functionals of the node's value, whose first step back no choice changes.
        best: bounds that hold already.
        watch: is told of every improvement.
    """
    families, starts = {}, {}
    for k, z in bounds.items():
        wide = Interval(z.lower.unsqueeze(1), z.upper.unsqueeze(1))
        families[k] = network.activation(k).family(wide)
        starts[k] = network.activation(k).start(wide)
    choices = _Choices.of(starts, best)
    passed: dict[int, Passed] = {}
    corner = corners(region)
    for step in range(1, descent.steps + 1):
        if deadline.passed():
            break
        relaxed = {k: families[k](choice) for k, choice in choices.values.items()}
        lines = {k: line for k, (line, _) in relaxed.items()}
        coefficient, constant = start.planes(network, lines, passed=passed)
        if isinstance(region, NormBall):
            found = concretise(region, coefficient, constant)
        else:
            point = corner(coefficient)
            found = (coefficient * point).sum(-1).add_(constant)
        if watch is not None:
            watch(found < best, lines)
        best = torch.minimum(best, found)
        if not passed:
            return best  # no activation lies before this node
        if step == descent.steps:
            break
        if isinstance(region, NormBall):
            point = corner(coefficient)
        for k, value in relaxed_values(network, lines, passed, point).items():
            relaxed[k][1](passed[k], value, choices.gradients[k])
        rate = descent.rate * descent.decay ** (step - 1)
        adam_step(choices.point, choices.gradient, choices.moments, step, rate)
    return best


def corners(region: Region) -> Callable[[Tensor], Tensor]:
    """Where (batch, targets, inputs) affine functions with such coefficients are largest over a region; any such point
    where several are."""
    if isinstance(region, NormBall):
        return functools.partial(_on_ball, region)
    center, radius = region.center.unsqueeze(-2), region.radius.unsqueeze(-2)
    return lambda coefficient: torch.addcmul(center, radius, coefficient.sign())


def _on_ball(region: NormBall, coefficient: Tensor) -> Tensor:
    with torch.enable_grad():
        free = coefficient.detach().requires_grad_()
        (found,) = torch.autograd.grad(concretise(region, free, None).sum(), free)
    return found


def relaxed_values(
    network: Network, lines: Mapping[int, Lines], passed: Mapping[int, Passed], start: Tensor
) -> dict[int, Tensor]:
    """Pre-activations (batch, targets, neurons) of the relaxed network at inputs ``start`` (batch, targets, inputs):
    with every relaxation at the line that was taken."""
    values: dict[int, Tensor] = {}
    last = max(passed)

    def activation(k: int, node: Activate, value: Tensor) -> Tensor | None:
        if k not in passed:
            return None
        values[k] = value
        if k == last:
            return None
        # 1 where the line below was taken; interpolation selects ten times as fast as where() does with mixed masks.
        line, below = lines[k], passed[k].negative.sign().neg_()
        slope = torch.lerp(line.upper_slope, line.lower_slope, below)
        return torch.addcmul(torch.lerp(line.upper_intercept, line.lower_intercept, below), slope, value)

    def affine(k: int, node: Affine, terms: Terms[Tensor]) -> Tensor:
        return affine_value(node, terms)

    fold_forward(network, {0: start}, activation, affine, stop=last)
    return values


@dataclasses.dataclass(frozen=True, eq=False)
class _Choices:
    """The relaxations' free choices, all as one vector, so that a step is a few operations whatever the layers.

    Attributes:
        values, gradients: (batch, targets, neurons) per activation node, parts of the vectors that follow.
        point, gradient: all choices, and their gradient.
        moments: of the gradient.
    """

    values: dict[int, Tensor]
    gradients: dict[int, Tensor]
    point: Tensor
    gradient: Tensor
    moments: Moments

    @classmethod
    def of(cls, starts: Mapping[int, Tensor], like: Tensor) -> _Choices:
        """From starting points (batch, 1, neurons), for every target of ``like`` (batch, targets)."""
        batch, targets = like.shape
        sizes = [batch * targets * start.shape[-1] for start in starts.values()]
        point, gradient, *moments = like.new_zeros(5, sum(sizes)).unbind()

        def parts(of: Tensor) -> dict[int, Tensor]:
            return {k: v.view(batch, targets, -1) for k, v in zip(starts, of.split(sizes), strict=True)}

        values = parts(point)
        for k, start in starts.items():
            values[k].copy_(start)
        return cls(values, parts(gradient), point, gradient, Moments(*moments))
