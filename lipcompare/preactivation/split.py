"""Pre-activation bounds over subdomains: boxes cut by decisions on the signs of pre-activations.

Deciding a neuron restricts the inputs to ``s z(x) >= 0``. The neuron's own interval is cut at the kink, which makes its
relaxation exact and tightens everything after it. For everything else the decision is used as a half-space: CROWN's
plane above ``s z`` gives ``a'x + b >= 0`` for every input of the subdomain, and a linear functional is then maximised
over box and half-spaces: any multipliers of them prove a bound (as in beta-CROWN, Wang et al. 2021, arXiv 2103.06624),
and a few pivots of the dual simplex method find nearly the best ones. So earlier neurons profit too, and most
subdomains without any input are found; the others by :func:`without_contradictions`. Bounds are rounded outward.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lipcompare.budget import Copies, Deadline, chunk_size, fitting, tensor_bytes
from lipcompare.gates import Gates
from lipcompare.network.activations import Lines
from lipcompare.network.graph import Activate, Affine, Network, Terms, fold_forward
from lipcompare.network.interval import Interval
from lipcompare.preactivation.backward import Start
from lipcompare.preactivation.interval import Reach, at_input, interval_affine, pass_error, through_activation
from lipcompare.preactivation.simplex import multipliers
from lipcompare.regions.program import Regions, contradictory
from lipcompare.rounding import SPARE, allowance, floor


@dataclasses.dataclass(frozen=True, eq=False)
class HalfSpaces:
    """``normal x + offset >= 0`` for every input of a subdomain; rows of zeros fill up.

    Attributes:
        normal: (subdomains, constraints, inputs).
        offset: (subdomains, constraints).
        node, neuron: (subdomains, constraints) whose decision it is; node -1 where there is none.
    """

    normal: Tensor
    offset: Tensor
    node: Tensor
    neuron: Tensor

    @property
    def count(self) -> int:
        return int(self.offset.shape[1])


class SplitBounds(NamedTuple):
    """What is known about a batch of subdomains.

    Attributes:
        bounds: per activation node an interval (subdomains, neurons).
        gates: slope ranges, decided neurons at their side.
        empty: (subdomains,) true where no input is left.
        halfspaces: the decisions as constraints on the input.
    """

    bounds: dict[int, Interval]
    gates: Gates
    empty: Tensor
    halfspaces: HalfSpaces


def split_bounds(
    network: Network,
    box: Interval,
    signs: Mapping[int, Tensor],
    start: Mapping[int, Interval],
    *,
    pivots: int = 4,
    passes: int = 2,
    memory: int = 2**30,
    deadline: Deadline | None = None,
) -> SplitBounds:
    """Bounds on every pre-activation over a batch of subdomains of a piecewise linear network.

    Args:
        box: (subdomains, inputs).
        signs: per activation node decisions (subdomains, neurons): 1 for ``z >= 0``, -1 for ``z <= 0``, 0 undecided.
        start: bounds that hold anyway, (1 or subdomains, neurons).
        pivots: of the dual simplex method for the multipliers of the half-spaces, at most; 0 uses the decisions only in
            later layers.
        passes: times that the network is propagated through.
        memory: bytes that a pass may take; targets are chunked to respect it.
        deadline: when it has passed, neurons that were not refined yet keep the bounds of interval arithmetic.
    """
    deadline = deadline or Deadline()
    pivots = min(pivots, network.in_size + network.neurons)  # one for every variable there may be
    spaces: dict[int, HalfSpaces] = {}
    propagated = _propagate(network, box, signs, start, spaces, pivots, memory, deadline)
    for _ in range(passes - 1 if any(s.count for s in spaces.values()) else 0):
        # Decisions on later neurons cut the box for earlier ones only from the second pass on.
        if deadline.passed():
            break
        again = _propagate(network, box, signs, propagated.bounds, spaces, pivots, memory, deadline)
        propagated = again._replace(empty=again.empty | propagated.empty)
    return propagated


def without_contradictions(split: SplitBounds, box: Interval) -> SplitBounds:
    """The same, with those empty too where no input of the box satisfies all half-spaces: one linear program each."""
    cutting = _useful(box, split.halfspaces)
    if not cutting.count:
        return split
    none = torch.zeros_like(cutting.offset)  # the half-spaces were widened already
    regions = Regions(cutting.normal, cutting.offset, none, cutting.neuron, box.lower, box.upper)
    return split._replace(empty=split.empty | contradictory(regions))


def _propagate(
    network: Network,
    box: Interval,
    signs: Mapping[int, Tensor],
    start: Mapping[int, Interval],
    spaces: dict[int, HalfSpaces],
    pivots: int,
    memory: int,
    deadline: Deadline,
) -> SplitBounds:
    """One pass from the input on; ``spaces`` are the half-spaces by node, replaced by tighter ones on the way."""
    slacks: dict[int, Tensor] = {}
    lines: dict[int, Lines] = {}
    bounds: dict[int, Interval] = {}
    slopes: dict[int, Interval] = {}
    empty = torch.zeros(box.lower.shape[0], dtype=torch.bool, device=box.lower.device)

    def activation(k: int, node: Activate, z: Reach) -> Reach:
        nonlocal empty
        sign, current = signs[k], z.interval.meet(start[k])
        if node.parent in slacks:
            wanted = _wanted(node, current, sign)
            planes = _planes(network, lines, node, wanted, slacks[node.parent], pivots, memory, deadline)
            if planes or k not in spaces:
                spaces[k] = _halfspaces(planes, sign, k, box)
            known = _useful(box, _joined(list(spaces.values()))) if pivots else _joined([_no_halfspaces(box)])
            # Neurons that only came along stay as they are: a result must not depend on its batch.
            current = _refine(box, current, planes, known, pivots, deadline).select(wanted, current)
        empty = empty | ((sign > 0) & (current.upper < 0) | (sign < 0) & (current.lower > 0)).any(-1)
        empty = empty | (current.lower > current.upper).any(-1)
        cut = cut_at_kink(current, sign)
        bounds[k] = cut
        slopes[k] = decided_slopes(node.activation.slope_range(cut), sign, node)
        lines[k] = node.activation.relaxation(cut)
        return through_activation(node.activation, z._replace(interval=cut), lines[k])

    def affine(k: int, node: Affine, terms: Terms[Reach]) -> Reach:
        reach = interval_affine(node, terms)
        slacks[k] = pass_error(reach, network)
        return reach

    fold_forward(network, {0: at_input(box)}, activation, affine)
    everything = _joined([*spaces.values(), _no_halfspaces(box)])
    empty |= _excluded(box, everything)
    return SplitBounds(bounds=bounds, gates=Gates(slopes), empty=empty, halfspaces=everything)


def cut_at_kink(current: Interval, sign: Tensor) -> Interval:
    """The interval on the decided side of the kink; put in order where the subdomain is empty."""
    lower = torch.where(sign > 0, current.lower.clamp(min=0), current.lower)
    upper = torch.where(sign < 0, current.upper.clamp(max=0), current.upper)
    return Interval(lower, upper).ordered


def decided_slopes(slope: Interval, sign: Tensor, node: Activate) -> Interval:
    """Slope ranges with the decided neurons at their side of the kink, which keeps both slopes otherwise."""
    ends = node.activation.slopes_anywhere(slope.lower)
    low, high = Interval(ends.lower, ends.lower), Interval(ends.upper, ends.upper)
    return high.select(sign > 0, low.select(sign < 0, slope))


Planes = list[tuple[Tensor, Tensor, Tensor]]
"""Neurons (subdomains, n), planes above ``z`` of each and then above ``-z``: (subdomains, 2 n, inputs), (.., 2 n)."""


def _planes(
    network: Network,
    lines: Mapping[int, Lines],
    node: Activate,
    wanted: Tensor,
    slack: Tensor,
    pivots: int,
    memory: int,
    deadline: Deadline,
) -> Planes:
    """CROWN's planes for the ``wanted`` neurons (subdomains, size) of ``node``, raised by the rounding allowance.

    Every subdomain gets those of its own; where it has fewer than others, some of its settled neurons come along.
    """
    batch = wanted.shape[0]
    widest = max(n.size for n in network.nodes[: node.parent])
    rows = pivots // 2  # in single precision
    each = [tensor_bytes(copies, 2 * batch * widest, slack) for copies in (Copies.DESCENT, Copies.MULTIPLIER + rows)]
    chunk = min(chunk_size(memory, slack.device, each[0]), fitting(memory, sum(each)))
    shared = {k: Lines(*(v.unsqueeze(1) for v in line)) for k, line in lines.items()}
    planes = []
    for neurons in _first(wanted).split(chunk, dim=1) if bool(wanted.any()) else ():
        if deadline.passed():
            break
        # Whatever any subdomain asks for is a target; the first step of the way back is then shared.
        targets, part = torch.unique(neurons, return_inverse=True)
        both = torch.cat([part, part + len(targets)], 1)
        normal, constant = Start.of_ends(network, node.parent, targets, slack).planes(network, shared, chosen=both)
        planes.append((neurons, normal, constant + slack.expand(batch, -1).gather(1, neurons).repeat(1, 2)))
    return planes


def _wanted(node: Activate, current: Interval, sign: Tensor) -> Tensor:
    """The undecided and the decided neurons (subdomains, size), not those that bounds settle."""
    slopes = node.activation.slope_range(current)
    return (slopes.upper > slopes.lower) | (sign != 0)


def _first(mask: Tensor) -> Tensor:
    """Indices (subdomains, width) of marked columns, then of others: as many as the fullest row has marked."""
    width = int(mask.sum(-1).max())
    return torch.argsort((~mask).to(torch.uint8), dim=-1, stable=True)[:, :width]


def _refine(
    box: Interval, current: Interval, planes: Planes, halfspaces: HalfSpaces, pivots: int, deadline: Deadline
) -> Interval:
    """Bounds from the planes over box and half-spaces, where they are tighter; crossed in empty subdomains."""
    lower, upper = (end.clone() for end in current)
    for neurons, normal, constant in planes:
        if deadline.passed():
            break
        count = neurons.shape[1]
        above = constrained_maximum(normal, constant, box, halfspaces, 0)
        high, low = above.split(count, dim=1)
        # What is not a number bounds nothing.
        high, low = torch.fmin(upper.gather(1, neurons), high), torch.fmax(lower.gather(1, neurons), -low)
        mixed = (low < 0) & (high > 0)
        if pivots and halfspaces.count and bool(mixed.any()):
            # Only what is still undecided is worth the multipliers; what comes along stays as it is.
            index = _first(mixed)
            still = mixed.gather(1, index)
            both = torch.cat([index, index + count], 1)
            chosen = normal.gather(1, both.unsqueeze(-1).expand(-1, -1, normal.shape[-1]))
            above = constrained_maximum(chosen, constant.gather(1, both), box, halfspaces, pivots)
            over, under = above.split(index.shape[1], dim=1)
            before = low.gather(1, index), high.gather(1, index)
            low = low.scatter(1, index, torch.where(still, torch.fmax(before[0], -under), before[0]))
            high = high.scatter(1, index, torch.where(still, torch.fmin(before[1], over), before[1]))
        upper.scatter_(1, neurons, high)
        lower.scatter_(1, neurons, low)
    return Interval(lower, upper)


def _halfspaces(planes: Planes, sign: Tensor, node: int, box: Interval) -> HalfSpaces:
    """The planes above ``s z`` of the decided neurons."""
    if not planes:
        return _no_halfspaces(box)
    neurons = torch.cat([part for part, _, _ in planes], 1)
    side = sign.gather(1, neurons)
    if not bool(side.any()):
        return _no_halfspaces(box)
    index = _first(side != 0)
    side = side.gather(1, index)
    halves = [(normal.tensor_split(2, 1), constant.tensor_split(2, 1)) for _, normal, constant in planes]
    above, below = (torch.cat([normal[i] for normal, _ in halves], 1) for i in (0, 1))
    above_offset, below_offset = (torch.cat([constant[i] for _, constant in halves], 1) for i in (0, 1))
    wide = index.unsqueeze(-1).expand(-1, -1, above.shape[-1])
    normal = torch.where((side > 0).unsqueeze(-1), above.gather(1, wide), below.gather(1, wide))
    offset = torch.where(side > 0, above_offset.gather(1, index), below_offset.gather(1, index))
    present = side != 0
    neuron = torch.where(present, neurons.gather(1, index), -1)
    return HalfSpaces(
        normal=torch.where(present.unsqueeze(-1), normal, 0.0),
        offset=torch.where(present, offset, 0.0),
        node=torch.where(present, node, -1),
        neuron=neuron,
    )


def _joined(parts: list[HalfSpaces]) -> HalfSpaces:
    names = [f.name for f in dataclasses.fields(HalfSpaces)]
    return HalfSpaces(*(torch.cat([getattr(part, n) for part in parts], 1) for n in names))


def _no_halfspaces(box: Interval) -> HalfSpaces:
    count, inputs = box.lower.shape
    index = torch.zeros(count, 0, dtype=torch.int64, device=box.lower.device)
    return HalfSpaces(box.lower.new_zeros(count, 0, inputs), box.lower.new_zeros(count, 0), index, index)


def _least(box: Interval, spaces: HalfSpaces) -> tuple[Tensor, Tensor]:
    """Smallest and largest value (subdomains, constraints) of each constraint over the box."""
    middle = spaces.offset + torch.matmul(spaces.normal, box.center.unsqueeze(-1)).squeeze(-1)
    reach = torch.matmul(spaces.normal.abs(), box.radius.unsqueeze(-1)).squeeze(-1)
    return middle - reach, middle + reach


def _excluded(box: Interval, spaces: HalfSpaces) -> Tensor:
    """Subdomains (subdomains,) with a half-space that misses the box, beyond rounding."""
    if not spaces.count:
        return torch.zeros(len(spaces.offset), dtype=torch.bool, device=spaces.offset.device)
    _, most = _least(box, spaces)
    size = spaces.offset.abs() + torch.matmul(spaces.normal.abs(), box.magnitude.unsqueeze(-1)).squeeze(-1)
    return (most < -allowance(spaces.normal.shape[-1] + SPARE, size.dtype) * (size + floor(size.dtype))).any(-1)


def _useful(box: Interval, spaces: HalfSpaces) -> HalfSpaces:
    """Only the half-spaces that cut their box, moved to the front."""
    if not spaces.count:
        return spaces
    least, _ = _least(box, spaces)
    cutting = least < 0
    index = _first(cutting)
    present = cutting.gather(-1, index)
    normal = spaces.normal.gather(1, index.unsqueeze(-1).expand(-1, -1, spaces.normal.shape[-1]))
    return HalfSpaces(
        normal=torch.where(present.unsqueeze(-1), normal, 0.0),
        offset=torch.where(present, spaces.offset.gather(1, index), 0.0),
        node=spaces.node.gather(1, index),
        neuron=spaces.neuron.gather(1, index),
    )


def constrained_maximum(normal: Tensor, constant: Tensor, box: Interval, spaces: HalfSpaces, pivots: int) -> Tensor:
    """Upper bounds (subdomains, targets) of affine functions over box and half-spaces.

    ``max {c'x + b : x in box, A x + h >= 0} <= b + l'h + max_box (c + A'l)'x`` for every ``l >= 0``.

    Args:
        normal, constant: (subdomains, targets, inputs) and (subdomains, targets).
    """
    radius = box.radius.unsqueeze(1)
    center = box.center.unsqueeze(-1)
    value = constant + torch.matmul(normal, center).squeeze(-1)
    rest = normal * radius
    plain = value + rest.abs().sum(-1)
    if not spaces.count or not pivots:
        return plain
    walls = spaces.normal * radius  # (subdomains, constraints, inputs), per unit of the box
    heights = spaces.offset + torch.matmul(spaces.normal, center).squeeze(-1)
    found = multipliers(rest, walls, heights, pivots)
    value = value + torch.einsum("jst,sj->st", found, heights)
    # Formed anew from the multipliers, without what the steps on the way there rounded.
    rest = normal * radius + torch.einsum("jst,sji->sti", found, walls)
    bound = value + rest.abs().sum(-1)
    # The sums round; the half-spaces themselves were widened already.
    magnitude = torch.maximum(box.center.abs() + box.radius, box.radius).unsqueeze(-1)
    size = torch.matmul(spaces.normal.abs(), magnitude).squeeze(-1) + spaces.offset.abs() + floor(plain.dtype)
    error = torch.einsum("jst,sj->st", found, size)
    terms = 2 * (normal.shape[-1] + spaces.count) + SPARE
    bound = bound + allowance(terms, bound.dtype) * error
    return torch.fmin(plain, bound)
