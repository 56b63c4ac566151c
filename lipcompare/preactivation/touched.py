"""Pre-activation bounds over subdomains of large images: only what a decision touches is bounded again.

A decision on one neuron of a convolution changes what lies behind it in a cone of windows; everything else keeps the
bounds that hold over the whole box. Decisions are used as in the paper (arXiv 2210.07394, section 3.4): their neuron's
relaxation becomes exact, which tightens everything behind it. They do not cut the box for other neurons, as in
:mod:`~lipcompare.preactivation.split`, where every neuron is pushed back to the whole image for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lipcompare.budget import Copies, Deadline
from lipcompare.gates import Gates
from lipcompare.network.activations import Lines
from lipcompare.network.graph import Activate, Affine, Network, Terms, fold_backward, fold_forward, linear_value
from lipcompare.network.interval import Interval
from lipcompare.network.linear_maps import LinearMap
from lipcompare.preactivation.backward import entry_bounds
from lipcompare.preactivation.interval import Reach, at_input, interval_affine, outward, through_activation
from lipcompare.preactivation.patches import patch_bounds, prefers_patches
from lipcompare.preactivation.split import cut_at_kink, decided_slopes


class Touched(NamedTuple):
    """What is known of a batch of subdomains.

    Attributes:
        bounds: per activation node an interval (subdomains, neurons).
        gates: slope ranges, decided neurons at their side.
        empty: (subdomains,) true where no input is left.
    """

    bounds: dict[int, Interval]
    gates: Gates
    empty: Tensor


class _Arrived(NamedTuple):
    """A node's value over the subdomains, and where it may have changed since the whole box.

    Attributes:
        changed: (subdomains, size), 1 for entries that depend on anything that did, else 0.
    """

    reach: Reach
    changed: Tensor


def touched_bounds(
    network: Network,
    box: Interval,
    signs: Mapping[int, Tensor],
    start: Mapping[int, Interval],
    whole: Mapping[int, Interval],
    moved: Tensor,
    *,
    memory: int = 2**30,
    deadline: Deadline | None = None,
) -> Touched:
    """Bounds on every pre-activation over a batch of subdomains of a piecewise linear network.

    Args:
        box: (subdomains, inputs).
        signs: per activation node decisions (subdomains, neurons): 1 for ``z >= 0``, -1 for ``z <= 0``, 0 undecided.
        start: bounds that hold anyway, (subdomains, neurons).
        whole: bounds over the whole box, (1, neurons).
        moved: inputs (subdomains, inputs) whose interval is another than in the whole box.
        deadline: when it has passed, neurons that were not bounded again yet keep the bounds that they had.
    """
    deadline = deadline or Deadline()
    lines: dict[int, Lines] = {}
    bounds: dict[int, Interval] = {}
    slopes: dict[int, Interval] = {}
    empty = torch.zeros(len(box.lower), dtype=torch.bool, device=box.lower.device)

    def activation(k: int, node: Activate, z: _Arrived) -> _Arrived:
        nonlocal empty
        sign, reach = signs[k], z.reach
        current = reach.interval.meet(start[k])
        range_ = node.activation.slope_range(current.ordered)
        wanted = (z.changed > 0) & ((range_.upper > range_.lower) | (sign != 0))
        if lines:  # before the first activation, interval arithmetic is exact
            again = _bounded(network, box, lines, node.parent, current.ordered, wanted, memory, deadline)
            current = current.meet(outward(reach, again, network)).select(wanted, current)
        lower, upper = current
        empty = empty | ((sign > 0) & (upper < 0) | (sign < 0) & (lower > 0) | (lower > upper)).any(-1)
        cut = cut_at_kink(current, sign)
        bounds[k] = cut
        slopes[k] = decided_slopes(node.activation.slope_range(cut), sign, node)
        lines[k] = node.activation.relaxation(cut)
        new = (cut.lower != whole[k].lower) | (cut.upper != whole[k].upper)
        passed = (z.changed > 0) & (slopes[k].magnitude > 0)
        value = through_activation(node.activation, reach._replace(interval=cut), lines[k])
        return _Arrived(value, (new | passed).to(z.changed.dtype))

    def affine(k: int, node: Affine, terms: Terms[_Arrived]) -> _Arrived:
        reach = interval_affine(node, [(m, value.reach) for m, value in terms])
        changed = linear_value([(m.absolute, value.changed) for m, value in terms])
        return _Arrived(reach, (changed > 0).to(changed.dtype))

    fold_forward(network, {0: _Arrived(at_input(box), moved.to(box.lower.dtype))}, activation, affine)
    return Touched(bounds, Gates(slopes), empty)


def touched_gradients(network: Network, gates: Gates, whole: Gates) -> dict[int, Tensor]:
    """Entries of the gradient at every activation and at the input that may have changed since the whole box, 0 or 1:
    (subdomains, size). Those of nodes that do not matter to the output are left out.

    Args:
        gates: of subdomains.
        whole: of the whole box, with a batch axis of 1.
    """
    touched: dict[int, Tensor] = {}
    some = next(iter(gates.slopes.values())).lower
    like = some.new_zeros(len(some), network.out_size)

    def activation(k: int, node: Activate, changed: Tensor) -> Tensor:
        touched[k] = changed
        slope, before = gates.slopes[k], whole.slopes[k]
        new = (slope.lower != before.lower) | (slope.upper != before.upper)
        return (new | (changed > 0) & (slope.magnitude > 0)).to(changed.dtype)

    def affine(k: int, node: Affine, maps: Sequence[LinearMap], changed: Tensor) -> Iterator[Tensor]:
        return ((m.absolute.adjoint(changed) > 0).to(changed.dtype) for m in maps)

    start = fold_backward(network, {len(network.nodes) - 1: like}, activation, affine)
    touched[0] = like.new_zeros(len(some), network.in_size) if start is None else start
    return touched


def _bounded(
    network: Network,
    box: Interval,
    lines: Mapping[int, Lines],
    node: int,
    current: Interval,
    wanted: Tensor,
    memory: int,
    deadline: Deadline,
) -> Interval:
    """CROWN's bounds on entries ``wanted`` (subdomains, size) of an affine node's value; ``current`` elsewhere."""
    if prefers_patches(network, node):
        return patch_bounds(network, box, lines, node, wanted, current, memory=memory, deadline=deadline)
    return entry_bounds(
        network, box, lines, node, wanted, current, copies=Copies.PLANE, memory=memory, deadline=deadline
    )
