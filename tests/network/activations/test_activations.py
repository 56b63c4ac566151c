"""Every activation: values against torch, ranges and lines against dense sampling, traits against mpmath."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath as mp
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lipcompare.network.activations import Activation, LeakyReLU, Lines, Smooth, relu
from lipcompare.network.activations.smooth import TABLE, elu, gelu_tanh
from lipcompare.network.interval import Interval
from lipcompare.rounding import function_error

SMOOTH: dict[str, Callable[[], Smooth]] = {
    **TABLE, "elu(0.3)": lambda: elu(0.3), "selu's elu": lambda: elu(1.6732632423543772)
}  # fmt: skip
ALL: dict[str, Callable[[], Activation]] = {**SMOOTH, "relu": relu, "leaky": lambda: LeakyReLU(0.2)}

TORCH: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "softplus": lambda z: F.softplus(z, threshold=200), "elu": F.elu,
    "silu": F.silu, "gelu": F.gelu, "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"), "mish": F.mish,
    "softsign": F.softsign, "hardswish": F.hardswish, "exp": torch.exp, "square": torch.square, "erf": torch.erf,
    "arctan": torch.atan,
    "elu(0.3)": lambda z: F.elu(z, 0.3), "selu's elu": lambda z: F.elu(z, 1.6732632423543772),
}  # fmt: skip


@pytest.fixture(params=sorted(SMOOTH))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_value_and_derivatives_agree_with_torch(name: str) -> None:
    a = SMOOTH[name]()
    z = torch.cat([torch.linspace(-12, 12, 977), torch.randn(200)]).double().requires_grad_()
    y = TORCH[name](z)
    (first,) = torch.autograd.grad(y.sum(), z)
    z0 = z.detach()
    torch.testing.assert_close(a.value(z0), y.detach(), rtol=1e-12, atol=1e-14)
    off = torch.ones_like(z0, dtype=torch.bool)
    for p in a.jumps:
        off &= (z0 - p).abs() > 1e-9
    torch.testing.assert_close(a.derivative(z0)[off], first[off], rtol=1e-9, atol=1e-12)
    (second,) = torch.autograd.grad(a.derivative(z).sum(), z)
    torch.testing.assert_close(a.second(z0)[off], second[off], rtol=1e-9, atol=1e-10)


MP: dict[str, Callable[[mp.mpf], mp.mpf]] = {
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)), "tanh": mp.tanh, "softplus": lambda x: mp.log(1 + mp.exp(x)),
    "silu": lambda x: x / (1 + mp.exp(-x)), "gelu": lambda x: x * mp.ncdf(x), "erf": mp.erf, "arctan": mp.atan,
    "gelu_tanh": lambda x: x / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3))),
    "mish": lambda x: x * mp.tanh(mp.log(1 + mp.exp(x))),
}  # fmt: skip


@pytest.mark.parametrize("key", sorted(MP))
def test_traits_are_the_zeros_of_the_derivatives(key: str) -> None:
    """All sign changes on a fine grid, located with forty digits, are the traits to the last digit of a float."""
    a = TABLE[key]()
    with mp.workdps(40):
        grid = [mp.mpf(k) / 4 + mp.mpf("0.06") for k in range(-28, 28)]
        for order, traits in enumerate((a.stationary, a.inflections, a.flexes), start=1):

            def derivative(x: mp.mpf, order: int = order) -> mp.mpf:
                return mp.diff(MP[key], x, order)

            signs = [derivative(x) for x in grid]
            roots = [
                mp.findroot(derivative, (left, right), solver="anderson", tol=1e-40)
                for left, right, u, v in zip(grid, grid[1:], signs, signs[1:], strict=False)
                if u * v < 0
            ]
            assert len(roots) == len(traits)
            for root, trait in zip(roots, traits, strict=True):
                assert abs(trait - root) <= 2 * math.ulp(max(1e-16, abs(trait)))


@pytest.mark.parametrize("key", sorted(MP))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_formulas_are_as_accurate_as_their_allowance_says(key: str, dtype: torch.dtype) -> None:
    """Values and two derivatives at forty digits; half of what is allowed is left for what is made of them."""
    a = TABLE[key]()
    random = torch.Generator().manual_seed(0)
    z = torch.cat([4 * torch.randn(40, generator=random, dtype=dtype), torch.linspace(-30, 30, 11, dtype=dtype)])
    with mp.workdps(40):
        for order, function in enumerate((a.function, a.first, a.second)):
            found = function(z)
            allowed = function_error(found.abs().clamp(min=1)) / 2
            for x, y, most in zip(z.tolist(), found.tolist(), allowed.tolist(), strict=True):
                true = mp.diff(MP[key], mp.mpf(x), order) if order else MP[key](mp.mpf(x))
                assert abs(true - y) <= most, (x, y, true)


def _samples(z: Interval, extra: tuple[float, ...] = ()) -> Tensor:
    """Points (m, n) of intervals (n,): dense, with the ends and every special point inside."""
    unit = torch.linspace(0, 1, 1001, dtype=z.lower.dtype).unsqueeze(-1)
    points = z.lower + unit * (z.upper - z.lower)
    special = [torch.full_like(z.lower, p + d) for p in extra for d in (-1e-9, 0.0, 1e-9)]
    points = torch.cat([points, torch.stack([*special, z.upper])])
    return torch.minimum(torch.maximum(points, z.lower), z.upper)


def _special(a: Activation) -> tuple[float, ...]:
    return (*a.stationary, *a.inflections, *a.flexes) if isinstance(a, Smooth) else (0.0,)


def _intervals(count: int = 120, dtype: torch.dtype = torch.float64) -> Interval:
    random = torch.Generator().manual_seed(0)
    center = 4 * torch.randn(count, generator=random, dtype=torch.float64)
    width = 10 ** (2 - 9 * torch.rand(count, generator=random, dtype=torch.float64))
    known = torch.tensor(
        [[-3.0, 3.0], [0.0, 0.0], [-3.0, -3.0], [3.0, 4.0], [-5.0, -3.0], [-1e-300, 1e-300], [0.0, 5.0]]
    )
    ends = torch.cat([torch.stack([center - width, center + width], 1), known.double()]).to(dtype)
    return Interval(ends[:, 0].clamp(-80, 80), ends[:, 1].clamp(-80, 80))


@pytest.mark.parametrize("key", sorted(ALL))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_ranges_and_lines_hold_and_are_tight(key: str, dtype: torch.dtype) -> None:
    a = ALL[key]()
    z = _intervals(dtype=dtype)
    # Evaluated in double precision, at points that single precision can express.
    points = _samples(z, _special(a)).double()
    values, slopes = a.value(points), a.derivative(points)
    image, range_ = a.image(z), a.slope_range(z)
    small = 200 * torch.finfo(dtype).eps
    for found, seen in ((image, values), (range_, slopes)):
        size = seen.abs().amax(0).clamp(min=1)
        # Kinked activations state their ranges without a rounding allowance.
        slack = small * size if isinstance(a, LeakyReLU) else 0.0
        assert bool((seen >= found.lower - slack).all() and (seen <= found.upper + slack).all())
        lipschitz = 2.0 if key != "exp" else size
        resolution = small * size + (z.upper - z.lower).double() / 1000 * lipschitz
        if not (isinstance(a, (LeakyReLU,)) or (isinstance(a, Smooth) and a.jumps)):
            assert bool((seen.amin(0) - found.lower <= resolution).all())
            assert bool((found.upper - seen.amax(0) <= resolution).all())
    slack = small * (1 + values.abs()) if isinstance(a, LeakyReLU) else 0.0
    for choice in (None, 0.0, 0.2, 0.5, 0.9, 1.0):
        lines = a.relaxation(z, None if choice is None else torch.tensor(choice, dtype=dtype))
        _check_lines(lines, points, values, slack)
    steep = a.slope_lines(z)
    assert (steep is None) == isinstance(a, LeakyReLU)
    if steep is not None:
        _check_lines(steep, points, slopes, 0.0)


def _check_lines(lines: Lines, points: Tensor, values: Tensor, slack: Tensor | float) -> None:
    below = lines.lower_slope.double() * points + lines.lower_intercept.double()
    above = lines.upper_slope.double() * points + lines.upper_intercept.double()
    assert bool((values >= below - slack).all() and (values <= above + slack).all())


def test_lines_touch_the_curve(name: str) -> None:
    a = SMOOTH[name]()
    z = _intervals()
    z = Interval(z.lower.clamp(-20, 20), z.upper.clamp(-20, 20))
    points = _samples(z, _special(a))
    values = a.value(points)
    width = z.upper - z.lower
    for choice in (0.0, None, 1.0):
        lines = a.relaxation(z, None if choice is None else torch.tensor(choice, dtype=torch.float64))
        size = 1 + values.abs().amax(0) + (lines.lower_slope.abs() + lines.upper_slope.abs()) * points.abs().amax(0)
        # Quadratic in the distance of the samples: the lines are tangents or pass through ends and kinks.
        near = 1e-13 * size + (width / 1000) ** 2 * (values.abs().amax(0) if name == "exp" else 2.0)
        assert bool(((values - lines.lower_slope * points - lines.lower_intercept).amin(0) <= near).all())
        assert bool(((lines.upper_slope * points + lines.upper_intercept - values).amin(0) <= near).all())


def test_default_lines_are_no_worse_than_interval_or_chord_shaped_ones(name: str) -> None:
    """The area between the lines is at most that of the range, and exact where the function is almost straight."""
    a = SMOOTH[name]()
    z = _intervals()
    lines, image = a.relaxation(z), a.image(z)
    middle, width = (z.lower + z.upper) / 2, z.upper - z.lower
    gap = (lines.upper_slope - lines.lower_slope) * middle + lines.upper_intercept - lines.lower_intercept
    noise = 1e-12 * (1 + image.magnitude + middle.abs())
    assert bool((gap <= image.upper - image.lower + noise).all())
    steep = a.slope_range(z)
    # A secant pair of slope range [s, t] is never further apart than (t - s) width / 2 in the middle.
    assert bool((gap <= (steep.upper - steep.lower) * width / 2 + noise * (1 + steep.magnitude)).all())


def test_infinite_and_huge_intervals_stay_sound(name: str) -> None:
    a = SMOOTH[name]()
    inf = math.inf
    ends = [(-inf, inf), (-inf, -2.0), (1.0, inf), (-1e30, 1e30), (-1e5, 1e5), (300.0, 400.0), (-1e12, -1e11)]
    z = Interval(*torch.tensor(ends, dtype=torch.float64).T)
    slopes, image = a.slope_range(z), a.image(z)
    if name not in ("exp", "square"):
        assert bool(torch.isfinite(slopes.lower).all() and torch.isfinite(slopes.upper).all())
        assert float(slopes.upper.max()) <= 1.76
    finite = Interval(z.lower.clamp(min=-1e6), z.upper.clamp(max=1e6))
    points = _samples(finite, _special(a))
    values, derivative = a.value(points), a.derivative(points)
    assert not bool(derivative.isnan().any() or values.isnan().any())
    assert bool((derivative >= slopes.lower).all() and (derivative <= slopes.upper).all())
    assert bool((values >= image.lower).all() and (values <= image.upper).all())
    for lines in (a.relaxation(z), a.slope_lines(z)):
        assert lines is not None and not any(bool(v.isnan().any()) for v in lines)
    lines = a.relaxation(z)
    assert bool((lines.lower_slope * points + lines.lower_intercept <= values).all())
    assert bool((lines.upper_slope * points + lines.upper_intercept >= values).all())
    single = a.slope_range(Interval(*(v.float() for v in z)))
    assert not bool(single.lower.isnan().any() or single.upper.isnan().any())
    for end in (-inf, inf):
        far = torch.tensor(end, dtype=torch.float64)
        assert not bool(a.value(far).isnan() or a.derivative(far).isnan() or a.second(far).isnan())


def test_jumps_of_the_derivative_keep_both_sides() -> None:
    z = Interval(torch.tensor([3.0, -3.0, -3.0]), torch.tensor([3.0, -3.0, 3.0]))
    lower, upper = TABLE["hardswish"]().slope_range(z)
    torch.testing.assert_close(lower, torch.tensor([1.0, -0.5, -0.5]), atol=1e-4, rtol=0)
    torch.testing.assert_close(upper, torch.tensor([1.5, 0.0, 1.5]), atol=1e-4, rtol=0)
    point = Interval(torch.zeros(1), torch.zeros(1))
    assert float(elu(1.7).slope_range(point).upper) == pytest.approx(1.7, rel=1e-4)
    assert float(elu(1.7).slope_range(point).lower) == pytest.approx(1.0, rel=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    key=st.sampled_from(sorted(SMOOTH)),
    center=st.floats(-30, 30),
    width=st.floats(0, 60),
    inside=st.lists(st.floats(0, 1), min_size=1, max_size=8),
    choice=st.floats(0, 1),
)
def test_any_point_of_any_interval(key: str, center: float, width: float, inside: list[float], choice: float) -> None:
    a = SMOOTH[key]()
    z = Interval(torch.tensor([center], dtype=torch.float64), torch.tensor([center + width], dtype=torch.float64))
    points = (z.lower + torch.tensor(inside, dtype=torch.float64) * (z.upper - z.lower)).clamp(z.lower, z.upper)
    values, slopes = a.value(points), a.derivative(points)
    image, range_ = a.image(z), a.slope_range(z)
    assert bool(((image.lower <= values) & (values <= image.upper)).all())
    assert bool(((range_.lower <= slopes) & (slopes <= range_.upper)).all())
    lines, steep = a.relaxation(z, torch.tensor(choice, dtype=torch.float64)), a.slope_lines(z)
    assert steep is not None
    for pair, seen in ((lines, values), (steep, slopes)):
        assert bool((pair.lower_slope * points + pair.lower_intercept <= seen).all())
        assert bool((pair.upper_slope * points + pair.upper_intercept >= seen).all())


def test_monotone_activations_have_slopes_of_one_sign() -> None:
    z = _intervals()
    for key in ("sigmoid", "tanh", "softplus", "elu", "softsign", "erf", "arctan", "exp"):
        assert float(TABLE[key]().slope_range(z).lower.min()) >= 0


@pytest.mark.parametrize("key", sorted(ALL))
def test_slopes_anywhere_hold_every_slope_and_no_more(key: str) -> None:
    a = ALL[key]()
    like = torch.zeros(2, 4, dtype=torch.float64)
    lower, upper = a.slopes_anywhere(like)
    assert lower.shape == upper.shape == like.shape
    seen = a.derivative(torch.linspace(-60, 60, 20_001, dtype=torch.float64))
    assert bool((lower <= seen.min()).all())
    assert bool((upper >= seen.max()).all())
    if a.piecewise_linear:
        assert bool((lower == seen.min()).all())
        assert bool((upper == seen.max()).all())


def test_a_kinked_slope_range_is_its_sides_and_asks_for_no_new_tensor() -> None:
    """A tensor made of a number makes a GPU wait; bounds that are NaN leave both slopes."""

    class NoNumbersToTensors(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            assert func not in (torch.tensor, torch.as_tensor)
            return func(*args, **(kwargs or {}))

    alpha = torch.tensor([0.25, -1.0, 0.0, 0.5, 0.1], dtype=torch.float64)
    lower = torch.tensor([-1.0, -2.0, 0.0, 1.0, torch.nan], dtype=torch.float64)
    upper = torch.tensor([2.0, -1.0, 1.0, 2.0, torch.nan], dtype=torch.float64)
    for a, low in ((LeakyReLU(alpha), alpha), (LeakyReLU(0.25), torch.full_like(alpha, 0.25))):
        with NoNumbersToTensors():
            found, anywhere = a.slope_range(Interval(lower, upper)), a.slopes_anywhere(lower)
        one = torch.ones_like(low)
        assert torch.equal(found.lower, torch.where(torch.arange(5) == 3, one, low))
        assert torch.equal(found.upper, torch.where(torch.arange(5) == 1, low, one))
        assert torch.equal(anywhere.lower, low)
        assert torch.equal(anywhere.upper, one)


def test_the_shape_of_gelu_with_a_rounded_constant() -> None:
    """Places that are off by 1e-6 would move the range of slopes by more than rounding does."""
    exact, rounded = gelu_tanh(), gelu_tanh(0.044715 * (1 + 5e-6))
    for places, derivative in ((rounded.stationary, rounded.first), (rounded.inflections, rounded.second)):
        assert float(derivative(torch.tensor(places, dtype=torch.float64)).abs().max()) < 1e-15
    assert exact.inflections != rounded.inflections and exact.stationary != rounded.stationary
