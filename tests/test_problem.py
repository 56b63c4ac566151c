"""The question: what is accepted, and what each malformed question is told."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch

import lipcompare
from lipcompare import Box, InvalidInput, Norm, Problem, margins
from lipcompare.network.graph import Affine, Input, Network
from lipcompare.network.linear_maps import Select
from lipcompare.problem import as_batch

NET = nets.dense(0, (3, 4, 2))


@pytest.mark.parametrize("text", ["inf", "linf", "l_inf", float("inf"), "INF", Norm.INF])
def test_norms_have_many_spellings(text: str | float) -> None:
    assert Norm.parse(text) is Norm.INF


def test_dual_norms() -> None:
    x = torch.tensor([3.0, -4.0])
    assert [float(n.of(x)) for n in (Norm.INF, Norm.TWO, Norm.ONE)] == [4, 5, 7]
    assert [n.dual for n in (Norm.INF, Norm.TWO, Norm.ONE)] == [Norm.ONE, Norm.TWO, Norm.INF]


@pytest.mark.parametrize(
    ("center", "eps", "message"),
    [
        (0.5, -0.1, "not negative"),
        (0.5, float("nan"), "finite"),
        (float("nan"), 0.1, "NaN"),
        (np.zeros(4), 0.1, r"\(4,\).*\(3,\)"),
        (np.zeros((0, 3)), 0.1, "empty"),
        (np.zeros((2, 3)), np.ones(5), r"\(5,\)"),
    ],
)
def test_a_malformed_ball_is_told_what_is_wrong(center: object, eps: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Problem.around(NET, center, eps)  # type: ignore[arg-type]


def test_a_malformed_box_is_told_what_is_wrong() -> None:
    low, high = torch.zeros(1, 3), torch.ones(1, 3)
    with pytest.raises(InvalidInput, match=r"input 1, lower 2 is above upper 1"):
        Box(torch.tensor([[0.0, 2.0, 0.0]]), high)
    with pytest.raises(InvalidInput, match="differ in shape"):
        Box(low, torch.ones(1, 4))
    with pytest.raises(InvalidInput, match=r"4 inputs, the network has 3"):
        Problem(NET, Box(torch.zeros(1, 4), torch.ones(1, 4)))
    with pytest.raises(InvalidInput, match="floating-point"):
        Problem(NET, Box(low.long(), high.long()))


@pytest.mark.parametrize("rows", [torch.eye(3), torch.zeros(0, 2), torch.zeros(2, 2, 2), torch.full((1, 2), torch.nan)])
def test_malformed_functionals_are_refused(rows: torch.Tensor) -> None:
    with pytest.raises(InvalidInput):
        Problem(NET, Box(torch.zeros(1, 3), torch.ones(1, 3)), Norm.INF, rows)


def test_an_unknown_norm_suggests_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="Known: 1, 2, inf"):
        Norm.parse("3")


def test_centres_of_any_shape() -> None:
    network = nets.conv(0)
    for shape in ((32,), (2, 4, 4), (1, 2, 4, 4), (1, 32)):
        assert as_batch(np.zeros(shape), network).shape == (1, 32)
    assert as_batch(np.zeros((5, 2, 4, 4)), network).shape == (5, 32)
    assert as_batch(0.5, network).shape == (1, 32)


def test_radius_per_input_and_clipping() -> None:
    problem = Problem.around(NET, 0.95, [0.1, 0.2, 0.0], clip=(0, 1))
    assert problem.box.upper.tolist() == [[1.0, 1.0, 0.95]]
    assert problem.box.lower[0].tolist() == pytest.approx([0.85, 0.75, 0.95])


def test_a_clip_range_that_misses_the_box_is_refused() -> None:
    with pytest.raises(InvalidInput, match="does not meet the box"):
        Problem.around(NET, 200.0, 0.1, clip=(0, 1))


def test_margins() -> None:
    assert margins(1, 3).tolist() == [[-1, 1, 0], [0, 1, -1]]
    assert margins([0, 2], 3).shape == (2, 2, 3)
    with pytest.raises(InvalidInput, match=r"0\.\.2"):
        margins(3, 3)


def test_unknown_methods_and_options_are_told_what_there_is() -> None:
    problem = nets.problem(NET, 0.1)
    with pytest.raises(InvalidInput, match="Did you mean 'lbp'"):
        lipcompare.bound(problem, "lbpp")
    with pytest.raises(InvalidInput, match="no option 'tightenning'"):
        lipcompare.bound(problem, "lbp", tightenning="crown")
    with pytest.raises(InvalidInput, match="Did you mean 'crown'"):
        lipcompare.bound(problem, "lbp", tightening="crwn")
    with pytest.raises(InvalidInput, match="takes int"):
        lipcompare.bound(problem, "attack", seed="x")


def test_non_finite_weights_are_refused() -> None:
    broken = torch.full((2, 3), torch.nan, dtype=torch.float64)
    with pytest.raises(InvalidInput, match="no finite float64 numbers"):
        lipcompare.Network(
            (
                lipcompare.network.Input(3),
                lipcompare.network.Affine((0,), (lipcompare.network.linear_maps.Dense(broken),), None),
            ),
            (3,),
            (2,),
        )


def test_more_outputs_than_functionals_fit_are_one_sentence() -> None:
    """A file of 600 bytes describes a network of 52,738 outputs, and a functional for each took 22 GB."""
    repeated = Select(torch.zeros(52_738, dtype=torch.int64), 1)
    network = Network((Input(1), Affine((0,), (repeated,), None)), (1,), (52_738,))
    with pytest.raises(InvalidInput, match=r"52,738 outputs.*name one"):
        Problem.around(network, 0.0, 0.1)
    one = torch.zeros(1, 52_738)
    one[0, 3] = 1.0
    assert Problem.around(network, 0.0, 0.1, functionals=one).rows == 1
