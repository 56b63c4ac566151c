"""Operator norms of whole Jacobians, and the transposed network they need."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import nets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lipcompare
from lipcompare import Box, Network, Norm, NormBall, Space, Status
from lipcompare.attack.search import Effort
from lipcompare.branching.roots import root_bounds
from lipcompare.branching.spectral import SpectralEvaluator
from lipcompare.jacobian import RELAXATIONS
from lipcompare.methods.lipsdp import LipSdp
from lipcompare.network import Affine
from lipcompare.preactivation import Tightening
from lipcompare.questions import NAIVE, SDP, exact_operator_norms, operator_norm_bounds
from lipcompare.questions.operator_norm.points import matrix_norm
from lipcompare.testing import exact, hostile

QUICK = Effort(samples=64, starts=2, ascent_steps=5, rounds=10, proposals=2, regions=5)


def _jacobian(network: Network, x: torch.Tensor) -> torch.Tensor:
    return network.pull_back(network.slopes(network.values(x)), torch.eye(network.out_size, dtype=torch.float64))


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_exact_norms_have_a_status_and_both_ends_hold(norm: str) -> None:
    """Lower ends came out above the truth by rounding; an open interval had no reason."""
    problem = hostile.problem("cancelling terms", 10, norm, torch.float32)
    found = exact_operator_norms(problem.network, problem.box, norm, gap=1e-3)
    assert found.status is Status.EXACT and found.lower[0] >= found.upper[0] * (1 - 1e-3)
    if norm != "2":
        domain = exact.domains(problem)[0][0]
        jacobians = [np.array(j) for j in exact.jacobians(problem.network, domain)]  # of fractions
        truth = max(abs(j).sum(1 if norm == "inf" else 0).max() for j in jacobians)
        assert Fraction(float(found.lower[0])) <= truth <= Fraction(float(found.upper[0]))
    late = exact_operator_norms(problem.network, problem.box, norm, gap=0.0, time_limit=0.0)
    assert late.status is not Status.EXACT and late.lower[0] <= late.upper[0]


@pytest.mark.parametrize(
    ("family", "norm"),
    [("plain", "2"), ("cancelling terms", "inf"), ("extreme scales", "1"), ("small scales", "2"), ("everywhere", "2")],
)
def test_the_first_bound_comes_whatever_the_time_and_holds(family: str, norm: str) -> None:
    problem = hostile.problem(family, 4, norm, torch.float64)
    late = operator_norm_bounds(problem.network, problem.box, norm, effort=QUICK, time_limit=0.0)
    found = operator_norm_bounds(problem.network, problem.box, norm, effort=QUICK)
    assert late.status is Status.TIME_LIMIT and found.status is Status.COMPLETE
    assert late.trace[0].upper == found.trace[0].upper >= found.trace[-1].upper == found.upper.max()
    proved = exact_operator_norms(problem.network, problem.box, norm, gap=1e-2, time_limit=2.0)
    assert (late.upper >= proved.lower).all() and (found.upper >= proved.lower).all()


def test_a_search_begins_with_the_first_bound() -> None:
    problem = nets.problem(nets.dense(3, (3, 5, 4, 2)), 0.4)
    for norm, method in (("2", "bab"), ("1", "lipbab")):
        late = exact_operator_norms(problem.network, problem.box, norm, method=method, time_limit=0.0)
        assert late.trace[0].upper == late.upper[0] < np.inf and late.status is Status.TIME_LIMIT


@pytest.mark.parametrize("norm", ["inf", "1"])
def test_programs_of_single_precision_hold(norm: str) -> None:
    """Where all gates are decided, a gradient rounded to float32 was taken for the exact one: 6e-9 under the truth."""
    problem = hostile.problem("plain", 30200, norm, torch.float32)
    (inner,), _ = exact.domains(problem)
    (jacobian,) = exact.jacobians(problem.network, inner)
    lines = jacobian if norm == "inf" else list(zip(*jacobian, strict=True))
    value = max(sum(map(abs, line)) for line in lines)
    found = operator_norm_bounds(problem.network, problem.box, norm, "sdp")
    assert Fraction(float(found.lower[0])) <= value <= Fraction(float(found.upper[0]))
    assert found.upper[0] == pytest.approx(float(value), rel=1e-9)


@pytest.mark.parametrize("everywhere", [False, True])
def test_lipsdp_of_all_outputs_is_the_program_over_the_gates(everywhere: bool) -> None:
    """The published program by a conic solver, and ours from the outputs' side, are each other's transposed."""
    problem = nets.problem(nets.dense(3, (3, 4, 3, 2)), 0.4, batch=1 if everywhere else 2)
    domain = Space.of(3) if everywhere else problem.box
    published = operator_norm_bounds(problem.network, domain, "2", "lipsdp", effort=QUICK)
    ours = operator_norm_bounds(problem.network, domain, "2", SDP, effort=QUICK)
    proved = exact_operator_norms(problem.network, domain, "2", gap=1e-2)
    assert published.status is Status.COMPLETE and (published.upper >= proved.lower).all()
    assert published.upper == pytest.approx(ours.upper, rel=2e-2)  # that is the better of several relaxations
    with pytest.raises(lipcompare.InvalidInput, match="for p = 2"):
        operator_norm_bounds(problem.network, domain, "inf", "lipsdp")


@pytest.mark.parametrize("family", ["plain", "cancelling terms", "everywhere"])
def test_lipsdp_of_all_outputs_holds(family: str) -> None:
    problem = hostile.problem(family, 1, "2", torch.float32)
    found = operator_norm_bounds(problem.network, problem.box, "2", "lipsdp", effort=QUICK)
    assert (found.upper >= exact_operator_norms(problem.network, problem.box, "2", gap=1e-2).lower).all()


def test_lipsdp_of_all_outputs_needs_room_and_a_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    box = nets.problem(nets.dense(3, (3, 5, 4, 2)), 0.4).box
    network = nets.dense(3, (3, 5, 4, 2))
    late = operator_norm_bounds(network, box, "2", "lipsdp", effort=QUICK, time_limit=0.0)
    assert late.upper[0] >= late.lower[0]
    monkeypatch.setattr(LipSdp, "__init__", lambda self: object.__setattr__(self, "limit", 3))
    with pytest.raises(lipcompare.UnsupportedOperation, match="the limit is 3"):
        operator_norm_bounds(network, box, "2", "lipsdp")


def test_a_kink_in_a_box_of_one_point_is_attained() -> None:
    """relu(6 x - 6) + relu(x - 1) - ... at its kink: a search that found no point left [1, 6] open without a word."""
    kinked = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1)).double()
    with torch.no_grad():
        kinked[0].weight[:], kinked[0].bias[:] = torch.tensor([[1.0], [-1.0]]), torch.tensor([-1.0, 1.0])
        kinked[2].weight[:], kinked[2].bias[:] = torch.tensor([[6.0, 1.0]]), 0.0
    network, at = lipcompare.load(kinked), torch.ones(1, 1, dtype=torch.float64)
    found = exact_operator_norms(network, Box(at, at), "inf")
    assert found.upper[0] == pytest.approx(6 * (1 + 1e-12)) and found.lower[0] <= 6 <= found.upper[0]
    assert found.status is Status.EXACT


@settings(max_examples=6, deadline=None)
@given(
    network=nets.networks(),
    norm=st.sampled_from(["inf", "2", "1"]),
    bounding=st.sampled_from([*RELAXATIONS, SDP, NAIVE]),
    eps=st.sampled_from([0.0, 0.2]),
)
def test_bounds_hold(network: Network, norm: str, bounding: str, eps: float) -> None:
    problem = nets.problem(network, eps, batch=2)
    found = operator_norm_bounds(network, problem.box, norm, bounding, effort=QUICK)
    unit = torch.rand(2, 200, network.in_size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    points = problem.box.lower.unsqueeze(1) + unit * (problem.box.upper - problem.box.lower).unsqueeze(1)
    for b in range(2):
        seen = max(float(matrix_norm(_jacobian(network, x), Norm(norm))) for x in points[b])
        assert found.upper[b] >= seen * (1 - 1e-9)
        assert found.lower[b] >= 0.7 * seen
        if not found.at_kink[b]:
            there = matrix_norm(_jacobian(network, torch.as_tensor(found.points[b])), Norm(norm))
            assert float(there) == pytest.approx(found.lower[b], rel=1e-9, abs=1e-12)
        if eps == 0.0 and bounding == "lbp" and not found.at_kink[b] and norm != "2":
            assert found.upper[b] == pytest.approx(found.lower[b], rel=1e-6, abs=1e-9)


def test_the_largest_row_is_the_row_problem() -> None:
    problem = nets.problem(nets.conv(3), 0.2)
    rows = lipcompare.bound(problem, "lbp")
    found = operator_norm_bounds(problem.network, problem.box, "inf", effort=QUICK)
    np.testing.assert_allclose(found.upper, rows.overall_upper, rtol=1e-9)


def test_balls_and_the_whole_space() -> None:
    network = nets.dense(0)
    ball = NormBall.around(torch.full((1, 3), 0.5, dtype=torch.float64), 0.2, "2")
    space = Space.of(3)
    for norm in ("inf", "2", "1"):
        local = operator_norm_bounds(network, ball, norm, effort=QUICK)
        everywhere = operator_norm_bounds(network, space, norm, effort=QUICK)
        assert local.lower[0] <= local.upper[0] <= everywhere.upper[0] * (1 + 1e-9)
        assert bool(ball.contains(torch.as_tensor(local.points).unsqueeze(1)).all())


def test_ten_outputs_on_all_inputs_are_exact_for_p_one() -> None:
    network = nets.dense(0, (2, 3, 10))
    found = exact_operator_norms(network, Space.of(2), "1", gap=1e-9)
    bits = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)
    weights = [node.maps[0].matrix() for node in network.nodes if isinstance(node, Affine)]
    # Three lines in the plane in general position: seven of the eight patterns are attained, all but one of them.
    patterns = [weights[1] @ torch.diag(slopes) @ weights[0] for slopes in bits]
    sums = sorted(float(matrix.abs().sum(0).max()) for matrix in patterns)
    assert found.status is lipcompare.Status.EXACT
    assert any(found.upper[0] == pytest.approx(value, rel=1e-8) for value in sums[-2:])
    with pytest.raises(lipcompare.InvalidInput, match="up to 12 outputs"):
        exact_operator_norms(nets.dense(0, (2, 3, 13)), Space.of(2), "1")


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("family", ["dense", "residual"])
def test_branch_and_bound_and_regions_agree(norm: str, family: str) -> None:
    network = nets.dense(4, (3, 6, 5, 3)) if family == "dense" else nets.residual(2)
    box = nets.problem(network, 0.7).box
    found = [exact_operator_norms(network, box, norm, method=m, gap=1e-5) for m in ("bab", "lipbab")]
    for one in found:
        assert one.status is lipcompare.Status.EXACT and one.lower[0] <= one.upper[0] <= one.lower[0] * (1 + 2e-5)
        there = matrix_norm(_jacobian(network, torch.as_tensor(one.points[0].copy())), Norm(norm))
        assert one.at_kink[0] or float(there) == pytest.approx(one.lower[0], rel=1e-9)
    assert found[0].upper[0] == pytest.approx(found[1].upper[0], rel=2e-5)
    assert operator_norm_bounds(network, box, norm, SDP, effort=QUICK).upper[0] >= found[0].lower[0]


def test_unknown_exact_methods_are_named() -> None:
    network = nets.dense(0)
    with pytest.raises(lipcompare.InvalidInput, match="Did you mean 'lipbab'"):
        exact_operator_norms(network, nets.problem(network, 0.1).box, 2, method="lipbob")


DATA = Path(__file__).parents[3] / "shared" / "data" / "networks" / "lipbab"
PUBLISHED = {
    "sdnet_10_20_15_10_3": (0.1, {"2": 40.0565, "1": 48.0490, "inf": 72.2857}),
    "iris_4_5_5_3": (1.0, {"2": 6.77145, "1": 5.95805, "inf": 12.60509}),
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
@pytest.mark.parametrize("norm", ["1", "2", "inf"])
@pytest.mark.parametrize("bounding", [*RELAXATIONS, NAIVE])
def test_published_constants_lie_between(name: str, norm: str, bounding: str) -> None:
    if not DATA.is_dir():
        pytest.skip("the reference networks are not here")
    network = lipcompare.load(DATA / f"{name}.npz")
    high, values = PUBLISHED[name]
    corner = torch.full((1, network.in_size), high, dtype=torch.float64)
    found = operator_norm_bounds(network, Box(torch.zeros_like(corner), corner), norm, bounding, effort=QUICK)
    digits = 1e-4
    assert found.lower[0] <= values[norm] + digits and values[norm] - digits <= found.upper[0]


def test_the_norm_of_one_pattern_is_rounded_upward() -> None:
    problem = nets.problem(nets.dense(2, (3, 6, 4, 3)), 0.4, norm="2")
    bounds, _ = root_bounds(problem, Tightening.CROWN, 2**30)
    evaluator = SpectralEvaluator(problem, bounds)
    slopes = (torch.arange(10) % 3 == 0).double()
    jacobian = problem.network.pull_back(evaluator.numbering.split(slopes), problem.functionals[0])
    norm = float(torch.linalg.matrix_norm(jacobian, ord=2))
    assert norm > 0
    assert norm <= evaluator._above(slopes) <= norm * (1 + 1e-12)
