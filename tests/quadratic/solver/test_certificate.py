"""The certificate's margins: each is needed, and each is there."""

from __future__ import annotations

import dataclasses

import nets
import pytest
import torch

from lipcompare.gates import Gates
from lipcompare.jacobian import gradient_intervals, norm_bound
from lipcompare.preactivation import interval_bounds
from lipcompare.quadratic.patterns import explore
from lipcompare.quadratic.program import SdpData, gate_maps, l1_data
from lipcompare.quadratic.scaling import prepare
from lipcompare.quadratic.solver.certificate import certify
from lipcompare.quadratic.solver.interior_point import Dual, dual_value, slack_matrix, solve

UNIT = torch.finfo(torch.float64).eps / 2


def data_of() -> SdpData:
    problem = nets.problem(nets.dense(3, (3, 6, 6, 2)), 0.5)
    network = problem.network
    gates = Gates.from_preactivations(network, interval_bounds(network, problem.box.interval))
    gradients = gradient_intervals(network, gates, problem.functionals)
    linear = norm_bound(network, gates, problem.functionals, gradients, problem.norm)
    maps = gate_maps(network, gates, problem.functionals, gradients)
    example, row = (linear > 0).nonzero(as_tuple=True)
    data = l1_data(maps, gradients, linear[example, row], example, row)
    return prepare(data, explore(data))


def feasible(data: SdpData) -> Dual:
    """A point that is well inside with ``d = 0``."""
    dual = solve(data, tolerance=1e-6).dual
    dual = dataclasses.replace(dual, theta=dual.theta * (1 + 1e-2) + 1e-3 * data.mask, d=torch.zeros_like(dual.d))
    assert bool((torch.linalg.eigvalsh(slack_matrix(data, dual))[:, 0] > 1e-4).all())
    return dual


def rump(data: SdpData, dual: Dual) -> torch.Tensor:
    """``(n + 2) u tr(S)``, what a Cholesky factorisation of S that runs through may be wrong by."""
    slack = slack_matrix(data, dual)
    trace = (slack.diagonal(dim1=-2, dim2=-1) * data.mask).sum(-1)
    return (data.mask.sum(-1) + 2) * UNIT * trace


def test_a_factorisation_proves_no_less_than_rumps_margin() -> None:
    """Even of a matrix that is far inside: its smallest eigenvalue is only known up to the margin."""
    data = data_of()
    dual = feasible(data)
    charged = certify(data, dual) - dual_value(data, dual) - data.offset
    assert bool((charged >= rump(data, dual) * data.bound).all())
    assert bool((charged <= 1e-7 * dual_value(data, dual).abs() + 1e-9).all())


@pytest.mark.parametrize("field", ["slack", "offset"])
def test_what_the_data_carry_is_added(field: str) -> None:
    data = data_of()
    dual = feasible(data)
    plain = certify(data, dual)
    more = dataclasses.replace(data, **{field: getattr(data, field) + 0.25})
    torch.testing.assert_close(certify(more, dual), plain + 0.25, rtol=1e-12, atol=0)


def test_errors_of_gates_are_weighted_with_their_multipliers() -> None:
    data = data_of()
    dual = feasible(data)
    error = torch.linspace(0, 0.1, data.size, dtype=torch.float64) * data.mask
    more = dataclasses.replace(data, gate_slack=data.gate_slack + error)
    added = (dual.theta.abs() * data.limit * error).sum(-1)
    torch.testing.assert_close(certify(more, dual), certify(data, dual) + added, rtol=1e-12, atol=0)


def test_rounding_of_large_coefficients_is_charged() -> None:
    """``S`` has entries of size 1e8 that cancel in the trace's favour nowhere: 1e8 u must show in the bound."""
    data = data_of()
    dual = feasible(data)
    heavy = 1e8 * torch.eye(data.size, dtype=torch.float64)
    large = dataclasses.replace(data, cost=data.cost - heavy * data.mask.unsqueeze(-1))
    charged = certify(large, dual) - dual_value(large, dual) - large.offset
    size = (1e8 * data.limit.square()).sum(-1)
    assert bool((charged >= 20 * UNIT * size).all())


def test_a_point_outside_pays_for_its_smallest_eigenvalue() -> None:
    data = data_of()
    dual = feasible(data)
    short = dataclasses.replace(dual, theta=0.5 * dual.theta, d=torch.full_like(dual.d, 0.05))
    lowest = torch.linalg.eigvalsh(slack_matrix(data, short))[:, 0] - short.d
    assert bool((lowest < -1e-3).all())
    value = dual_value(data, dataclasses.replace(short, d=torch.zeros_like(short.d)))
    charged = certify(data, short) - value - data.offset
    assert bool((charged >= -lowest * data.bound).all()) and bool((charged <= -1.5 * lowest * data.bound).all())
