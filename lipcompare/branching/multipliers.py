"""Warm starts: what a subdomain's dual point leaves to its parts.

A part is bounded by a program of its own, with gates decided, bounds tightened and everything scaled anew. Multipliers
are kept by the names of gates and inputs, in the network's units, so that they can be matched: gates that were decided
drop out, and signs that were decided move ``1 / (4 lam_j)`` to the constant's multiplier, which keeps the parent's
value (docs/quadratic-gates.md, "Branching"). An interior point method wants a start that is well inside: what is
inherited is mixed with the cold start.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lipcompare.branching.decisions import Numbering
from lipcompare.quadratic.program import SdpData
from lipcompare.quadratic.solver.dual import Dual
from lipcompare.quadratic.solver.start import default_start
from lipcompare.rounding import DIVISOR

_SHARE = 0.8
"""Weight of the inherited point. Fewest iterations; a start nearer to the boundary costs some."""


def gate_numbers(data: SdpData, numbering: Numbering) -> Tensor:
    """Number of the gate of every coordinate (problems, n); meaningless for the constant and for absent ones."""
    names = data.coordinates
    first = torch.tensor([numbering.start.get(k, 0) for k in names.node.tolist()], device=names.node.device)
    return (first + names.neuron)[data.example]


def remember(data: SdpData, dual: Dual, numbering: Numbering) -> Tensor:
    """Multipliers by name, (problems, 1 + gates + inputs), float32: of the constant, the gates and the input's signs.

    Zero where a problem has none, so a row is never all zeros.
    """
    scale = data.scale.unsqueeze(-1)
    theta = torch.where(data.mask, dual.theta / data.radius.square().clamp(min=DIVISOR), 0.0) * scale
    by_name = theta.new_zeros(data.problems, 1 + numbering.gates + numbering.network.in_size)
    column = (1 + gate_numbers(data, numbering)).clamp(max=by_name.shape[-1] - 1)
    by_name.scatter_add_(1, torch.where(data.mask, column, 0)[:, 1:], theta[:, 1:])
    by_name[:, 0] = theta[:, 0]
    signs = torch.where(data.entry_mask, dual.lam, 0.0) / scale
    by_name.scatter_add_(1, 1 + numbering.gates + data.entry, signs)
    return by_name.float()


def recall(data: SdpData, by_name: Tensor, numbering: Numbering) -> Dual:
    """A dual start from what the parents left: see :func:`remember`. Rows of zeros get the cold start.

    Its trace multiplier may have to grow for it to be feasible, which the solver sees to.
    """
    cold = default_start(data)
    by_name = by_name.to(data.columns)
    scale = data.scale.unsqueeze(-1)
    column = (1 + gate_numbers(data, numbering)).clamp(max=by_name.shape[-1] - 1)
    column[:, 0] = 0
    theta = torch.where(data.mask, by_name.gather(1, column), 0.0) * data.radius.square() / scale
    signs = by_name[:, 1 + numbering.gates :]
    lam = signs.gather(1, data.entry) * scale
    undecided = torch.zeros_like(signs, dtype=torch.bool)
    undecided.scatter_(1, data.entry, data.entry_mask)
    lost = torch.where((signs > 0) & ~undecided, 0.25 / signs.clamp(min=DIVISOR), 0.0)
    theta[:, 0] += lost.sum(-1) / data.scale
    share = _SHARE * (by_name != 0).any(-1, keepdim=True).to(theta)
    # What was not there before has the cold multiplier.
    lam = torch.where(data.entry_mask & (lam > 0), lam, cold.lam)
    theta = torch.where(theta != 0, theta, cold.theta)
    mixed = 1 / ((1 - share) / cold.lam + share / lam)
    return dataclasses.replace(cold, theta=(1 - share) * cold.theta + share * theta, lam=mixed)
