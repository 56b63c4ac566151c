"""Backward propagation of linear functionals through linear relaxations (CROWN, Zhang et al., arXiv 1811.00866)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lipcompare.budget import Deadline, chunk_size, tensor_bytes
from lipcompare.domain import NormBall, Region
from lipcompare.network.activations import Lines
from lipcompare.network.graph import Activate, Affine, Network, adjoints, fold_backward
from lipcompare.network.interval import Interval
from lipcompare.network.linear_maps import LinearMap


class Passed(NamedTuple):
    """The coefficients that arrived at an activation, by sign: (targets, neurons) or (batch, targets, neurons).

    Positive ones go on through the upper line, negative ones through the lower.

    Attributes:
        arrived: both together.
        line: the lines that they met.
        above, constant: what the upper line makes of the positive ones, of the next node's value and of its own.
    """

    positive: Tensor
    negative: Tensor
    arrived: Tensor
    line: Lines
    above: Tensor
    constant: Tensor

    @classmethod
    def through(cls, arrived: Tensor, line: Lines) -> Passed:
        """Coefficients that arrive at an activation with such lines."""
        positive = arrived.clamp(min=0)
        above, constant = positive * line.upper_slope, _dot(positive, line.upper_intercept)
        return cls(positive, arrived - positive, arrived, line, above, constant)

    def again(self, arrived: Tensor, line: Lines) -> bool:
        """Whether the same coefficients meet the same upper line: functionals that start here, in every pass over the
        same bounds, where choices move the lower lines alone."""
        same = line.upper_slope is self.line.upper_slope and line.upper_intercept is self.line.upper_intercept
        return same and arrived is self.arrived


class Start(NamedTuple):
    """Functionals of an affine node's value after their first step back.

    Attributes:
        coefficients: by parent, (targets, size of the parent).
        constant: (targets,).
    """

    coefficients: Mapping[int, Tensor]
    constant: Tensor

    @classmethod
    def of_ends(cls, network: Network, node: int, entries: Tensor, like: Tensor) -> Start:
        """For upper bounds on ``z_i`` and then on ``-z_i`` of some ``entries`` (some,) of a node's value ``z``."""
        affine = network.nodes[node]
        assert isinstance(affine, Affine)
        handed: dict[int, Tensor] = {}
        for p, m in affine.terms:
            rows = m.rows(entries, like)
            part = torch.cat([rows, -rows])
            handed[p] = handed[p] + part if p in handed else part
        bias = like.new_zeros(len(entries)) if affine.bias is None else affine.bias.index_select(0, entries)
        return cls(handed, torch.cat([bias, -bias]))

    def upper(self, network: Network, region: Region, lines: Mapping[int, Lines]) -> Tensor:
        """Upper bounds (batch, targets) over a region; ``lines`` as for :func:`backward_plane`."""
        return concretise(region, *self.planes(network, lines))

    def planes(
        self,
        network: Network,
        lines: Mapping[int, Lines],
        *,
        chosen: Tensor | None = None,
        passed: dict[int, Passed] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Affine functions of the input that lie above the functionals, or those of them that each example has
        ``chosen``; see :func:`backward_planes`."""
        coefficient, constant = backward_planes(network, lines, self.coefficients, chosen, passed)
        own = self.constant if chosen is None else self.constant[chosen]
        return coefficient, own if constant is None else own + constant


Further = Callable[[Start, Tensor, Tensor], Tensor]
"""Better upper bounds (batch, targets) of functionals, from their start, the entries that they are of, and bounds."""


def entry_bounds(
    network: Network,
    region: Region,
    lines: Mapping[int, Lines],
    node: int,
    wanted: Tensor,
    current: Interval,
    *,
    copies: int,
    memory: int,
    deadline: Deadline,
    further: Further | None = None,
) -> Interval:
    """Bounds on entries ``wanted`` (batch, size) of an affine node's value by backward passes, ``current`` elsewhere.

    Not always the better of both: the caller takes that, after rounding.

    Args:
        lines: of every activation node before, fields (batch, neurons).
        copies: tensors of the widest node's size that a functional takes.
        deadline: when it has passed, the entries that are left stay as they are.
    """
    batch = len(current.lower)
    lower, upper = current.lower.clone(), current.upper.clone()
    widest = max(n.size for n in network.nodes[: node + 1])
    chunk = chunk_size(memory, lower.device, tensor_bytes(copies, 2 * batch * widest, lower))  # both signs of an entry
    shared = {k: Lines(*(v.unsqueeze(1) for v in line)) for k, line in lines.items()}
    for entries in wanted.any(0).nonzero().squeeze(-1).split(chunk):
        if not len(entries) or deadline.passed():
            break
        start = Start.of_ends(network, node, entries, lower)
        best = start.upper(network, region, shared)
        if further is not None:
            best = further(start, entries, best)
        high, low = best.tensor_split(2, dim=1)
        upper.index_copy_(1, entries, high)
        lower.index_copy_(1, entries, -low)
    result = Interval(lower, upper)
    # Of one example, what is not wanted was not touched.
    return result if batch == 1 else result.select(wanted, current)


def backward_upper(network: Network, region: Region, lines: Mapping[int, Lines], node: int, rows: Tensor) -> Tensor:
    """Upper bounds of linear functionals of one node's value over a region of inputs.

    Args:
        region: an interval (batch, inputs), or a ball.
        lines, node, rows: as for :func:`backward_plane`.

    Returns:
        Tensor (batch, targets).
    """
    return concretise(region, *backward_plane(network, lines, node, rows))


def concretise(region: Region, coefficient: Tensor, constant: Tensor | None) -> Tensor:
    """Largest values (batch, targets) of affine functions over a region: its dual norm.

    Args:
        coefficient: (targets, inputs) or (batch, targets, inputs).
        constant: (targets,) or (batch, targets).
    """
    if isinstance(region, NormBall):
        reach = region.maximum(coefficient)
    else:
        center = region.center
        radius = (region.upper - center).unsqueeze(-2)
        reach = _dot(coefficient, center.unsqueeze(-2)) + _dot(coefficient.abs(), radius)
    return reach if constant is None else reach + constant


def backward_plane(
    network: Network, lines: Mapping[int, Lines], node: int, rows: Tensor, chosen: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Affine functions of the input that lie above linear functionals of one node's value.

    Args:
        lines: relaxation of every activation node before ``node``; fields broadcast to (batch, targets, neurons).
        node: the node whose value is bounded.
        rows: functionals, (targets, size) or (batch, targets, size).
        chosen: (batch, some) which of the ``rows`` (targets, size) each example asks for, if not all; ``some`` takes
            the place of ``targets`` in the result.

    Returns:
        Coefficients (..., targets, inputs) and constants (..., targets), without the batch axis where nothing depends
        on it; None for no constant.
    """
    return backward_planes(network, lines, {node: rows}, chosen)


def backward_planes(
    network: Network,
    lines: Mapping[int, Lines],
    rows: Mapping[int, Tensor],
    chosen: Tensor | None = None,
    passed: dict[int, Passed] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Affine functions of the input that lie above sums of linear functionals of several nodes' values.

    Args:
        lines: as for :func:`backward_plane`, for every activation node before the last one in ``rows``.
        rows: per node functionals (targets, size) or (batch, targets, size), at least one.
        chosen: as for :func:`backward_plane`.
        passed: filled with what arrives at every activation node, for whoever asks for derivatives. What is in it of
            the pass before is used again where it is the same.
    """

    def picked(value: Tensor, per_example: int) -> Tensor:
        """What each example asks for, of something (targets, ...) that does not depend on the example so far."""
        return value if chosen is None or value.ndim == per_example else value[chosen]

    constant: Tensor | None = None

    def collect(offset: Tensor) -> None:
        nonlocal constant
        constant = offset if constant is None else constant + offset

    def activation(k: int, node: Activate, coefficient: Tensor) -> Tensor:
        line, coefficient = lines[k], picked(coefficient, 3)
        here = None if passed is None else passed.get(k)
        if here is None or not here.again(coefficient, line):
            here = Passed.through(coefficient, line)
        collect(here.constant)
        if not node.activation.lower_through_origin:
            collect(_dot(here.negative, line.lower_intercept))
        if passed is None:
            return here.above.addcmul_(here.negative, line.lower_slope)
        passed[k] = here
        return torch.addcmul(here.above, here.negative, line.lower_slope)

    def affine(k: int, node: Affine, maps: Sequence[LinearMap], coefficient: Tensor) -> Iterator[Tensor]:
        if node.bias is not None:
            collect(picked(coefficient @ node.bias, 2))
        return adjoints(k, node, maps, coefficient)

    def add(old: Tensor, new: Tensor) -> Tensor:
        return old + new if old.ndim == new.ndim else picked(old, 3) + picked(new, 3)

    coefficient = fold_backward(network, rows, activation, affine, add=add)
    if coefficient is None:
        some = rows[max(rows)]
        coefficient = some.new_zeros(*some.shape[:-1], network.in_size)
    return picked(coefficient, 3), constant


def _dot(coefficient: Tensor, vector: Tensor) -> Tensor:
    """``sum_i coefficient[..., t, i] vector[..., t or 1, i]``: (batch, targets)."""
    if vector.shape[-2] == 1:
        if coefficient.ndim == 2 and vector.ndim == 3:
            return vector.squeeze(-2) @ coefficient.mT
        if coefficient.ndim == vector.ndim == 3 and len(coefficient) == len(vector):
            return torch.bmm(coefficient, vector.mT).squeeze(-1)  # as matmul, in fewer steps
        return torch.matmul(coefficient, vector.mT).squeeze(-1)
    return (coefficient * vector).sum(-1)
