"""The semidefinite programs of a batch of gradient rows, and the order in which they are solved."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lipcompare.jacobian.gradients import Gradients
from lipcompare.problem import Norm
from lipcompare.rounding import raised


@dataclasses.dataclass(frozen=True, eq=False)
class Tasks:
    """Semidefinite programs to solve, one entry each; several of one row for p = 1.

    Attributes:
        example, row: where each comes from.
        entry, sign: for p = 1 the entry of the input gradient and its sign.
        linear: the linear bound in the units of the objective (squared for p = 2).
        group: programs that compete for a maximum.
    """

    example: Tensor
    row: Tensor
    entry: Tensor
    sign: Tensor
    linear: Tensor
    group: Tensor

    def select(self, index: Tensor) -> Tasks:
        return Tasks(*(getattr(self, f.name)[index] for f in dataclasses.fields(self)))


def tasks_of(gradients: Gradients, linear: Tensor, norm: Norm, only_maximum: bool) -> Tasks:
    """The programs of all rows."""
    rows = linear.shape[1]
    if norm is not Norm.ONE:
        example, row = (linear >= 0).nonzero(as_tuple=True)
        value = linear[example, row]
        group = example if only_maximum else example * rows + row
        value = raised(value.square(), 1) if norm is Norm.TWO else value
        zero, one = torch.zeros_like(row), torch.ones_like(value)
        return Tasks(example=example, row=row, entry=zero, sign=one, linear=value, group=group)
    interval = gradients.intervals[0]
    # NaN: numbers out of range cancelled, and nothing is known.
    ends = torch.stack([interval.upper, -interval.lower], -1).nan_to_num(nan=torch.inf, posinf=torch.inf)
    example, row, entry, side = (ends > 0).nonzero(as_tuple=True)
    # An end is the linear bound on a signed entry up to the rounding that norm_bound allows for.
    largest = interval.magnitude.amax(-1)
    slack = torch.where(largest > 0, linear / largest, 1.0).clamp(min=1.0)
    value = ends[example, row, entry, side] * slack[example, row]  # ends are (examples, rows, inputs, 2)
    value = torch.where(linear[example, row].isfinite(), value, torch.inf)
    sign = 1.0 - 2.0 * side.to(linear)
    group = example if only_maximum else example * rows + row
    return Tasks(example=example, row=row, entry=entry, sign=sign, linear=value, group=group)


def _by_rank(value: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Order in which the largest of every group come first, then the second largest, and so on; and those ranks."""
    order = torch.argsort(value, descending=True, stable=True)
    order = order[torch.argsort(group[order], stable=True)]
    _, counts = torch.unique_consecutive(group[order], return_counts=True)
    first = counts.cumsum(0) - counts
    rank = torch.arange(len(order), device=value.device) - first.repeat_interleave(counts)
    by_rank = torch.argsort(rank, stable=True)
    return order[by_rank], rank[by_rank]


def batches(todo: Tensor, value: Tensor, group: Tensor, own: Tensor, width: int) -> list[Tensor]:
    """Programs in batches of about ``width``, the most promising of every group first.

    A group's programs come in portions of its ``own`` width that are never split, so what a program competes with, and
    with it its result, does not depend on the other groups of the batch.
    """
    order, rank = _by_rank(value, group)
    portion = rank // own[order]
    turn = torch.argsort(portion * (int(group.max()) + 1) + group[order], stable=True)
    order, portion = order[turn], portion[turn]
    keys = torch.stack([portion, group[order]], 1)
    _, counts = torch.unique_consecutive(keys, dim=0, return_counts=True)
    turns = portion[counts.cumsum(0) - 1].tolist()
    sizes, last = [0], 0
    for size, now in zip(counts.tolist(), turns, strict=True):
        # A group's next portion waits for the floor that this one sets.
        if sizes[-1] and (sizes[-1] + size > width or now != last):
            sizes.append(0)
        sizes[-1] += size
        last = now
    return list(todo[order].split(sizes))
