"""The margins at the examples themselves, and the radii of stored boxes."""

from __future__ import annotations

from fractions import Fraction
from unittest import mock

import pytest
import torch

from lipcompare import Network, Norm, margins
from lipcompare.network import Input
from lipcompare.questions.certify.balls import Balls


def _gap_holds(outputs: list[float]) -> bool:
    """Whether a margin between outputs that are the inputs, so known without rounding, is no more than the true one."""
    network = Network((Input(2),), (2,), (2,))
    x = torch.tensor([outputs], dtype=torch.float64)
    balls = Balls.of(network, x, margins([0], 2).to(x), Norm.INF, None)
    return Fraction(float(balls.gaps)) <= Fraction(outputs[0]) - Fraction(outputs[1])


@pytest.mark.parametrize("outputs", [[1.0, 2.0**-60], [0.3, -0.7], [0.1, -1 / 3]])
def test_the_rounding_of_margins_is_needed(outputs: list[float]) -> None:
    assert _gap_holds(outputs)
    with mock.patch("lipcompare.questions.certify.balls.allowance", return_value=0.0):
        assert not _gap_holds(outputs)


def test_radii_are_those_of_the_stored_box() -> None:
    """In float32 the ends of a box round to either side; the radius is one that fits inside."""
    x = torch.tensor([[0.3, 0.7]], dtype=torch.float32)
    balls = Balls.of(Network((Input(2),), (2,), (2,)), x, margins([1], 2).to(x), Norm.INF, None)
    radius = torch.tensor([0.1], dtype=torch.float64)
    domain = balls.domain(radius)
    inner = balls.inner(domain, radius)
    assert bool(
        (x.double() - inner >= domain.lower.double()).all() and (x.double() + inner <= domain.upper.double()).all()
    )
    assert float(inner) == pytest.approx(0.1, rel=1e-6)
