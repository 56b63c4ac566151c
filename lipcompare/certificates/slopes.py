"""The optimised slopes behind bounds on pre-activations, kept for a checker."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from lipcompare.gates import PreactivationBounds
from lipcompare.network.activations import Lines
from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.preactivation.descent import Watch
from lipcompare.problem import Problem

_ENTRIES = 2**22
"""Slopes that are kept at most: 16 MiB. Where there are more, plain CROWN has to do."""


@dataclasses.dataclass(frozen=True, eq=False)
class Below:
    """Lines below activations, for bounds on one node's value.

    Attributes:
        neurons: (t,) entries of the value.
        slopes: per activation node (2 t, size), for the functions above these entries and then above their negatives.
    """

    neurons: np.ndarray
    slopes: Mapping[int, np.ndarray]


def bounds_with_slopes(problem: Problem, memory: int) -> tuple[PreactivationBounds, dict[int, Below]]:
    """Bounds with optimised slopes on the pre-activations of one example, and these slopes by node."""
    kept, region = _Kept(), problem.box.region
    plain = preactivation_bounds(problem.network, region, Tightening.CROWN, memory=memory)
    bounds = preactivation_bounds(
        problem.network, region, Tightening.ALPHA_CROWN, memory=memory, crown=plain, watch=kept.watch
    )
    if kept.entries > _ENTRIES:
        return plain, {}
    return bounds, {node: _joined(parts) for node, parts in kept.parts.items()}


@dataclasses.dataclass(eq=False)
class _Kept:
    """The best slopes so far of every function that was optimised."""

    parts: dict[int, list[tuple[Tensor, dict[int, Tensor]]]] = dataclasses.field(default_factory=dict)
    entries: int = 0

    def watch(self, node: int, neurons: Tensor) -> Watch:
        """What keeps the slopes for some neurons of a node."""
        slopes: dict[int, Tensor] = {}

        def told(better: Tensor, lines: Mapping[int, Lines]) -> None:
            if not slopes:
                self.entries += better.shape[-1] * sum(line.lower_slope.shape[-1] for line in lines.values())
                self.parts.setdefault(node, []).append((neurons, slopes))
                for k, line in lines.items():
                    slopes[k] = line.lower_slope[0].expand(better.shape[-1], -1).clone()
            for k, line in lines.items():
                slopes[k] = torch.where(better[0].unsqueeze(-1), line.lower_slope[0], slopes[k])

        return told


def _joined(parts: list[tuple[Tensor, dict[int, Tensor]]]) -> Below:
    """Of neurons that were optimised together, for each of which both signs follow each other."""
    neurons = np.concatenate([some.numpy() for some, _ in parts])
    slopes = {
        k: np.concatenate([own[k].unflatten(0, (2, -1)).numpy() for _, own in parts], 1).reshape(2 * len(neurons), -1)
        for k in parts[0][1]
    }
    return Below(neurons, slopes)
