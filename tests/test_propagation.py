"""From a problem to its linear bound, with what lies between."""

from __future__ import annotations

import nets
import pytest
import torch

from lipcompare.jacobian import RELAXATIONS
from lipcompare.preactivation import Tightening
from lipcompare.propagation import Propagated, coupled, propagate


def run(problem, *, joint: bool = True, seconds: float = torch.inf) -> Propagated:
    return propagate(problem, Tightening.CROWN, RELAXATIONS["lbp"], joint=joint, memory=2**30, seconds=seconds)


@pytest.mark.parametrize("family", sorted(nets.FAMILIES))
def test_the_bound_is_above_sampled_norms(family: str) -> None:
    problem = nets.problem(nets.FAMILIES[family](4), 0.2, batch=2)
    found = run(problem)
    assert bool((found.upper.cpu() >= nets.sampled_norms(problem) * (1 - 1e-9)).all())
    assert not found.hurried
    assert set(found.bounds) == set(found.gates.slopes) == set(problem.network.activations)


def test_slopes_of_smooth_activations_are_also_relaxed_jointly() -> None:
    problem = nets.problem(nets.FAMILIES["sigmoid"](4), 0.4)
    joint, apart = run(problem), run(problem, joint=False)
    assert bool((joint.upper <= apart.upper * (1 + 1e-9)).all())
    assert float(joint.upper.sum()) < 0.999 * float(apart.upper.sum())
    assert joint.gates.lines
    assert not apart.gates.lines


def test_without_time_it_says_so_and_holds() -> None:
    problem = nets.problem(nets.dense(2, (4, 8, 8, 2)), 0.3)
    hurried, whole = run(problem, seconds=0.0), run(problem)
    assert hurried.hurried
    assert bool((hurried.upper >= whole.upper * (1 - 1e-9)).all())


def test_probing_goes_on_from_a_bound_and_never_loosens_it() -> None:
    gained = 0.0
    for seed in range(4):
        problem = nets.problem(nets.dense(seed, (3, 8, 8, 2)), 0.3)
        found = run(problem)
        probed, coupling = coupled(problem, found, memory=2**30)
        assert bool((probed.upper <= found.upper).all())
        assert bool((probed.upper.cpu() >= nets.sampled_norms(problem) * (1 - 1e-9)).all())
        gained += float((found.upper - probed.upper).sum())
        for k, z in probed.bounds.items():
            assert bool((z.lower >= found.bounds[k].lower).all() & (z.upper <= found.bounds[k].upper).all())
            assert torch.equal(z.lower, coupling.bounds[k].lower)
    assert gained > 0.01
    assert coupled(problem, found, memory=2**30, seconds=0.0)[0].hurried
