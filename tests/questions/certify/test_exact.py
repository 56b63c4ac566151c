"""The true radius: each step of the search holds for real numbers, not only all of them together.

The parts have more room than they need where they meet (what proves a distance is rounded down further than its
inverse is), so none of these could be seen in a radius.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from fractions import Fraction
from unittest import mock

import numpy as np
import pytest
import torch

from lipcompare import Network, Norm, margins
from lipcompare.branching.driver import Assessment, Search, Stop
from lipcompare.budget import Deadline
from lipcompare.network import Affine, Input
from lipcompare.network.interval import Interval
from lipcompare.network.linear_maps import Dense
from lipcompare.preactivation.split import HalfSpaces
from lipcompare.questions.certify import exact as module
from lipcompare.questions.certify.balls import Balls
from lipcompare.questions.certify.exact import _Evaluator, _Incumbent, exact_radius


def _balls(x: list[float], norm: Norm = Norm.INF) -> Balls:
    """Around one point, of the network that hands on its input."""
    point = torch.tensor([x], dtype=torch.float64)
    return Balls.of(Network((Input(len(x)),), (len(x),), (len(x),)), point, margins([0], len(x)).to(point), norm, None)


def _settled(balls: Balls, plane: list[float], constant: float) -> Assessment:
    """A subdomain with one plane above its margin."""
    box = Interval(balls.points - math.inf, balls.points + math.inf)
    none = torch.zeros(1, 0, dtype=torch.int64)
    spaces = HalfSpaces(torch.zeros(1, 0, len(plane), dtype=torch.float64), none.double(), none, none)
    evaluator = _Evaluator(
        balls=balls, box=box, bounds={}, incumbent=_Incumbent(balls), inner=math.inf, memory=2**30,
        deadline=Deadline.after(10.0),
    )  # fmt: skip
    normal = torch.tensor(plane, dtype=torch.float64)
    return evaluator._settle(0, spaces, normal, constant, torch.zeros(1, dtype=torch.float64), 0.0)


def _distances_hold() -> bool:
    """Of planes ``g x + h >= 0`` whose height at the example cancels, against rational arithmetic."""
    random = torch.Generator().manual_seed(0)
    for _ in range(10):
        x, g = (torch.randn(3, generator=random, dtype=torch.float64) for _ in range(2))
        x = 1e6 * x
        height = -float(g @ x) - 1e-3
        at = sum((Fraction(a) * Fraction(b) for a, b in zip(g.tolist(), x.tolist(), strict=True)), Fraction(height))
        assert at < 0
        upper = Fraction(_settled(_balls(x.tolist(), Norm.ONE), g.tolist(), height).upper)
        if upper * -at < max(abs(Fraction(v)) for v in g.tolist()):
            return False
    return True


def _inverses_hold() -> bool:
    """1/49 is below the true one in float64."""
    with mock.patch.object(module, "nearest_point", return_value=(49.0, None)):
        return Fraction(_settled(_balls([1.0, 0.0]), [1.0, -1.0], -1.0).upper) * 49 >= 1


def _radii_hold() -> bool:
    """A search that does nothing proves nothing: what was proved is what it ends with."""
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    network = Network((Input(2), Affine((0,), (Dense(weight),), None)), (2,), (2,))
    point = torch.tensor([[200.0, 0.0]], dtype=torch.float64)
    balls = Balls.of(network, point, margins([0], 2).to(point), Norm.INF, None)

    def nothing(search: Search, *_: object) -> Stop:
        return Stop.TIME

    with mock.patch.object(module, "run", nothing):
        return exact_radius(balls, 49.0, 150.0, 1e-4, Deadline.after(10.0), 2**30).lower == 49.0


@contextlib.contextmanager
def _without_allowances() -> Iterator[None]:
    with mock.patch.object(module, "allowance", return_value=0.0):
        yield


@pytest.mark.parametrize("holds", [_distances_hold, _inverses_hold, _radii_hold])
def test_every_step_is_rounded_to_its_side(holds) -> None:
    assert holds()
    with _without_allowances():
        assert not holds()


def test_a_point_counts_only_where_its_class_is_not_proved() -> None:
    """At the tie of two outputs another class is possible, a rounding before it none is."""
    balls = _balls([1.0, 0.0])
    for x, found in (([0.5, 0.5], True), ([0.5, 0.5 - 2**-54], False)):
        incumbent = _Incumbent(balls)
        with mock.patch.object(module, "_STRETCHES", (0.0,)):
            incumbent.take(torch.tensor([x], dtype=torch.float64))
        assert (incumbent.point is not None) == found
        if found:
            assert incumbent.distance >= 0.5 and np.array_equal(incumbent.point, x)
