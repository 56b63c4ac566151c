"""What the checker's multipliers prove of small programs is their optimum, by another solver."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from lipverify.forward import multipliers
from scipy.optimize import linprog


def proved(rest: np.ndarray, walls: np.ndarray, heights: np.ndarray, pivots: int = 100) -> np.ndarray:
    ones = np.ones((len(rest), rest.shape[-1]))
    found = multipliers(-ones, ones, rest, walls, heights, pivots=pivots)
    assert (found >= 0).all()
    value: np.ndarray = (found @ heights[..., None])[..., 0] + np.abs(rest + found @ walls).sum(-1)
    return value


@pytest.mark.parametrize("inputs", [1, 3, 8])
@pytest.mark.parametrize("count", [1, 5, 12])
def test_the_optimum_of_small_programs(inputs: int, count: int) -> None:
    random = np.random.default_rng(inputs * 100 + count)
    rest, walls = random.normal(size=(12, 5, inputs)), random.normal(size=(12, count, inputs))
    walls[random.random(walls.shape) < 0.2] = 0.0
    heights = np.abs(walls).sum(-1) * random.uniform(-0.2, 0.5, size=(12, count))
    found = proved(rest, walls, heights)
    seen = 0
    for i in range(12):
        for t in range(5):
            best = linprog(-rest[i, t], A_ub=-walls[i], b_ub=heights[i], bounds=(-1, 1))
            size = np.abs(rest[i, t]).sum()
            if best.status != 2:  # where half-spaces contradict each other certificates say how
                assert found[i, t] == pytest.approx(-best.fun, abs=1e-7 * size)
                seen += bool(-best.fun < size * (1 - 1e-6))
    assert seen > 5


def test_few_pivots_prove_less() -> None:
    random = np.random.default_rng(0)
    rest, walls = random.normal(size=(4, 6, 8)), random.normal(size=(4, 12, 8))
    heights = 0.4 * np.abs(walls).sum(-1) * random.random((4, 12))
    values = [proved(rest, walls, heights, pivots) for pivots in (0, 2, 6, 60)]
    assert np.allclose(values[0], np.abs(rest).sum(-1))
    for before, after in itertools.pairwise(values):
        assert (after <= before + 1e-9).all() and (after < before - 1e-6).any()
