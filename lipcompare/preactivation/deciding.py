"""Slopes optimised on receptive fields, for the neurons whose sign they may decide.

On networks for images optimised slopes change few signs: of neurons that CROWN leaves open, those whose interval
barely crosses zero. So only these are worth a descent, and of each only the end that is near zero.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lipcompare.budget import Copies, Deadline, fitting, pass_bytes
from lipcompare.network.activations import LeakyReLU, Lines
from lipcompare.network.graph import Activate, Network
from lipcompare.network.grouping import Group, by_entry, by_position, grouped
from lipcompare.network.interval import Interval
from lipcompare.network.patches import Items, Patches, Table, dot, positions_of, window_costs
from lipcompare.preactivation.adam import Moments, adam_step
from lipcompare.preactivation.descent import Descent
from lipcompare.preactivation.patches import PatchBackward

_NEAR = 0.05
"""Share of its interval that a neuron may have on the short side of zero; of 400 a layer, none above it was decided."""

_MUCH = 3e11
"""Multiply-adds of the descent for all open neurons of a node on whole images from which on only these few get it."""


def decides(network: Network, node: int, open_neurons: int, steps: int) -> bool:
    """Whether a node's descent is for the neurons near zero alone: it would take minutes for all."""
    if not all(_bent(network, k) is not None for k in network.activations if k < node):
        return False
    return window_costs(network, node).images * open_neurons * 2 * 3 * steps > _MUCH


def _bent(network: Network, k: int) -> float | None:
    """Slope of an activation's lower side where it is a number less than one; None for other activations."""
    activation = network.activation(k)
    if not isinstance(activation, LeakyReLU) or not isinstance(activation.alpha, float):
        return None
    return activation.alpha if activation.alpha < 1 else None


def near_zero(current: Interval) -> Tensor:
    """Neurons (batch, size) whose interval barely crosses zero."""
    short = torch.minimum(-current.lower, current.upper)
    return (short > 0) & (short < _NEAR * (current.upper - current.lower))


def decided(
    network: Network,
    box: Interval,
    bounds: Mapping[int, Interval],
    lines: Mapping[int, Lines],
    node: int,
    current: Interval,
    descent: Descent,
    *,
    memory: int,
    deadline: Deadline,
) -> Interval:
    """Bounds on an affine node's value (batch, size), with the short ends of neurons near zero improved.

    Args:
        bounds, lines: of every activation node before ``node``.
    """
    backward = _Descending(network, box, bounds, lines)
    grid = backward.grids[node]
    lower, upper = (by_position(end.unsqueeze(1), grid).contiguous() for end in current)
    tensors = 2 * Copies.DESCENT * (len(lines) + 1)
    each = tensors * lower.element_size() * window_costs(network, node).widest
    most = fitting(4 * pass_bytes(memory, lower.device), each)
    for group in grouped(by_position(near_zero(current).unsqueeze(1), grid), most=most, together=most):
        if deadline.passed():
            break
        index = (group.example.unsqueeze(-1), group.position.unsqueeze(-1), group.slot)
        low, high = lower[index], upper[index]
        sign = torch.where(-low < high, -1.0, 1.0).to(low.dtype)
        end = backward.least(node, group, sign, descent, deadline)
        lower[index] = torch.where(group.filled & (sign < 0), torch.maximum(low, -end), low)
        upper[index] = torch.where(group.filled & (sign > 0), torch.minimum(high, end), high)
    return Interval(*(by_entry(end, grid, 1).squeeze(1) for end in (lower, upper)))


class _Descending(PatchBackward):
    """Backward passes in which every item has slopes of its own."""

    def __init__(
        self, network: Network, box: Interval, bounds: Mapping[int, Interval], lines: Mapping[int, Lines]
    ) -> None:
        super().__init__(network, box, lines)
        self.free = {
            k: Table(((z.lower < 0) & (z.upper > 0)).to(z.lower.dtype), self.grids[k]) for k, z in bounds.items()
        }

    def least(self, node: int, group: Group, sign: Tensor, descent: Descent, deadline: Deadline) -> Tensor:
        """The least upper bound (groups, slots) on ``sign`` times entries of a node's value that the descent meets."""
        grid = self.grids[node]
        items = Items(positions_of(group.position, grid), grid[1:], group.example, group.slot.shape[1])
        one = Patches.entries(items, group.slot.flatten(), grid, sign.dtype)
        start = one.with_values(one.values * sign.view(1, -1, *(1,) * len(grid)))
        choices: dict[int, Tensor] = {}
        moments: dict[int, Moments] = {}
        best = torch.full_like(sign, torch.inf)
        for step in range(1, descent.steps + 1):
            if deadline.passed():
                break
            with torch.enable_grad():
                upper = self._upper(node, start, choices)
                names = list(choices)
                slopes = [choices[k] for k in names]
                gradients = torch.autograd.grad(upper.sum(), slopes) if slopes else ()
            best = torch.minimum(best, upper.detach().view_as(best))
            rate = descent.rate * descent.decay ** (step - 1)
            with torch.no_grad():
                for k, gradient in zip(names, gradients, strict=True):
                    adam_step(choices[k], gradient, moments.setdefault(k, Moments.like(gradient)), step, rate)
        return best

    def _upper(self, node: int, start: Patches, choices: dict[int, Tensor]) -> Tensor:
        """Upper bounds (1, items) with these choices; those of activations that have none yet begin as CROWN's."""
        constant: list[Tensor] = []

        def activation(k: int, _: Activate, weights: Patches) -> Patches:
            table, rows = self.lines[k], weights.rows
            index = table.slope.index(weights)
            low = table.slope.read(weights, index)
            free = self.free[k].read(weights, index)
            alpha = _bent(self.network, k)
            assert alpha is not None
            if k not in choices:
                first = ((low - alpha) / (1 - alpha)).clamp(0, 1)
                choices[k] = first.expand(rows.shape[1:]).clone().requires_grad_()
            positive = rows.clamp(min=0)
            constant.append(dot(rows, table.offset.read(weights, index)))
            constant.append(dot(positive, table.lift.read(weights, index)))
            steep = alpha + (1 - alpha) * choices[k]
            lower = low + free * (steep - low)
            passed = positive * (low + table.rise.read(weights, index)) + (rows - positive) * lower
            return weights.with_rows(passed)

        return self.upper(node, start, activation, constant)
