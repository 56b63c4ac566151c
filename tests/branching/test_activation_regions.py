"""Regions in the order of the layers: what one evaluation bounds, empties, attains and splits."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import nets
import numpy as np
import torch
from branching.brute import cancelling, exact_gradient, exact_rows

from lipcompare import Problem
from lipcompare.branching.activation_regions import RegionEvaluator
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.roots import root_bounds
from lipcompare.branching.tree import Subdomain
from lipcompare.budget import Deadline
from lipcompare.network import Affine
from lipcompare.network.linear_maps import Dense
from lipcompare.preactivation import Tightening


def evaluator_of(problem: Problem, seconds: float = 60.0) -> RegionEvaluator:
    bounds, _ = root_bounds(problem, Tightening.CROWN, 2**30)
    norm = problem.norm.dual.of
    return RegionEvaluator(problem=problem, bounds=bounds, measure=norm, deadline=Deadline.after(seconds))


def test_after_the_deadline_no_program_is_begun() -> None:
    problem = nets.problem(nets.dense(1, (3, 8, 6, 2)), 0.8)
    late, early = evaluator_of(problem, -1.0), evaluator_of(problem)
    nodes = [Subdomain(np.inf, 0, ()), Subdomain(np.inf, 1, (1,))]
    results = [evaluator.evaluate(nodes, 0.0, 0.0) for evaluator in (late, early)]
    assert late.programs == 0 and early.programs == 2
    assert results[0][0].upper >= exact_rows(problem)[0] * (1 - 1e-9)
    assert all(result.chain and not result.witnesses for result in results[0])
    assert all(result.witnesses for result in results[1])


def test_every_region_is_closed_at_its_value_or_empty() -> None:
    """All patterns of a small network, against points of the box."""
    problem = nets.problem(nets.dense(5, (2, 3, 2, 2)), 0.8)
    network, numbering, evaluator = problem.network, Numbering(problem.network), evaluator_of(problem)
    unit = torch.quasirandom.SobolEngine(2, seed=0).draw(4096, dtype=torch.float64)
    points = problem.box.lower[0] + unit.to(problem.device) * (problem.box.upper - problem.box.lower)[0]
    slopes = network.slopes(network.values(points))
    active = numbering.join(slopes) == 1
    norms = problem.norm.dual.of(network.pull_back(slopes, problem.functionals[0, 1]))
    patterns = [[bool(p >> g & 1) for g in range(5)] for p in range(32)]
    nodes = [Subdomain(np.inf, 1, tuple(2 * g + int(on) for g, on in enumerate(p))) for p in patterns]
    empty = 0
    for pattern, said in zip(patterns, evaluator.evaluate(nodes, 0.0, -1.0), strict=True):
        inside = (active == torch.tensor(pattern, device=active.device)).all(-1)
        empty += said.upper == -np.inf
        if bool(inside.any()):
            value = float(norms[inside].max())
            assert said.chain == () and value <= said.upper <= value * (1 + 1e-9) + 1e-12
            assert max((w.value for w in said.witnesses if w.row == 1), default=0.0) >= value * (1 - 1e-9)
    assert empty > 8


def test_the_value_of_a_region_is_rounded_upward() -> None:
    """The sum of the absolute values of its gradient, in rational arithmetic; in floating point it is often less."""
    problem = nets.problem(nets.dense(5, (2, 3, 2, 2), 0.3), 0.8)
    network, numbering, evaluator = problem.network, Numbering(problem.network), evaluator_of(problem)
    nodes = [Subdomain(np.inf, 1, tuple(2 * g + (p >> g & 1) for g in range(5))) for p in range(32)]
    below = 0
    for node, said in zip(nodes, evaluator.evaluate(nodes, 0.0, -1.0), strict=True):
        if said.upper > -np.inf:
            sides = torch.tensor([1.0 if d & 1 else 0.3 for d in node.decisions], dtype=torch.float64)
            slopes = numbering.split(sides)
            exact = sum(map(abs, exact_gradient(network, slopes, problem.functionals[0, 1].tolist())), Fraction(0))
            assert said.chain == () and exact <= Fraction(said.upper) <= exact * (1 + Fraction(1, 10**12))
            below += Fraction(float(network.pull_back(slopes, problem.functionals[0, 1]).abs().sum())) < exact
    assert below > 2


def test_the_value_of_a_region_is_rounded_upward_where_paths_cancel() -> None:
    for problem, exact in cancelling():
        (said,) = evaluator_of(problem).evaluate([Subdomain(np.inf, 0)], 0.0, -1.0)
        assert said.chain == () and exact <= Fraction(said.upper) <= exact * (1 + Fraction(1, 10**6))


def test_a_measure_of_interval_bounds_is_rounded_upward() -> None:
    """What it lost on the way, of as many operations as there are rows and inputs."""
    evaluator = evaluator_of(nets.problem(nets.dense(1, (3, 8, 6, 2)), 0.8))
    seen: list[float] = []

    def measure(magnitude: torch.Tensor) -> torch.Tensor:
        norms = magnitude.sum(-1)
        seen.append(float(norms[0, 0]))
        return norms * (1 - 2.0**-49)

    evaluator.measure = measure
    (said,) = evaluator.evaluate([Subdomain(np.inf, 0)], 0.0, 1e9)
    assert said.chain == () and seen[0] <= said.upper <= seen[0] * (1 + 1e-12)


def test_a_part_takes_over_the_point_of_the_whole_and_not_its_value() -> None:
    problem = nets.problem(nets.dense(1, (1, 1, 1)), 2.0)
    evaluator = evaluator_of(problem)
    (said,) = evaluator.evaluate([Subdomain(np.inf, 0)], 0.0, -1.0)
    assert said.chain == (1,)
    known = evaluator.located[()]
    assert known is not None
    evaluator.located[()] = dataclasses.replace(known, above=[-1.0])
    results = evaluator.evaluate([Subdomain(np.inf, 0, (side,)) for side in (0, 1)], 0.0, -2.0)
    assert evaluator.programs == 2 and min(result.upper for result in results) >= 0


def test_the_first_undecided_neuron_is_next() -> None:
    problem = nets.problem(nets.dense(1, (3, 8, 6, 2)), 0.8)
    evaluator = evaluator_of(problem)
    bounds = evaluator.bounds
    first = problem.network.activations[0]
    open_ = ((bounds[first].lower < 0) & (bounds[first].upper > 0))[0].nonzero().squeeze(-1).tolist()
    (said,) = evaluator.evaluate([Subdomain(np.inf, 0)], 0.0, 0.0)
    assert said.chain == (2 * open_[0] + 1,)
    (said,) = evaluator.evaluate([Subdomain(np.inf, 0, (2 * open_[0] + 1,))], 0.0, 0.0)
    assert said.upper == -np.inf or said.chain[0] >> 1 > open_[0]
    (said,) = evaluator.evaluate([Subdomain(np.inf, 0)], 0.0, 1e9)
    assert said.chain == () and np.isfinite(said.upper)


def test_no_program_speaks_of_a_neuron_behind_an_undecided_one() -> None:
    """``relu(x) + relu(-x) - 0.5`` is positive at both ends of [-1, 1], and -0.5 where both gates pass everything."""
    b = nets.Builder(1, 0)
    for weight, bias in (([[1.0], [-1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [-0.5]), ([[1.0]], [0.0])):
        weights, biases = (torch.tensor(v, dtype=torch.float64) for v in (weight, bias))
        b.nodes.append(Affine((b.last,), (Dense(weights),), biases))
        if len(b.nodes) < 6:
            b.activate()
    evaluator = evaluator_of(Problem.around(b.build(), 0.0, 1.0))
    (said,) = evaluator.evaluate([Subdomain(np.inf, 0, (5,))], 0.0, 0.0)
    assert said.upper >= 1 and said.chain == (1,) and evaluator.programs == 0
    said, _ = evaluator.evaluate([Subdomain(np.inf, 0, (5, 1)), Subdomain(np.inf, 0, (5, 0))], 0.0, 0.0)
    assert said.upper >= 1


def test_rows_share_programs_and_a_part_with_the_point_needs_none() -> None:
    problem = nets.problem(nets.dense(1, (3, 8, 6, 2)), 0.8)
    evaluator = evaluator_of(problem)
    said, _ = evaluator.evaluate([Subdomain(np.inf, 0), Subdomain(np.inf, 1)], 0.0, 0.0)
    assert evaluator.programs == 1
    parts = [Subdomain(np.inf, row, (said.chain[0] ^ side,)) for row in (0, 1) for side in (0, 1)]
    results = evaluator.evaluate(parts, 0.0, 0.0)
    assert evaluator.programs == 2 and len(evaluator.located) == 3
    alone = evaluator_of(problem)
    assert [r.upper for r in results] == [r.upper for r in alone.evaluate(parts, 0.0, 0.0)] and alone.programs == 2
    tight = evaluator_of(problem)
    tight.memory = 1  # no room to remember anything, and none for programs
    assert [r.upper for r in tight.evaluate(parts, 0.0, 0.0)] == [r.upper for r in results] and not tight.located
