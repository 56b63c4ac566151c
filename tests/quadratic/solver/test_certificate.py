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
from lipcompare.quadratic.scaling import rescaled
from lipcompare.quadratic.solver import certificate
from lipcompare.quadratic.solver.certificate import _formation, certify
from lipcompare.quadratic.solver.interior_point import Dual, default_start, dual_value, slack_matrix, solve

UNIT = torch.finfo(torch.float64).eps / 2


def data_of(sizes: tuple[int, ...] = (3, 6, 6, 2), eps: float = 0.5) -> SdpData:
    problem = nets.problem(nets.dense(3, sizes), eps)
    network = problem.network
    gates = Gates.from_preactivations(network, interval_bounds(network, problem.box.interval))
    gradients = gradient_intervals(network, gates, problem.functionals)
    linear = norm_bound(network, gates, problem.functionals, gradients, problem.norm)
    maps = gate_maps(network, gates, problem.functionals, gradients)
    example, row = (linear > 0).nonzero(as_tuple=True)
    data = l1_data(maps, gradients, linear[example, row], example, row)
    return rescaled(data, explore(data))


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
    data = data_of((6, 16, 16, 16, 3), 0.8)
    dual = dataclasses.replace(default_start(data), d=torch.zeros_like(data.scale))
    # A cost that leaves S far inside.
    data = dataclasses.replace(data, cost=data.cost - 20 * torch.diag_embed(data.mask.double()))
    assert bool((torch.linalg.eigvalsh(slack_matrix(data, dual))[:, 0] > 1e-2).all())
    margin = rump(data, dual) * data.bound
    value = dual_value(data, dual) + data.offset
    # What else is charged: rounding in S, in the coefficients, and in the sum itself, which must not hide the margin.
    formation = _formation(data, dual, UNIT) + data.slack + (dual.theta.abs() * data.limit * data.gate_slack).sum(-1)
    terms = 8 * (data.mask.sum(-1) + data.entry_mask.sum(-1) + 16)
    total = terms * UNIT * (value.abs() + dual.theta.abs().sum(-1)) * 1.01
    rest = certify(data, dual) - value - formation - total
    assert bool((margin > 4 * UNIT * terms).all())
    assert bool((rest >= 0.99 * margin).all())
    assert bool((rest <= 1e-7 * value.abs()).all())


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


def test_rounding_of_coefficients_is_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of()
    dual = feasible(data)
    charge = _formation(data, dual, UNIT)
    points = explore(data).points
    for seed in range(5):
        random = torch.Generator().manual_seed(seed)

        def off(value: torch.Tensor, random: torch.Generator = random) -> torch.Tensor:
            """Every coefficient off by a unit roundoff, enlarged so that the difference is not rounding itself."""
            sides = 2 * torch.randint(0, 2, value.shape, generator=random) - 1
            return value * (1 + 1e-6 * sides)

        moved = dataclasses.replace(data, columns=off(data.columns), entries=off(data.entries))
        change = slack_matrix(moved, dual) - slack_matrix(data, dual)
        worst = ((points @ change) * points).sum(-1).abs().amax(-1) * (UNIT / 1e-6)
        assert bool((worst <= charge).all()) and bool((worst > 0).all())
    plain = certify(data, dual)
    monkeypatch.setattr(certificate, "_formation", lambda data, dual, unit: charge + 0.25)
    torch.testing.assert_close(certify(data, dual), plain + 0.25, rtol=1e-12, atol=0)


def test_a_point_outside_pays_for_its_smallest_eigenvalue() -> None:
    data = data_of()
    dual = feasible(data)
    short = dataclasses.replace(dual, theta=0.5 * dual.theta, d=torch.full_like(dual.d, 0.05))
    lowest = torch.linalg.eigvalsh(slack_matrix(data, short))[:, 0] - short.d
    assert bool((lowest < -1e-3).all())
    value = dual_value(data, dataclasses.replace(short, d=torch.zeros_like(short.d)))
    charged = certify(data, short) - value - data.offset
    assert bool((charged >= -lowest * data.bound).all()) and bool((charged <= -1.5 * lowest * data.bound).all())
