"""Pre-activation bounds, node by node from the input: interval, CROWN, and CROWN with optimised slopes."""

from __future__ import annotations

import enum
import functools
import operator
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lipcompare.budget import Copies, Deadline
from lipcompare.domain import NormBall, Region
from lipcompare.network.activations import Activation, Lines
from lipcompare.network.graph import Activate, Affine, Network, Terms, fold_forward
from lipcompare.network.interval import Interval
from lipcompare.preactivation.backward import Further, Start, entry_bounds
from lipcompare.preactivation.deciding import decided, decides, near_zero
from lipcompare.preactivation.descent import Descent, Watch, descend
from lipcompare.preactivation.hurry import Hurry
from lipcompare.preactivation.interval import Reach, at_input, interval_affine, outward, through_activation
from lipcompare.preactivation.patches import patch_bounds, prefers_patches


class Tightening(enum.Enum):
    """How pre-activations are bounded; each includes the ones before it."""

    INTERVAL = "interval"
    CROWN = "crown"
    ALPHA_CROWN = "alpha-crown"


_OPTIMISE = 0.6
"""Share of the time after which slopes are no longer optimised; CROWN's own bounds may take all of it."""


def preactivation_bounds(
    network: Network,
    box: Region,
    tightening: Tightening = Tightening.ALPHA_CROWN,
    *,
    memory: int = 2**30,
    descent: Descent = Descent(),
    crown: Mapping[int, Interval] | None = None,
    deadline: Deadline | None = None,
    watch: Callable[[int, Tensor], Watch] | None = None,
) -> dict[int, Interval]:
    """Bounds on every pre-activation over a batch of boxes.

    A neuron whose sign the cheaper bound already decides is not refined when the activation is piecewise linear: its
    relaxation is exact. A refined neuron keeps the best of all the bounds that were computed for it.

    Args:
        box: an interval (batch, inputs) or a ball; where it is infinite, every pre-activation is free.
        memory: bytes that a backward pass may take at once; targets are chunked to respect it.
        crown: CROWN's bounds, if they are there already.
        deadline: when it has passed, neurons that were not refined yet keep their intervals.
        watch: gives who is told of optimised slopes, for a node and some entries (t,) of its value: 2 t targets, upper
            bounds on the entries and then on their negatives.

    Returns:
        Per activation node an interval (batch, neurons).
    """
    around = box.interval if isinstance(box, NormBall) else box
    if bool(torch.isinf(around.magnitude).any()):
        return _free(network, around)
    deadline = deadline or Deadline()
    if tightening is not Tightening.ALPHA_CROWN:
        return _bounds(network, box, {}, tightening, None, memory, deadline)
    # Tighter bounds early on can flip the lines that CROWN picks later, to a neuron's loss: so plain CROWN counts too.
    sooner = Deadline.after(_OPTIMISE * deadline.left)
    plain = dict(crown) if crown else _bounds(network, box, {}, Tightening.CROWN, None, memory, deadline)
    if sooner.passed():
        deadline.missed = True
        return plain
    bounds = _bounds(network, box, plain, tightening, descent, memory, sooner, watch)
    deadline.missed |= sooner.missed
    return bounds


def _bounds(
    network: Network,
    box: Region,
    within: Mapping[int, Interval],
    tightening: Tightening,
    descent: Descent | None,
    memory: int,
    deadline: Deadline,
    watch: Callable[[int, Tensor], Watch] | None = None,
) -> dict[int, Interval]:
    """Bounds on every pre-activation in one pass from the input on.

    Args:
        within: bounds of activation nodes that hold already.
        descent: how slopes are optimised, None for those that CROWN takes.
    """
    ball = isinstance(box, NormBall)
    hurry = None if ball or descent is not None else Hurry(network, deadline)
    lines: dict[int, Lines] = {}
    bounds: dict[int, Interval] = {}

    def activation(k: int, node: Activate, z: Reach) -> Reach | None:
        bounds[k] = z.interval
        if k == network.activations[-1]:
            return None  # nothing that is bounded here comes after it
        lines[k] = node.activation.relaxation(z.interval)
        return through_activation(node.activation, z, lines[k])

    def affine(k: int, node: Affine, terms: Terms[Reach]) -> Reach:
        reach = interval_affine(node, terms)
        value = reach.interval
        readers = [r for r in network.consumers[k] if isinstance(network.nodes[r], Activate)]
        # Over a box, interval arithmetic is already exact for affine functions of the input.
        straight = not ball and all(p == 0 for p in node.parents)
        for r in readers:
            value = value.intersect(within[r]) if r in within else value
        if readers and tightening is not Tightening.INTERVAL and not straight:
            undecided = functools.reduce(operator.or_, (_undecided(network.activation(r), value) for r in readers))
            steps = descent if lines else None
            refined = _refine(network, box, bounds, lines, k, value, undecided, steps, memory, deadline, hurry, watch)
            value = value.intersect(outward(reach, refined, network))
        return reach._replace(interval=value)

    fold_forward(network, {0: at_input(box)}, activation, affine)
    return bounds


def _undecided(activation: Activation, z: Interval) -> Tensor:
    """Neurons (batch, size) whose slope over ``z`` is not one number."""
    slopes = activation.slope_range(z)
    return slopes.upper > slopes.lower


def _free(network: Network, box: Interval) -> dict[int, Interval]:
    """No bounds at all, as over the whole input space."""
    far = torch.full_like(box.upper[:, :1], torch.inf)
    sizes = {k: network.nodes[k].size for k in network.activations}
    return {k: Interval((-far).expand(-1, size), far.expand(-1, size)) for k, size in sizes.items()}


def _refine(
    network: Network,
    box: Region,
    bounds: dict[int, Interval],
    lines: dict[int, Lines],
    node: int,
    current: Interval,
    undecided: Tensor,
    descent: Descent | None,
    memory: int,
    deadline: Deadline,
    hurry: Hurry | None,
    watch: Callable[[int, Tensor], Watch] | None,
) -> Interval:
    """Bounds on the ``undecided`` entries of a node's value by backward propagation; ``current`` for the others.

    Not always the better of both: the caller takes that, after rounding.

    ``hurry`` says how far back the passes go; None for the input.
    """
    if deadline.passed() or not bool(undecided.any()):
        return current
    if descent is None and isinstance(box, Interval):
        pieces = all(network.activation(k).piecewise_linear for k in bounds)
        ends = hurry.ends(node, int(undecided.sum()), bounds) if hurry and pieces else {}
        if ends or prefers_patches(network, node):
            if ends:
                deadline.missed = True
            return patch_bounds(
                network, box, lines, node, undecided, current, ends=ends, memory=memory, deadline=deadline
            )
    if descent is not None and decides(network, node, int(undecided.sum()), descent.steps):
        if isinstance(box, Interval) and prefers_patches(network, node):
            return decided(network, box, bounds, lines, node, current, descent, memory=memory, deadline=deadline)
        undecided = undecided & near_zero(current)
    further: Further | None = None
    if descent is not None:

        def further(start: Start, entries: Tensor, upper: Tensor) -> Tensor:
            told = watch(node, entries) if watch else None
            return descend(network, box, bounds, start, upper, descent, deadline, told)

    copies = Copies.PLANE if descent is None else Copies.DESCENT * (len(lines) + 1)
    return entry_bounds(
        network, box, lines, node, undecided, current, copies=copies, memory=memory, deadline=deadline, further=further
    )
