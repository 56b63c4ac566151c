"""Multipliers: what they prove is what a linear program says, and more pivots prove no less."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lipcompare.preactivation.simplex import multipliers

SCALES = [1.0, 1e-3, 1e4]


def programs(seed, inputs, constraints, shift):
    """Targets (3, 4, inputs), half-spaces and their constants; the larger ``shift``, the more of the box they leave."""
    random = np.random.default_rng(seed)
    targets, walls = random.normal(size=(3, 4, inputs)), random.normal(size=(3, constraints, inputs))
    walls[random.random(walls.shape) < 0.2] = 0.0
    heights = shift * np.abs(walls).sum(-1) * random.uniform(-0.3, 1.0, size=(3, constraints))
    return tuple(torch.from_numpy(v) for v in (targets, walls, heights))


def proved(targets, walls, heights, pivots):
    """The dual's value (subdomains, targets)."""
    found = multipliers(targets, walls, heights, pivots)
    assert found.shape == (walls.shape[1], *targets.shape[:2])
    assert (found >= 0).all() and found.isfinite().all()
    rest = targets + torch.einsum("jst,sji->sti", found, walls)
    return torch.einsum("jst,sj->st", found, heights) + rest.abs().sum(-1)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 7),
    st.integers(1, 9),
    st.sampled_from([0.1, 0.5, 1.0]),
    st.sampled_from(SCALES),
)
def test_enough_pivots_solve_the_linear_program(seed, inputs, constraints, shift, scale):
    targets, walls, heights = programs(seed, inputs, constraints, shift)
    found = proved(scale * targets, walls / scale, heights / scale, 40) / scale
    for s in range(3):
        for t in range(4):
            best = scipy.optimize.linprog(
                -targets[s, t].numpy(), A_ub=-walls[s].numpy(), b_ub=heights[s].numpy(), bounds=(-1, 1)
            )
            size = float(targets[s, t].abs().sum())
            if best.status == 2:
                # No value that the function has in the box is left, unless half-spaces contradict each other by little.
                depth = scipy.optimize.linprog(
                    [0.0] * inputs + [-1.0],
                    A_ub=np.hstack([-walls[s].numpy(), np.ones((constraints, 1))]),
                    b_ub=heights[s].numpy(),
                    bounds=[(-1, 1)] * inputs + [(None, None)],
                )
                assert float(found[s, t]) < -size or -depth.fun > -1e-3
            else:
                assert best.status == 0
                assert -best.fun - 1e-9 * size <= float(found[s, t]) <= -best.fun + 1e-4 * size


def test_every_pivot_proves_more():
    targets, walls, heights = programs(0, 7, 12, 0.5)
    values = [targets.abs().sum(-1), *(proved(targets, walls, heights, pivots) for pivots in range(1, 13))]
    for before, after in itertools.pairwise(values):
        assert (after <= before + 1e-5).all()
    # Most of it comes first.
    gained = [float((values[0] - value).sum()) for value in (values[1], values[4], values[12])]
    assert 0.3 * gained[2] < gained[0] < gained[1] and gained[1] > 0.75 * gained[2]


def test_one_pivot_is_the_best_step_along_the_half_space_that_is_violated_most():
    targets, walls, heights = programs(3, 5, 4, 0.5)
    found = multipliers(targets, walls, heights, 1)
    for s in range(3):
        for t in range(4):
            x = torch.where(targets[s, t] >= 0, 1.0, -1.0).double()
            violated = (walls[s] @ x + heights[s]) / walls[s].abs().sum(-1)
            j = int(violated.argmin())
            assert (found[:, s, t] > 0).nonzero().flatten().tolist() == ([j] if violated[j] < 0 else [])
            steps = (-targets[s, t] / walls[s, j]).tolist()
            value = lambda step, s=s, t=t, j=j: float(  # noqa: E731
                step * heights[s, j] + (targets[s, t] + step * walls[s, j]).abs().sum()
            )
            least = min(value(step) for step in [0.0, *(v for v in steps if 0 < v < np.inf)])
            assert value(float(found[j, s, t])) == pytest.approx(least, abs=1e-5)


@pytest.mark.parametrize("size", [0.0, 1e-300, 1e300])
def test_sizes_at_the_ends_of_the_range_are_no_trouble(size):
    targets, walls, heights = programs(1, 4, 3, 0.5)
    for given_ in (
        (size * targets, walls, heights),
        (targets, size * walls, heights),
        (targets, walls, size * heights),
    ):
        found = multipliers(*given_, 4)
        assert (found >= 0).all() and found.isfinite().all()


def test_a_problem_has_the_same_multipliers_in_any_batch():
    targets, walls, heights = programs(5, 6, 8, 0.5)
    together = multipliers(targets, walls, heights, 6)
    alone = [multipliers(targets[s : s + 1], walls[s : s + 1], heights[s : s + 1], 6) for s in range(3)]
    torch.testing.assert_close(together, torch.cat(alone, 1), rtol=1e-4, atol=1e-5)
