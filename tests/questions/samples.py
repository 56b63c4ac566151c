"""The gradients at random points of a domain."""

from __future__ import annotations

import numpy as np
import torch

from lipcompare import Problem


def samples(problem: Problem, count: int = 200) -> torch.Tensor:
    unit = torch.rand(
        1, count, problem.network.in_size, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    )
    lower, upper = (v.unsqueeze(1) for v in problem.box.interval)
    return problem.box.clamp(lower + unit.to(lower) * (upper - lower))


def entries_at(problem: Problem, points: torch.Tensor) -> np.ndarray:
    """(batch, samples, rows, inputs)."""
    network = problem.network
    slopes = {k: v.unsqueeze(2) for k, v in network.slopes(network.values(points)).items()}
    rows = problem.functionals.unsqueeze(1).expand(*points.shape[:2], -1, -1)
    result: np.ndarray = network.pull_back(slopes, rows).cpu().numpy()
    return result
