"""Entries of the Jacobian: over whole domains, and by halving where one input moves."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from lipcompare.budget import Copies, Deadline, fitting, tensor_bytes
from lipcompare.domain import NormBall, Space
from lipcompare.errors import known_keywords
from lipcompare.network.environment import computing
from lipcompare.preactivation import Tightening
from lipcompare.problem import Problem
from lipcompare.questions.ending import Ending
from lipcompare.questions.entries import EntryBounds, entry_bounds
from lipcompare.questions.halving import HALVINGS, halved
from lipcompare.result import Status

_LOOKS = 17
"""Points of a line at which entries are looked at before it is cut."""


@known_keywords
@computing()
def jacobian_bounds(
    problem: Problem,
    relaxation: str = "lbp",
    *,
    tightening: Tightening = Tightening.ALPHA_CROWN,
    halvings: int = HALVINGS,
    time_limit: float = float("inf"),
    memory: int = 2**30,
) -> EntryBounds:
    """Bounds on every entry of the gradients of the problem's functionals over its domain.

    With the default functionals entry ``[b, i, j]`` bounds ``d f_i / d x_j`` over domain ``b``; the problem's norm
    plays no part. At kinks every Clarke derivative is included. Boxes in which a single input moves are halved where
    signs are open, until they are proved or the pieces are tiny; signs that are seen to change are left alone.

    Args:
        relaxation: a name of the table (:mod:`lipcompare.jacobian.relaxations`).
        halvings: how often a box in which one input moves may be halved; 0 leaves the bounds over whole boxes.
        time_limit: seconds, after which bounds are left as loose as they are.
    """
    deadline = Deadline.after(time_limit)
    bounds = entry_bounds(problem, relaxation, tightening=tightening, time_limit=time_limit, memory=memory)
    if bounds.status is not Status.COMPLETE or halvings < 1 or isinstance(problem.box, (NormBall, Space)):
        return bounds
    with Ending() as ending:
        axes = torch.eye(problem.network.in_size, dtype=problem.dtype, device=problem.device)
        changing = _changing(problem, memory)
        bounds = halved(problem, axes, relaxation, bounds, changing, halvings, deadline=deadline, memory=memory)
    return bounds if ending.status is Status.COMPLETE else dataclasses.replace(bounds, status=ending.status)


def _changing(problem: Problem, memory: int) -> np.ndarray:
    """Entries (batch, rows, inputs) that have both signs at points of the line of a box in which one input moves."""
    box, network = problem.box, problem.network
    changing = torch.zeros(problem.batch, problem.rows, network.in_size, dtype=torch.bool)
    lines = ((box.upper > box.lower).sum(-1) == 1).nonzero().squeeze(-1)
    each = tensor_bytes(Copies.SAMPLE, _LOOKS * problem.rows * network.widest, box.lower)
    share = torch.linspace(0, 1, _LOOKS, dtype=problem.dtype, device=problem.device).reshape(-1, 1, 1)
    for some in lines.split(fitting(memory, each)) if len(lines) else ():
        lower, upper = box.lower[some], box.upper[some]
        points = torch.lerp(lower, upper, share).transpose(0, 1).unsqueeze(2)  # (some, looks, 1, inputs)
        with torch.no_grad():
            entries = network.pull_back(network.slopes(network.values(points)), problem.functionals[some].unsqueeze(1))
        changing[some.cpu()] = ((entries > 0).any(1) & (entries < 0).any(1)).cpu()
    return changing.numpy()
