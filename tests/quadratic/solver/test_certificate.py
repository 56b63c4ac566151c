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
from lipcompare.quadratic.program import Cuts, SdpData, gate_maps, l1_data
from lipcompare.quadratic.scaling import rescaled
from lipcompare.quadratic.solver import certificate
from lipcompare.quadratic.solver.certificate import _formation, certify
from lipcompare.quadratic.solver.dual import Dual, dual_value, slack_matrix
from lipcompare.quadratic.solver.interior_point import solve
from lipcompare.quadratic.solver.start import default_start

UNIT = torch.finfo(torch.float64).eps / 2


def data_of(sizes: tuple[int, ...] = (3, 6, 6, 2), eps: float = 0.5) -> SdpData:
    problem = nets.problem(nets.dense(3, sizes), eps)
    network = problem.network
    gates = Gates.from_preactivations(network, interval_bounds(network, problem.box.interval))
    gradients = gradient_intervals(network, gates, problem.functionals)
    linear = norm_bound(network, problem.functionals, gradients, problem.norm)
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
    formation = _formation(data, dual) + data.slack + (dual.theta.abs() * data.limit * data.gate_slack).sum(-1)
    terms = 8 * (data.size + data.entry_mask.shape[-1] + 16)
    total = terms * UNIT * (value.abs() + dual.theta.abs().sum(-1)) * 1.01
    rest = certify(data, dual) - value - formation - total
    assert bool((margin > 4 * UNIT * terms).all())
    assert bool((rest >= 0.99 * margin).all())
    assert bool((rest <= 1e-7 * value.abs()).all())


def test_the_sum_itself_is_rounded_too() -> None:
    """Beside a large constant, whose roundings are all that changes."""
    data, large = data_of(), 1e6
    dual = feasible(data)
    more = certify(dataclasses.replace(data, offset=data.offset + large), dual)
    terms = 8 * (data.size + data.entry_mask.shape[-1] + 16)
    added = more - certify(data, dual) - large
    assert bool((added >= 0.9 * terms * UNIT * large).all()) and bool((added <= 1.1 * terms * UNIT * large).all())


def test_errors_of_cuts_are_weighted_with_their_multipliers() -> None:
    """Each way of the product may be off by it: twice."""
    data = data_of()
    there = torch.ones(data.problems, 2, dtype=torch.bool)
    column = torch.zeros(data.problems, data.size, 2, dtype=torch.float64)
    column[:, 0] = 1.0
    slack = torch.tensor([0.0, 0.1], dtype=torch.float64).expand(data.problems, -1)
    cuts = Cuts(left=column, right=column, mask=there, equal=~there, slack=slack)
    dual = dataclasses.replace(feasible(data), nu=torch.full_like(slack, 1e-4))
    exact, off = (data.with_cuts(c) for c in (dataclasses.replace(cuts, slack=0 * slack), cuts))
    torch.testing.assert_close(
        certify(off, dual) - certify(exact, dual), torch.full_like(data.scale, 2e-5), rtol=1e-6, atol=0
    )


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
    error = torch.linspace(0, 0.1, data.size, dtype=torch.float64).to(data.limit) * data.mask
    more = dataclasses.replace(data, gate_slack=data.gate_slack + error)
    added = (dual.theta.abs() * data.limit * error).sum(-1)
    torch.testing.assert_close(certify(more, dual), certify(data, dual) + added, rtol=1e-12, atol=0)


def test_rounding_of_coefficients_is_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of()
    dual = feasible(data)
    charge = _formation(data, dual)
    points = explore(data).points
    for seed in range(5):
        random = torch.Generator().manual_seed(seed)

        def off(value: torch.Tensor, random: torch.Generator = random) -> torch.Tensor:
            """Every coefficient off by a unit roundoff, enlarged so that the difference is not rounding itself."""
            sides = 2 * torch.randint(0, 2, value.shape, generator=random).to(value) - 1
            return value * (1 + 1e-6 * sides)

        moved = dataclasses.replace(data, columns=off(data.columns), entries=off(data.entries))
        change = slack_matrix(moved, dual) - slack_matrix(data, dual)
        worst = ((points @ change) * points).sum(-1).abs().amax(-1) * (UNIT / 1e-6)
        assert bool((worst <= charge).all()) and bool((worst > 0).all())
    plain = certify(data, dual)
    monkeypatch.setattr(certificate, "_formation", lambda data, dual: charge + 0.25)
    torch.testing.assert_close(certify(data, dual), plain + 0.25, rtol=1e-12, atol=0)


@pytest.mark.parametrize("field", ["columns", "entries", "cost", "left", "right"])
def test_every_kind_of_coefficient_is_charged_by_itself(field: str) -> None:
    """Coefficients of one kind, the others zero, each off by a roundoff in the worst direction at a corner."""
    whole = data_of()
    random = torch.Generator().manual_seed(0)
    drawn = torch.randn(2, whole.problems, whole.size, 3, generator=random, dtype=torch.float64)
    f, g = drawn.to(whole.limit) * whole.mask.unsqueeze(-1)
    there = torch.ones(whole.problems, 3, dtype=torch.bool, device=whole.limit.device)
    cuts = Cuts(left=f, right=g, mask=there, equal=~there, slack=0.0 * there)
    blank = {name: torch.zeros_like(getattr(whole, name)) for name in ("columns", "entries", "cost") if name != field}
    data = dataclasses.replace(whole, cuts=cuts if field in ("left", "right") else whole.cuts, **blank)
    nu = torch.rand(data.problems, 3, generator=random, dtype=torch.float64).to(whole.limit)
    dual = dataclasses.replace(feasible(whole), nu=nu)
    if not data.cuts.count:
        dual = dataclasses.replace(dual, nu=None)
    w = data.limit * (2 * torch.randint(0, 2, data.limit.shape, generator=random).to(data.limit) - 1)
    if field in ("left", "right"):
        value = getattr(cuts, field)
        other = ((w.unsqueeze(1) @ (cuts.right if field == "left" else cuts.left)).squeeze(1) * dual.nu).sign()
        off = 1e-6 * value.abs() * w.unsqueeze(-1).sign() * other.unsqueeze(1)
        moved = data.with_cuts(dataclasses.replace(cuts, **{field: value + off}))
    elif field == "columns":
        off = 1e-6 * data.columns.abs() * (w.unsqueeze(-1) * (w * dual.theta).unsqueeze(-2)).sign()
        moved = dataclasses.replace(data, columns=data.columns + off)
    elif field == "entries":
        along = (w.unsqueeze(1) @ data.entries).squeeze(1).sign()
        off = 1e-6 * data.entries.abs() * w.unsqueeze(-1).sign() * along.unsqueeze(1)
        moved = dataclasses.replace(data, entries=data.entries + off)
    else:
        off = 1e-6 * data.cost.abs() * (w.unsqueeze(-1) * w.unsqueeze(-2)).sign()
        moved = dataclasses.replace(data, cost=data.cost + off)
    change = slack_matrix(moved, dual) - slack_matrix(data, dual)
    worst = ((w.unsqueeze(1) @ change).squeeze(1) * w).sum(-1).abs() * (UNIT / 1e-6)
    charge = _formation(data, dual)
    assert bool((worst > 0).all()) and bool((worst <= charge).all())
    assert bool((charge <= 1e4 * worst).all())  # and it is no blanket


def test_a_point_outside_pays_for_its_smallest_eigenvalue() -> None:
    data = data_of()
    dual = feasible(data)
    short = dataclasses.replace(dual, theta=0.5 * dual.theta, d=torch.full_like(dual.d, 0.05))
    lowest = torch.linalg.eigvalsh(slack_matrix(data, short))[:, 0] - short.d
    assert bool((lowest < -1e-3).all())
    value = dual_value(data, dataclasses.replace(short, d=torch.zeros_like(short.d)))
    charged = certify(data, short) - value - data.offset
    assert bool((charged >= -lowest * data.bound).all()) and bool((charged <= -1.5 * lowest * data.bound).all())


def test_a_factorisation_is_of_a_matrix_that_is_smaller_by_the_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a multiplier pays for the smallest eigenvalue and for the margin; here this is half as large."""
    data = data_of()
    dual = feasible(data)
    short = dataclasses.replace(dual, theta=0.5 * dual.theta, d=torch.full_like(dual.d, 0.05))
    lowest = torch.linalg.eigvalsh(slack_matrix(data, short))[:, 0] - short.d
    monkeypatch.setattr(certificate, "cholesky_shift", lambda order, trace: -0.5 * lowest)
    value = dual_value(data, dataclasses.replace(short, d=torch.zeros_like(short.d)))
    charged = certify(data, short) - value - data.offset
    assert bool((lowest < -1e-3).all()) and bool((charged >= -1.5 * lowest * data.bound).all())


def test_multipliers_of_inequalities_and_signs_that_are_negative_prove_nothing() -> None:
    data = data_of()
    dual = feasible(data)
    there = torch.ones(data.problems, 1, dtype=torch.bool)
    column = torch.zeros(data.problems, data.size, 1, dtype=torch.float64)
    column[:, 0] = 1.0
    slack = torch.zeros(data.problems, 1, dtype=torch.float64)
    below = dataclasses.replace(dual, nu=slack - 1e-4)
    for equal in (there, ~there):
        cuts = Cuts(left=column, right=column, mask=there, equal=equal, slack=slack)
        assert certify(data.with_cuts(cuts), below).isfinite().tolist() == equal[:, 0].tolist()
    assert bool((certify(data, dataclasses.replace(dual, lam=-dual.lam)) == torch.inf).all())


def test_a_point_too_far_outside_proves_nothing() -> None:
    """No multiplier of the trace that is tried makes ``S`` positive semidefinite; what it would say is far below 0."""
    data = data_of()
    dual = feasible(data)
    theta = dual.theta.clone()
    theta[:, 0] = -1e6
    far = dataclasses.replace(dual, theta=theta)
    assert bool((dual_value(data, far) + data.offset < -1e5).all())
    assert bool(torch.isinf(certify(data, far)).all())
