"""Settling: the sign of a hidden pre-activation over the whole box, proved by halving the box.

On deep networks CROWN leaves many neurons undecided whose pre-activation never changes its sign: the relaxations of all
earlier layers are too wide over the whole box, and narrow enough over its parts. Layer after layer, the neurons that
samples show on one side only are *targets*. A frontier of boxes covers what is left: in every box each target has a
linear function below ``s z``; where its minimum is positive, the target is settled there. A box with targets left is
halved along the input that moves these functions, or the relaxations they rest on, the most. Samples choose the targets
and choose nothing else; a target that a centre of a box refutes is given up, and so are the dearest ones while the
frontier is too long. What is settled on the whole frontier holds on the box, with the smallest minimum as its bound.

It pays where few inputs move: the frontier grows like the number of halvings that it takes, to the power of these.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lipcompare.budget import Copies, Deadline, chunk_size, fitting, tensor_bytes
from lipcompare.gates import PreactivationBounds
from lipcompare.network.activations import Lines
from lipcompare.network.graph import Activate, Affine, Network, affine_value, fold_backward, fold_forward
from lipcompare.network.interval import Interval, end_functionals
from lipcompare.network.linear_maps import LinearMap
from lipcompare.preactivation.backward import backward_plane, concretise
from lipcompare.preactivation.interval import pass_errors


@dataclasses.dataclass(frozen=True)
class Effort:
    """How hard to try.

    Attributes:
        samples: inputs that choose the targets, half of them corners of the box.
        frontier: most open boxes; the targets that keep the most of them open are given up beyond that.
        batch: boxes at a time.
        indirect: weight of what an input moves in the relaxations of earlier layers, against what it moves in the
            targets' own functions.
        least: share of a layer's targets that must be proved for later layers to be tried; layers with under ``few``
            targets say nothing.
    """

    samples: int = 20_000
    frontier: int = 6_000
    batch: int = 512
    indirect: float = 4.0
    least: float = 0.2
    few: int = 5


@dataclasses.dataclass(eq=False)
class Halvings:
    """The boxes that one layer's targets were settled on, as a binary tree: what a proof of it needs.

    Attributes:
        count: boxes, of which the whole one is the first.
        steps: per batch of boxes that were halved their numbers (some,), those of their lower halves, which the upper
            ones follow, the inputs along which, and the targets that were open there, packed to bits (some, bytes).
    """

    count: int = 1
    steps: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = dataclasses.field(default_factory=list)

    def halve(self, boxes: np.ndarray, along: np.ndarray, left: np.ndarray) -> np.ndarray:
        """Halves of ``boxes`` (some,) along inputs: numbers of the lower ones, then of the upper ones.

        ``left``: (some, targets) which targets are open there.
        """
        lower = self.count + 2 * np.arange(len(boxes))
        self.steps.append((boxes, lower, along, np.packbits(left, axis=1)))
        self.count += 2 * len(boxes)
        return np.concatenate([lower, lower + 1])

    def preorder(self, proved: np.ndarray) -> list[int]:
        """The input of every halving that targets ``proved`` (targets,) needed, before its lower and its upper half,
        and -1 for boxes that are not halved."""
        needed = np.packbits(proved)
        first, halved = np.zeros(self.count, np.int64), np.full(self.count, -1)
        for boxes, lower, along, left in self.steps:
            first[boxes], halved[boxes] = lower, np.where((left & needed).any(1), along, -1)
        inputs, waiting = list[int](), [0]
        while waiting:
            box = waiting.pop()
            inputs.append(int(halved[box]))
            if halved[box] >= 0:
                waiting += [int(first[box]) + 1, int(first[box])]
        return inputs


MOST_INPUTS = 32
"""Moving inputs up to which settling is worth a try: with more of them no box gets small enough in time."""


def worthwhile(network: Network, box: Interval, bounds: PreactivationBounds) -> bool:
    """Whether settling can be expected to pay: few moving inputs, kinks at the origin, a second hidden layer.

    Args:
        box: (inputs,).
        bounds: (1, neurons) per activation node.
    """
    moving = int((box.upper > box.lower).sum())
    later = list(bounds)[1:]
    undecided = sum(int(((bounds[k].lower < 0) & (bounds[k].upper > 0)).sum()) for k in later)
    return 0 < moving <= MOST_INPUTS and undecided > moving


def settle(
    network: Network,
    box: Interval,
    bounds: PreactivationBounds,
    *,
    effort: Effort = Effort(),
    memory: int = 2**30,
    deadline: Deadline | None = None,
    keep: Callable[[int, list[int]], None] | None = None,
) -> dict[int, Interval]:
    """Tighter pre-activation bounds over one box, for networks with one kink, at the origin.

    Args:
        box: (inputs,).
        bounds: what is proved so far, (1, neurons) per activation node.
        deadline: when it has passed, what is settled by then is kept.
        keep: told per node with settled targets the halvings that prove them, as :meth:`Halvings.preorder` has them.
    """
    deadline = deadline or Deadline()
    settled = {k: Interval(z.lower.clone(), z.upper.clone()) for k, z in bounds.items()}
    if _box_bytes(network, settled) > memory:
        return settled  # the halves of its boxes would take as long
    seen = _seen(network, box, effort.samples, memory, deadline)
    took = 0.0
    for number, k in enumerate(settled):
        if number == 0:
            continue  # over a box, interval arithmetic is exact for affine functions of the input
        if deadline.passed(ahead=took):  # as long as the layer before took, which is nearer to the input
            break
        left = deadline.left
        whole = Interval(box.lower.unsqueeze(0), box.upper.unsqueeze(0))
        slack = {k: error[0] for k, error in pass_errors(network, whole, settled).items()}
        settled[k] = _bounds(network, whole, {**settled}, slack, k)[0][k]
        lower, upper = settled[k].lower[0], settled[k].upper[0]
        one_sided = (seen[k].lower > 0) | (seen[k].upper < 0)
        targets = ((lower < 0) & (upper > 0) & one_sided).nonzero().squeeze(-1)
        took = left - deadline.left if math.isfinite(left) else 0.0
        if not len(targets):
            continue
        side = torch.where(seen[k].lower[targets] > 0, 1.0, -1.0).to(lower)
        halvings = None if keep is None else Halvings()
        least = _prove(network, whole, settled, slack, k, targets, side, effort, memory, deadline, halvings)
        proved = least > 0
        if keep is not None and halvings is not None and bool(proved.any()):
            keep(k, halvings.preorder(proved.cpu().numpy()))
        up, down = targets[proved & (side > 0)], targets[proved & (side < 0)]
        lower[up], upper[down] = least[proved & (side > 0)], -least[proved & (side < 0)]
        if deadline.passed() or (len(targets) >= effort.few and int(proved.sum()) < effort.least * len(targets)):
            break
    return settled


_SEEN = 2**26
"""Bytes of samples at a time: a tenth of a second, after which the clock is asked."""


def _box_bytes(network: Network, bounds: PreactivationBounds) -> int:
    """What the planes around the open neurons of one box take."""
    open_ = max(int(((z.lower < 0) & (z.upper > 0)).sum()) for z in bounds.values())
    return tensor_bytes(Copies.SUBDOMAIN, 2 * open_ * network.widest, next(iter(bounds.values())).lower)


def _seen(network: Network, box: Interval, count: int, memory: int, deadline: Deadline) -> dict[int, Interval]:
    """Range (neurons,) of every pre-activation over samples of the box, half of them corners, or the first of them."""
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(count, len(box.lower), generator=generator, dtype=torch.float64)
    share[::2] = (share[::2] < 0.5).double()
    points = box.lower + (box.upper - box.lower) * share.to(box.lower)
    seen: dict[int, Interval] = {}
    each = tensor_bytes(1, sum(n.size for n in network.nodes), points)
    for chunk in points.split(fitting(min(memory, _SEEN), each)):
        if seen and deadline.passed():
            break
        values = network.values(chunk)
        for k in network.activations:
            z = values[network.nodes[k].parents[0]]
            low, high = seen.get(k, Interval(z[0], z[0]))
            seen[k] = Interval(torch.minimum(low, z.amin(0)), torch.maximum(high, z.amax(0)))
    return seen


def _bounds(
    network: Network, boxes: Interval, over_box: PreactivationBounds, slack: Mapping[int, Tensor], last: int
) -> tuple[dict[int, Interval], dict[int, tuple[Tensor, Tensor]]]:
    """Bounds (boxes, neurons) of the activation nodes up to ``last``, refined where the whole box leaves them open.

    Returns also, per node, the open neurons and the slopes (boxes or 1, open, inputs) of the planes around them, as
    absolute values.
    """
    batch = len(boxes.lower)
    bounds: dict[int, Interval] = {}
    planes: dict[int, tuple[Tensor, Tensor]] = {}
    lines: dict[int, Lines] = {}
    for k in network.activations:
        if k > last:
            break
        node = network.nodes[k]
        assert isinstance(node, Activate)
        lower, upper = (v.expand(batch, -1).clone() for v in over_box[k])
        open_ = ((over_box[k].lower < 0) & (over_box[k].upper > 0))[0].nonzero().squeeze(-1)
        if len(open_):
            rows = end_functionals(open_, node.size, lower)
            normal, constant = backward_plane(network, lines, node.parent, rows)
            above = concretise(boxes, normal, constant) + slack[k][open_].repeat(2)
            high, low = above[:, : len(open_)], -above[:, len(open_) :]
            upper[:, open_] = torch.minimum(upper[:, open_], high)
            lower[:, open_] = torch.maximum(lower[:, open_], low)
            normal = normal if normal.ndim == 3 else normal.unsqueeze(0)
            first, second = normal.abs().chunk(2, dim=1)
            planes[k] = open_, (first + second) / 2
        bounds[k] = Interval(lower, upper).ordered
        lines[k] = Lines(*(v.unsqueeze(1) for v in node.activation.relaxation(bounds[k])))
    return bounds, planes


def _prove(
    network: Network,
    box: Interval,
    over_box: PreactivationBounds,
    slack: Mapping[int, Tensor],
    k: int,
    targets: Tensor,
    side: Tensor,
    effort: Effort,
    memory: int,
    deadline: Deadline,
    halvings: Halvings | None = None,
) -> Tensor:
    """Proved lower bounds (targets,) of ``side z`` over the box (1, inputs) where positive, -inf for those given up.

    ``halvings`` gets the boxes on the way there.
    """
    node = network.nodes[k]
    assert isinstance(node, Activate)
    rows = box.lower.new_zeros(len(targets), node.size)
    rows[torch.arange(len(targets), device=rows.device), targets] = -side  # functions above -s z
    each = tensor_bytes(Copies.SUBDOMAIN, 2 * len(targets) * network.widest, rows)
    at_once = min(effort.batch, chunk_size(memory, rows.device, each), fitting(memory, _box_bytes(network, over_box)))
    frontier, open_ = box, torch.ones(1, len(targets), dtype=torch.bool, device=rows.device)
    numbers = np.zeros(1, np.int64)  # of the boxes, where they are kept
    least = torch.full_like(side, torch.inf)
    alive = torch.ones_like(side, dtype=torch.bool)
    while len(open_):
        lowers: list[Tensor] = []
        uppers: list[Tensor] = []
        masks: list[Tensor] = []
        made: list[np.ndarray] = []
        for chunk in torch.arange(len(open_), device=rows.device).split(at_once):
            if deadline.passed():
                return torch.where(_untouched(open_, masks, alive, chunk), least, -torch.inf)
            boxes = Interval(frontier.lower[chunk], frontier.upper[chunk])
            mask = open_[chunk] & alive
            wanted = mask.any(0).nonzero().squeeze(-1)
            bound, left, along = _halve(
                network, boxes, over_box, slack, k, rows[wanted], targets[wanted], mask[:, wanted], effort
            )
            settled = mask[:, wanted] & ~left
            least[wanted] = torch.minimum(least[wanted], torch.where(settled, bound, torch.inf).amin(0))
            rest = torch.zeros_like(mask)
            rest[:, wanted] = left
            keep = left.any(1).nonzero().squeeze(-1)
            lower, upper, j = boxes.lower[keep], boxes.upper[keep], along[keep].unsqueeze(-1)
            middle = ((lower + upper) / 2).gather(1, j)
            lowers += [lower, lower.scatter(1, j, middle)]
            uppers += [upper.scatter(1, j, middle), upper]
            masks += [rest[keep], rest[keep]]
            if halvings is not None:
                parents = numbers[chunk[keep].cpu().numpy()]
                made.append(halvings.halve(parents, along[keep].cpu().numpy(), rest[keep].cpu().numpy()))
        frontier, open_ = Interval(torch.cat(lowers), torch.cat(uppers)), torch.cat(masks)
        alive &= ~_refuted(network, frontier.center, k, targets, side)
        open_ = open_ & alive
        while int(open_.any(1).sum()) > effort.frontier:
            alive[open_.sum(0).argmax()] = False
            open_ = open_ & alive
        kept = open_.any(1).nonzero().squeeze(-1)
        frontier, open_ = Interval(frontier.lower[kept], frontier.upper[kept]), open_[kept]
        numbers = np.concatenate(made)[kept.cpu().numpy()] if made else numbers
    return torch.where(alive, least, -torch.inf)


def _untouched(open_: Tensor, masks: list[Tensor], alive: Tensor, chunk: Tensor) -> Tensor:
    """Targets (targets,) that are settled everywhere although the frontier was not finished: open in no box."""
    waiting = open_[int(chunk[0]) :].any(0)
    for mask in masks:
        waiting |= mask.any(0)
    return alive & ~waiting


def _halve(
    network: Network,
    boxes: Interval,
    over_box: PreactivationBounds,
    slack: Mapping[int, Tensor],
    k: int,
    rows: Tensor,
    neurons: Tensor,
    mask: Tensor,
    effort: Effort,
) -> tuple[Tensor, Tensor, Tensor]:
    """Lower bounds of the targets, which of them stay open, (boxes, targets), and the input to halve, (boxes,).

    An input counts by how far it moves the functions of the open targets over the box, and by how far it moves the
    planes of earlier neurons, weighted with what their relaxations cost the targets per unit of their width.

    Args:
        rows: (targets, size of the node) ``-s e_i`` on the node's pre-activation.
        mask: (boxes, targets) the open ones.
    """
    earlier = network.activations[: network.activations.index(k)]
    bounds, planes = _bounds(network, boxes, over_box, slack, earlier[-1])
    normal, constant, losses = _functions(network, bounds, network.nodes[k].parents[0], rows)
    above = concretise(boxes, normal, constant) + slack[k][neurons]
    left = mask & ~(above < 0)
    weight = left.to(above)
    radius = boxes.radius
    normal = normal if normal.ndim == 3 else normal.unsqueeze(0)
    score = (normal.abs() * weight.unsqueeze(-1)).sum(1) * radius
    for j, loss in losses.items():
        if j in planes:
            open_, slopes = planes[j]
            # A score alone: what is decided has a loss of 0 and any width.
            width = (bounds[j].upper - bounds[j].lower)[:, open_].clamp(min=1e-9)
            share = (loss[..., open_] * weight.unsqueeze(-1)).sum(1) / width
            moved = torch.matmul(share.unsqueeze(1), slopes.expand(len(share), -1, -1)).squeeze(1)
            score = score + effort.indirect * moved * radius
    return -above, left, score.argmax(-1)


def _functions(
    network: Network, bounds: Mapping[int, Interval], node: int, rows: Tensor
) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
    """Affine functions above ``rows`` times a node's value, (boxes, targets, inputs) and (boxes, targets), and what the
    relaxation of every earlier neuron adds to them, (boxes, targets, neurons) per activation node."""
    constants: list[Tensor] = []
    losses: dict[int, Tensor] = {}

    def activation(k: int, item: Activate, coefficient: Tensor) -> Tensor:
        line = Lines(*(v.unsqueeze(1) for v in item.activation.relaxation(bounds[k])))
        positive = coefficient.clamp(min=0)
        losses[k] = positive * line.upper_intercept
        constants.append(losses[k].sum(-1))
        return positive * line.upper_slope + (coefficient - positive) * line.lower_slope

    def affine(k: int, item: Affine, maps: Sequence[LinearMap], coefficient: Tensor) -> list[Tensor]:
        if item.bias is not None:
            constants.append(coefficient @ item.bias)
        return [m.adjoint(coefficient) for m in maps]

    coefficient = fold_backward(network, {node: rows}, activation, affine)
    if coefficient is None:
        coefficient = rows.new_zeros(len(rows), network.in_size)
    return coefficient, sum(constants[1:], constants[0]) if constants else rows.new_zeros(len(rows)), losses


def _refuted(network: Network, points: Tensor, k: int, targets: Tensor, side: Tensor) -> Tensor:
    """Targets (targets,) whose pre-activation has the other sign at one of the points (points, inputs)."""
    if not len(points):
        return torch.zeros_like(side, dtype=torch.bool)
    z = fold_forward(
        network,
        {0: points},
        lambda _, node, value: node.activation.value(value),
        lambda _, node, terms: affine_value(node, terms),
        stop=network.nodes[k].parents[0],
    )
    assert z is not None
    return (z[:, targets] * side < 0).any(0)
