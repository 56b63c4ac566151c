"""The distance that multipliers prove, against values known in rational arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from lipcompare.domain import Norm
from lipcompare.questions.certify.distance import nearest_point

DISTANCE = {Norm.INF: Fraction(1, 7), Norm.TWO: Fraction(1, 5), Norm.ONE: Fraction(1, 4)}
"""Of ``3 a + 4 b >= 1`` from the origin."""


@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("scale", [1.0, 1e-100, 1e-160, 1e-300, 1e160])
def test_a_half_plane(norm: Norm, scale: float) -> None:
    """For p = 2 and small rows the squares underflowed, and there was no point at any distance."""
    G = scale * np.array([[3.0, 4.0]])
    found, _ = nearest_point(G, np.ones(1), np.zeros(1), norm, 10.0)
    assert math.isfinite(found)
    exact = {Norm.INF: sum, Norm.ONE: max}
    sides = [Fraction(v) for v in G[0].tolist()]
    if norm is Norm.TWO:
        assert Fraction(found) ** 2 * sum(s * s for s in sides) <= 1
    else:
        assert Fraction(found) * exact[norm](sides) <= 1
    if 1e-290 < scale < 1e100:
        assert found * scale == pytest.approx(float(DISTANCE[norm]), rel=1e-6)


@pytest.mark.parametrize("norm", list(Norm))
def test_rows_that_exclude_each_other_have_no_point(norm: Norm) -> None:
    found, point = nearest_point(np.array([[0.0, 0.0]]), np.ones(1), np.zeros(1), norm, 10.0)
    assert found == math.inf and point is None
    found, _ = nearest_point(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([1.0, 0.5]), np.zeros(2), norm, 10.0)
    assert found > 1e3
