"""What every relaxation of the table must do; a new one is tested by being registered."""

from __future__ import annotations

import nets
import pytest
import torch

from lipcompare import InvalidInput, bound
from lipcompare.jacobian import RELAXATIONS, interval_gradient, relaxation_named
from lipcompare.preactivation import Tightening
from lipcompare.problem import Norm
from lipcompare.questions import directional_bounds, jacobian_bounds
from lipcompare.questions.entries import gates_and_lines


@pytest.mark.parametrize("family", sorted(nets.FAMILIES))
@pytest.mark.parametrize("name", sorted(RELAXATIONS))
def test_it_bounds_entries_norms_and_directions(name: str, family: str) -> None:
    """Each relaxation with each norm on a third of the families."""
    relaxation = RELAXATIONS[name]
    norm = list(Norm)[(sorted(nets.FAMILIES).index(family) + sorted(RELAXATIONS).index(name)) % 3]
    problem = nets.problem(nets.FAMILIES[family](3), 0.2, batch=2, norm=norm.value)
    network, rows = problem.network, problem.functionals
    gates, forward = gates_and_lines(problem, relaxation, Tightening.CROWN, 2**30)
    gradients = relaxation.gradients(network, gates, rows, norm=Norm.TWO, forward=forward)
    assert set(gradients.intervals) >= {0, *network.activations}
    random = torch.Generator().manual_seed(0)
    lower, upper = problem.box.interval
    points = lower + torch.rand(200, *lower.shape, generator=random, dtype=torch.float64).to(lower) * (upper - lower)
    slopes = {k: v.unsqueeze(2) for k, v in network.slopes(network.values(points)).items()}
    seen = network.pull_back(slopes, rows.expand(200, *rows.shape))
    entries = gradients.intervals[0]
    assert bool((seen >= entries.lower).all()) and bool((seen <= entries.upper).all())
    for norms in (
        relaxation.norms(network, gates, rows, gradients, problem.norm, forward),
        torch.as_tensor(bound(problem, "lbp", relaxation=name, tightening="crown").upper).to(lower),
    ):
        assert bool((norms >= problem.norm.dual.of(seen)).all())
    vectors = torch.randn(3, network.in_size, generator=random, dtype=torch.float64).to(lower)
    known = relaxation.gradients(network, gates, rows, norm=None, forward=forward)
    along = relaxation.along(network, gates, rows, known, vectors, forward)
    assert bool((seen @ vectors.T >= along.lower).all()) and bool((seen @ vectors.T <= along.upper).all())


@pytest.mark.parametrize("name", sorted(RELAXATIONS))
def test_it_answers_questions_and_is_at_least_as_good_as_interval_arithmetic(name: str) -> None:
    problem = nets.problem(nets.dense(1), 0.2)
    entries = jacobian_bounds(problem, name)
    gates, _ = gates_and_lines(problem, RELAXATIONS[name], Tightening.ALPHA_CROWN, 2**30)
    step = interval_gradient(problem.network, gates, problem.functionals)
    lower, upper = (end.cpu().numpy() for end in step)
    assert (entries.upper <= upper + 1e-9).all() and (entries.lower >= lower - 1e-9).all()
    along = directional_bounds(problem, torch.eye(problem.network.in_size, dtype=torch.float64), name)
    assert (along.upper <= entries.upper + 1e-9).all()


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match="Did you mean 'lbp'"):
        relaxation_named("lpb")
    with pytest.raises(InvalidInput, match="lbp"):
        bound(nets.problem(nets.dense(0), 0.1), "lbp", relaxation="lpb")
    with pytest.raises(InvalidInput, match="sdp"):
        bound(nets.problem(nets.dense(0), 0.1), "bab", bound="spd")
