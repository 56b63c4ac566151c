"""Where a search starts."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch

import lipcompare
from lipcompare.branching import roots
from lipcompare.branching.roots import attained, first_points, root_bounds, settled
from lipcompare.budget import Deadline
from lipcompare.preactivation import Tightening

PROBLEM = nets.problem(nets.dense(3, (3, 8, 8, 2)), 0.6)


def test_the_roots_bound_is_that_of_the_linear_method() -> None:
    bounds, upper = root_bounds(PROBLEM, Tightening.CROWN, 2**30)
    np.testing.assert_allclose(upper, lipcompare.bound(PROBLEM, "lbp", tightening="crown").upper[0], rtol=1e-12)
    assert sorted(bounds) == list(PROBLEM.network.activations)


def test_settled_bounds_hold_and_are_no_looser() -> None:
    bounds, _ = root_bounds(PROBLEM, Tightening.CROWN, 2**30)
    tighter = settled(PROBLEM, bounds, 2**30)
    lower, upper = PROBLEM.box.interval
    unit = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = PROBLEM.network.values(lower + unit * (upper - lower))
    open_before = open_after = 0
    for k in PROBLEM.network.activations:
        z = values[PROBLEM.network.nodes[k].parents[0]]
        assert bool((z >= tighter[k].lower - 1e-9).all()) and bool((z <= tighter[k].upper + 1e-9).all())
        assert bool((tighter[k].lower >= bounds[k].lower).all()) and bool((tighter[k].upper <= bounds[k].upper).all())
        open_before += int(((bounds[k].lower < 0) & (bounds[k].upper > 0)).sum())
        open_after += int(((tighter[k].lower < 0) & (tighter[k].upper > 0)).sum())
    assert open_after < open_before


def test_nothing_is_settled_where_there_is_nothing_to_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    smooth = nets.problem(nets.FAMILIES["sigmoid"](3), 0.5)
    bounds, _ = root_bounds(smooth, Tightening.CROWN, 2**30)
    assert settled(smooth, bounds, 2**30) is bounds
    given = []
    monkeypatch.setattr(roots, "settle", lambda *args, deadline, **kwargs: given.append(deadline.left) or "settled")
    bounds, _ = root_bounds(PROBLEM, Tightening.CROWN, 2**30)
    assert settled(PROBLEM, bounds, 2**30, seconds=10.0) == "settled"
    assert given == [pytest.approx(2.0, abs=0.5)]  # a fifth of the time


def test_first_points_attain_what_they_say() -> None:
    witnesses = first_points(PROBLEM, 0, Deadline(), 2**30)
    assert [w.row for w in witnesses] == [0, 1]
    seen = nets.sampled_norms(PROBLEM)[0]
    for witness in witnesses:
        point = torch.as_tensor(witness.point)
        assert PROBLEM.box.contains(point.reshape(1, 1, -1)).all()
        slopes = PROBLEM.network.slopes(PROBLEM.network.values(point))
        norm = PROBLEM.norm.dual.of(PROBLEM.network.pull_back(slopes, PROBLEM.functionals[0, witness.row]))
        assert witness.value == pytest.approx(float(norm), rel=1e-9)
        assert witness.value >= float(seen[witness.row]) * (1 - 1e-9)


def test_kinks_are_used_to_advantage() -> None:
    problem = lipcompare.Problem.around(nets.kinked(), 0.0, 0.5)
    (witness,) = attained(problem, torch.zeros(1, 1, 1, dtype=torch.float64, device=problem.device))
    assert witness.value == pytest.approx(2.0) and witness.slopes is not None
