"""Operations of branch and bound on the relaxation's data: multipliers stay feasible, with a known value."""

from __future__ import annotations

import dataclasses

import nets
import pytest
import torch
from torch import Tensor

from lipcompare import Problem
from lipcompare.gates import Gates
from lipcompare.jacobian import gradient_intervals, norm_bound
from lipcompare.preactivation import interval_bounds
from lipcompare.quadratic.children import fix_high, fix_low, fix_sign
from lipcompare.quadratic.patterns import evaluate, explore
from lipcompare.quadratic.program import SdpData, gate_maps, l1_data
from lipcompare.quadratic.scaling import prepare
from lipcompare.quadratic.solver.certificate import certify
from lipcompare.quadratic.solver.interior_point import Dual, dual_value, slack_matrix, solve

PROBLEM = nets.problem(nets.dense(12, (4, 8, 8, 2)), 0.4)


def data_of(problem: Problem, gates: Gates) -> SdpData:
    gradients = gradient_intervals(problem.network, gates, problem.functionals)
    linear = norm_bound(problem.network, gates, problem.functionals, gradients, problem.norm)
    maps = gate_maps(problem.network, gates, problem.functionals, gradients)
    example, row = (linear > 0).nonzero(as_tuple=True)
    data = l1_data(maps, gradients, linear[example, row], example, row)
    return prepare(data, explore(data))


def parent() -> tuple[SdpData, Dual]:
    """A problem and a dual point that is feasible with ``d = 0``."""
    data = data_of(PROBLEM, gates())
    dual = solve(data, tolerance=1e-6).dual
    # Growing theta_0 and theta a little makes room for d = 0.
    theta = dual.theta * (1 + 1e-4) + 1e-7 * data.mask
    dual = Dual(theta, dual.lam, torch.zeros_like(dual.d))
    assert bool((lowest(data, dual) > 0).all())
    return data, dual


def gates() -> Gates:
    return Gates.from_preactivations(PROBLEM.network, interval_bounds(PROBLEM.network, PROBLEM.box.interval))


def lowest(data: SdpData, dual: Dual) -> Tensor:
    return torch.linalg.eigvalsh(slack_matrix(data, dual))[:, 0]


def every_pattern(data: SdpData) -> Tensor:
    """All patterns (problems, samples, n) of the coordinates."""
    n = data.size
    numbers = torch.arange(2 ** (n - 1))
    bits = ((numbers.unsqueeze(-1) >> torch.arange(n - 1)) & 1).bool()
    return torch.cat([torch.ones(len(numbers), 1, dtype=torch.bool), bits], 1).expand(data.problems, -1, -1)


@pytest.mark.parametrize("gate", [1, 4, 9])
def test_a_fixed_gate_keeps_the_value_and_feasibility(gate: int) -> None:
    data, dual = parent()
    value = dual_value(data, dual)
    which = torch.full((data.problems,), gate)
    mask = torch.zeros(data.problems, data.size, dtype=torch.bool)
    mask[:, gate] = True
    high = every_pattern(data)
    for side, (child, moved) in {
        False: fix_low(data, dual, mask),
        True: fix_high(data, dual, which),
    }.items():
        assert bool((lowest(child, moved) > -1e-12).all())
        torch.testing.assert_close(dual_value(child, moved), value, rtol=1e-12, atol=0)
        # The child's patterns are the parent's with this gate on that side.
        expected = evaluate(data, high & ~mask.unsqueeze(1) if not side else high | mask.unsqueeze(1)).values
        torch.testing.assert_close(evaluate(child, high).values, expected)
        solved = solve(child, start=moved)
        assert bool((certify(child, solved.dual) <= value * (1 + 1e-3)).all())
        assert bool((certify(child, solved.dual) >= expected.amax(-1)).all())


def test_with_a_trace_multiplier_the_documented_one_is_feasible() -> None:
    data, dual = parent()
    loose = Dual(0.5 * dual.theta, dual.lam, torch.zeros_like(dual.d))
    loose = dataclasses.replace(loose, d=-lowest(data, loose) + 1e-9)
    child, moved = fix_high(data, loose, torch.full((data.problems,), 2))
    assert bool((moved.d >= loose.d).all()) and bool((lowest(child, moved) > -1e-12).all())


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_fixed_sign_keeps_the_value_and_feasibility(sign: float) -> None:
    data, dual = parent()
    column = torch.zeros(data.problems, dtype=torch.int64)
    assert bool(data.entry_mask[:, 0].all())
    child, moved = fix_sign(data, dual, column, torch.full((data.problems,), sign))
    assert bool((lowest(child, moved) > -1e-12).all())
    torch.testing.assert_close(dual_value(child, moved), dual_value(data, dual))
    points = evaluate(data, every_pattern(data))
    entry = (points.points @ data.entries)[..., 0]
    torch.testing.assert_close(evaluate(child, points.high).values, points.values - entry.abs() + sign * entry)
