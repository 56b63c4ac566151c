"""Input splitting: subdomains are boxes, halved along one input at a time. What branches where there are no patterns.

A smooth activation has no two sides to decide between, but over a small box its slope hardly varies, and the linear
bound with planes around slope times gradient closes in on the value as the square of the box's size. A box is halved
along the input that changes the gradient most, measured by differences across the box; the points that this takes are
candidates for the lower bound too. The tree keeps the halvings only, and boxes are made again when they are needed.

The quadratic-gate program knows slopes by their range alone. On a large box of a deep network it is far below the
linear bound, so the whole box has one. Its error shrinks as the box's size only, and in the time of a program many
halves get the linear bound: on parts it made every search slower that it was tried in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from lipcompare.branching.decisions import SCORELESS, Numbering
from lipcompare.branching.driver import Assessment
from lipcompare.branching.tree import Subdomain
from lipcompare.budget import Copies, Deadline, fitting, tensor_bytes
from lipcompare.jacobian import RELAXATIONS
from lipcompare.network.interval import Interval
from lipcompare.preactivation import Tightening
from lipcompare.problem import Box, Problem
from lipcompare.propagation import Propagated, propagate
from lipcompare.quadratic.bound import sdp_bound
from lipcompare.result import Witness

_HALVINGS = 30
"""No input is halved more often: at a jump of a derivative no box is small enough."""
_TOLERANCE = 3e-3
"""Of the program, relative."""
_SHARE = 0.3
"""At most of the time for the program."""
_PROBES = 64
"""Inputs that compete for a split; with more of them, those whose differences can matter most."""


@dataclasses.dataclass(eq=False)
class BoxEvaluator:
    """Bounds boxes within one example, in float64, for networks with any activations.

    Attributes:
        problem: one example.
        tightening: pre-activation bounds over each box.
        lifted: solve the quadratic-gate program of the whole box.
        memory: bytes that one pass may take.
        deadline: when it has passed, bounds of large networks are left as loose as they are.
        programs: linear programs solved: none.
        shares: rows go their own ways.
    """

    programs: ClassVar[int] = 0
    shares: ClassVar[bool] = False

    problem: Problem
    tightening: Tightening = Tightening.CROWN
    lifted: bool = True
    memory: int = 2**30
    deadline: Deadline = dataclasses.field(default_factory=Deadline)

    def __post_init__(self) -> None:
        network = self.problem.network
        self.numbering = Numbering(network)
        self.box = Interval(self.problem.box.lower[0], self.problem.box.upper[0])
        self.smallest = self.box.radius * 2.0**-_HALVINGS
        each = tensor_bytes(Copies.EXAMPLE, network.widest, self.box.lower)
        self.at_once = fitting(self.memory, each)
        self.points_at_once = fitting(self.memory, 4 * each)

    def evaluate(self, nodes: Sequence[Subdomain], floor: float, target: float) -> list[Assessment]:
        """See :class:`~lipcompare.branching.driver.Evaluator`."""
        boxes = self.numbering.boxes([np.array(node.decisions, dtype=np.int64) for node in nodes], self.box)
        rows = torch.tensor([node.row for node in nodes], device=self.box.lower.device)
        whole = torch.tensor([self.lifted and not node.decisions for node in nodes])
        results = [Assessment(float("inf"))] * len(nodes)
        for lift in (True, False):
            some = (whole == lift).nonzero().squeeze(-1)
            for chunk in some.split(self.at_once) if len(some) else ():
                index = chunk.to(rows.device)
                assessed = self._evaluate(Interval(*(v[index] for v in boxes)), rows[index], target, lift=lift)
                for i, assessment in zip(chunk.tolist(), assessed, strict=True):
                    results[i] = assessment
        return results

    def _evaluate(self, boxes: Interval, rows: Tensor, target: float, *, lift: bool) -> list[Assessment]:
        functionals = self.problem.functionals[0][rows].unsqueeze(1)
        boxed = dataclasses.replace(self.problem, box=Box(*boxes), functionals=functionals)
        bound = propagate(
            boxed, self.tightening, RELAXATIONS["lbp"], joint=True, memory=self.memory, seconds=self.deadline.left
        )
        upper = torch.where(bound.upper.isnan(), torch.inf, bound.upper).squeeze(1)
        if lift:
            upper = torch.minimum(upper, self._program(bound, functionals, target))
        index = (upper > target).nonzero().squeeze(-1)
        results = [Assessment(value) for value in upper.tolist()]
        if not len(index):
            return results
        spread = bound.gradients.intervals[0].magnitude[index, 0]
        open_ = Interval(*(v[index] for v in boxes))
        inputs, witnesses = self._probe(open_, functionals[index, 0], rows[index], spread)
        for i, j, witness in zip(index.tolist(), inputs.tolist(), witnesses, strict=True):
            chain = () if j < 0 else (2 * (self.numbering.count + j) + 1,)
            results[i] = Assessment(results[i].upper, chain, witnesses=(witness,))
        return results

    def _program(self, bound: Propagated, functionals: Tensor, target: float) -> Tensor:
        """Upper bounds (boxes,) of the quadratic-gate programs; those that the linear bound closes have none."""
        aim = bound.upper.new_full((len(bound.upper),), target)
        solved = sdp_bound(
            self.problem.network, bound.gates, functionals, bound.gradients, self.problem.norm, tolerance=_TOLERANCE,
            prune_below=aim, target=aim, memory=self.memory, deadline=Deadline.after(_SHARE * self.deadline.left).at,
        )  # fmt: skip
        return torch.where(solved.upper.isnan(), torch.inf, solved.upper).squeeze(1)

    def _probe(
        self, boxes: Interval, functionals: Tensor, rows: Tensor, spread: Tensor
    ) -> tuple[Tensor, list[Witness]]:
        """The input (boxes,) along which each box should be halved, -1 for none, and the best point seen in it.

        Args:
            functionals: (boxes, outputs).
            spread: (boxes, inputs) largest absolute derivatives.
        """
        network, norm = self.problem.network, self.problem.norm.dual
        center, radius = boxes.center, boxes.radius
        room = (radius > self.smallest) & (boxes.lower < center) & (center < boxes.upper)
        count = min(_PROBES, network.in_size)
        weight = torch.where(room, radius * (spread + torch.finfo(radius.dtype).tiny), -1.0)
        candidates = weight.topk(count, dim=-1).indices  # (boxes, count)
        step = torch.zeros(len(center), count, network.in_size).to(center)
        step.scatter_(-1, candidates.unsqueeze(-1), radius.gather(-1, candidates).unsqueeze(-1))
        middle = center.unsqueeze(1)
        points = torch.cat([middle, middle + step, middle - step], 1)
        points = torch.minimum(torch.maximum(points, boxes.lower.unsqueeze(1)), boxes.upper.unsqueeze(1))
        gradients = self._gradients(points, functionals)
        low, high = gradients[:, 1 + count :], gradients[:, 1 : 1 + count]
        around = gradients[:, :1]
        # How far the gradient moves from the middle to either side, as the norm sees it.
        change = norm.of(high - around) + norm.of(around - low)
        change = torch.where(room.gather(-1, candidates), change + SCORELESS * weight.gather(-1, candidates), -1.0)
        best = change.argmax(-1, keepdim=True)
        inputs = torch.where(change.gather(-1, best) >= 0, candidates.gather(-1, best), -1).squeeze(-1)
        values, largest = norm.of(gradients).max(-1)
        chosen = points[torch.arange(len(points), device=points.device), largest]
        columns = (rows.tolist(), values.tolist(), chosen.cpu().numpy())
        return inputs, [Witness(row, value, point) for row, value, point in zip(*columns, strict=True)]

    def _gradients(self, points: Tensor, functionals: Tensor) -> Tensor:
        """Gradients (boxes, points, inputs) of each box's functional."""
        network = self.problem.network
        flat, owner = points.flatten(0, 1), functionals.repeat_interleave(points.shape[1], 0)
        gradients_of_chunks = [
            network.pull_back(network.slopes(network.values(x)), rows)
            for x, rows in zip(flat.split(self.points_at_once), owner.split(self.points_at_once), strict=True)
        ]
        gradients: Tensor = torch.cat(gradients_of_chunks).unflatten(0, points.shape[:2])
        return gradients
