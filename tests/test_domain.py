"""Balls and the whole space: membership, support functions, and every method on them."""

from __future__ import annotations

from fractions import Fraction

import nets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import lipcompare
from lipcompare import METHODS, InvalidInput, Norm, NormBall, Problem, Space, Status
from lipcompare.preactivation import Tightening, preactivation_bounds

NORMS = ["1", "2"]
BALLS = ["dense", "residual", "gelu"]


def _ball(
    norm: str, inputs: int = 6, clip: tuple[float, float] | None = None, dtype: torch.dtype = torch.float64
) -> NormBall:
    center = torch.rand(3, inputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    ball = NormBall.around(center, torch.tensor([0.3, 1.0, 0.0], dtype=dtype), norm, clip)
    assert isinstance(ball, NormBall)
    return ball


def _points(ball: NormBall, count: int = 200) -> Tensor:
    random = torch.Generator().manual_seed(1)
    raw = torch.randn(3, count, ball.lower.shape[1], generator=random, dtype=torch.float64).to(ball.lower)
    return ball.clamp(ball.center.unsqueeze(1) + raw * ball.radius[:, None, None])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("clip", [None, (0.0, 1.0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_clamped_points_are_inside_and_inside_points_stay(
    norm: str, clip: tuple[float, float] | None, dtype: torch.dtype
) -> None:
    ball = _ball(norm, clip=clip, dtype=dtype)
    points = _points(ball)
    assert bool(ball.contains(points).all())
    torch.testing.assert_close(ball.clamp(points), points, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-14)
    beyond = ball.center.unsqueeze(1) + 1.01 * ball.radius[:, None, None] * torch.eye(6, dtype=dtype)
    assert not bool(ball.contains(beyond)[:2].any())
    assert bool((points.amax(1) <= ball.upper).all() and (points.amin(1) >= ball.lower).all())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("clip", [None, (0.0, 1.0)])
def test_support_function(norm: str, clip: tuple[float, float] | None) -> None:
    ball = _ball(norm, clip=clip)
    rows = torch.randn(5, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    highest = ball.maximum(rows)
    seen = torch.einsum("bsi,ti->bts", _points(ball), rows)
    assert bool((highest.unsqueeze(-1) >= seen - 1e-12).all())
    if clip is None:  # then it is attained: along the row (l2), or at a vertex (l1)
        best = rows / rows.norm(dim=-1, keepdim=True)
        if norm == "1":
            best = torch.nn.functional.one_hot(rows.abs().argmax(-1), 6) * rows.sign()
        at = ball.clamp(ball.center.unsqueeze(1) + ball.radius[:, None, None] * best)
        torch.testing.assert_close((at * rows).sum(-1), highest, rtol=1e-9, atol=1e-9)


def test_shapes_and_slices() -> None:
    ball = _ball("2")
    part = ball.slice(1, 2)
    assert isinstance(part, NormBall) and part.batch == 1 and float(part.radius) == 1.0 and part.norm is Norm.TWO
    assert not isinstance(NormBall.around(torch.zeros(1, 2), 0.1, "inf"), NormBall)
    with pytest.raises(InvalidInput, match="centre"):
        NormBall.around(torch.full((1, 2), 1.05), 0.1, "2", (0.0, 1.0))
    with pytest.raises(InvalidInput, match="one radius"):
        NormBall.around(torch.zeros(3, 2), torch.zeros(2), "2")
    with pytest.raises(InvalidInput, match="negative"):
        NormBall.around(torch.zeros(3, 2), -1.0, "2")
    with pytest.raises(InvalidInput, match="whole space"):
        Space(torch.zeros(1, 2), torch.ones(1, 2))
    with pytest.raises(InvalidInput, match="scale"):
        Space.of(2, scale=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("radius", [1e-1, 1e-4, 1e-9, 1e-30, 0.0])
@pytest.mark.parametrize("norm", NORMS)
def test_points_pulled_into_a_small_ball_far_from_the_origin_lie_inside(
    norm: str, radius: float, dtype: torch.dtype
) -> None:
    """The radius rounds relative to itself, the coordinates relative to the centre; checked without rounding."""
    random = torch.Generator().manual_seed(0)
    center = torch.randn(5, 10, generator=random, dtype=dtype)
    ball = NormBall.around(center, radius, norm)
    assert isinstance(ball, NormBall)
    away = torch.randn(5, 200, 10, generator=random, dtype=dtype) * radius
    points = ball.clamp(center.unsqueeze(1) + away)
    assert bool(ball.contains(points).all())
    reach = Fraction(float(ball.radius[0]))
    for b in range(5):
        for x in points[b, :20].tolist():
            apart = [abs(Fraction(a) - Fraction(c)) for a, c in zip(x, center[b].tolist(), strict=True)]
            assert (sum(apart) <= reach) if norm == "1" else (sum(d * d for d in apart) <= reach**2)
    if radius > 1e-5:  # not by giving the ball away
        assert float(ball.norm.of(points.double() - center.unsqueeze(1)).max()) > 0.9 * radius


def test_a_point_beyond_the_radius_by_less_than_rounding_is_outside() -> None:
    """0.3^2 + 0.4^2 is 0.25 plus 1.1e-17 as these numbers are stored."""
    ball = NormBall.around(torch.zeros(1, 2, dtype=torch.float64), 0.5, "2")
    assert not bool(ball.contains(torch.tensor([[0.3, 0.4]], dtype=torch.float64)).any())


@settings(max_examples=15, deadline=None)
@given(network=nets.networks(), norm=st.sampled_from(NORMS), seed=st.integers(0, 100))
def test_preactivation_bounds_hold_on_balls(network: lipcompare.Network, norm: str, seed: int) -> None:
    center = torch.rand(1, network.in_size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ball = NormBall.around(center, 0.5, norm)
    unit = torch.randn(1, 200, network.in_size, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    values = network.values(ball.clamp(center.unsqueeze(1) + unit))
    for tightening in Tightening:
        bounds = preactivation_bounds(network, ball.region, tightening)
        box = preactivation_bounds(network, ball.interval, tightening)
        for k, z in bounds.items():
            seen = values[network.nodes[k].parents[0]]
            assert bool((seen.amin(1) >= z.lower).all() and (seen.amax(1) <= z.upper).all())
            if tightening is Tightening.CROWN:
                assert float((z.upper - z.lower).sum()) <= float((box[k].upper - box[k].lower).sum()) * (1 + 1e-6)


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("family", BALLS)
def test_every_method_on_balls(method: str, family: str) -> None:
    """Each method on the balls of every norm, with a family of its own for each."""
    norm = NORMS[(BALLS.index(family) + sorted(METHODS).index(method)) % len(NORMS)]
    network = nets.FAMILIES[family](3)
    problem = Problem.around(network, 0.5, 0.4, norm=norm, ball=norm)
    result = lipcompare.bound(problem, method, time_limit=10)
    if result.status is Status.UNSUPPORTED:
        return
    network, center = problem.network, problem.box.interval.center
    points = problem.box.clamp(center + torch.randn(1, 300, network.in_size, dtype=torch.float64).to(center))
    slopes = network.slopes(network.values(points[0]))
    for row in range(problem.rows):
        gradient = network.pull_back(slopes, problem.functionals[0, row].expand(300, -1))
        assert result.upper[0, row] >= float(problem.norm.dual.of(gradient).max()) * (1 - 1e-9)
    box = lipcompare.bound(Problem(network, lipcompare.Box(*problem.box.interval), problem.norm), "lbp")
    assert (result.lower <= box.upper * (1 + 1e-9)).all()
    if METHODS[method].proves == "lower":
        assert result.witnesses is not None
        assert bool(problem.box.contains(torch.as_tensor(result.witnesses.points)).all())


@pytest.mark.parametrize("norm", NORMS)
def test_a_ball_is_bounded_more_tightly_than_its_box(norm: str) -> None:
    network = nets.dense(5, (8, 12, 12, 2))
    ball = Problem.around(network, 0.5, 0.3, norm=norm, ball=norm)
    box = Problem.around(network, 0.5, 0.3, norm=norm)
    upper = lipcompare.bound(ball, "lbp").overall_upper[0]
    assert upper < lipcompare.bound(box, "lbp").overall_upper[0]
    assert lipcompare.bound(ball, "sdp").overall_upper[0] <= upper * (1 + 1e-9)


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("family", ["dense", "leaky", "sigmoid", "mixed"])
def test_every_method_on_the_whole_space(method: str, family: str) -> None:
    network = nets.FAMILIES[family](1)
    problem = Problem(network, Space.of(3, scale=2.0), Norm.INF)
    result = lipcompare.bound(problem, method, time_limit=10)
    if result.status is Status.UNSUPPORTED:
        assert result.detail
        return
    local = lipcompare.bound(Problem.around(network, 0.2, 3.0), "attack")
    assert not np.isnan(result.upper).any() and (result.upper >= local.lower).all()
    if METHODS[method].proves == "lower":
        assert result.witnesses is not None and (result.lower > 0).all()
    else:
        assert np.isfinite(result.upper).all()


def test_an_exponential_has_no_global_constant_but_a_local_one() -> None:
    from lipcompare.network.activations import smooth

    network = nets.dense(1, (3, 4, 2), smooth.exp())
    for method in ("naive", "ibp", "lbp"):
        everywhere = lipcompare.bound(Problem(network, Space.of(3), Norm.INF), method)
        assert np.isinf(everywhere.upper).all() and not np.isnan(everywhere.upper).any()
    problem = nets.problem(network, 0.3)
    assert (lipcompare.bound(problem, "lbp").upper >= nets.sampled_norms(problem).numpy()).all()
