"""Backward passes of functionals: exact where nothing is relaxed, above the network everywhere else."""

from __future__ import annotations

import nets
import pytest
import torch

from lipcompare.domain import NormBall
from lipcompare.network import Interval
from lipcompare.network.activations import Lines
from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.preactivation.backward import backward_plane, backward_planes, backward_upper, concretise


def relaxed(network, box: Interval) -> dict[int, Lines]:
    """Lines of every activation over a batch of boxes, with an axis for targets."""
    bounds = preactivation_bounds(network, box, Tightening.CROWN)
    return {k: Lines(*(v.unsqueeze(1) for v in network.activation(k).relaxation(z))) for k, z in bounds.items()}


def sampled(box: Interval, count: int) -> torch.Tensor:
    unit = torch.rand(count, box.lower.shape[-1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    unit[: count // 2] = unit[: count // 2].round()
    return box.lower.unsqueeze(1) + unit.to(box.lower) * (box.upper - box.lower).unsqueeze(1)


@pytest.mark.parametrize("family", sorted(nets.FAMILIES))
def test_planes_lie_above_and_touch_at_a_point(family: str) -> None:
    network = nets.FAMILIES[family](3)
    last = len(network.nodes) - 1
    for eps in (0.0, 0.3):
        posed = nets.problem(network, eps, batch=2)
        network, box = posed.network, posed.box.interval
        random = torch.Generator().manual_seed(2)
        rows = torch.randn(3, network.out_size, generator=random, dtype=torch.float64).to(posed.device)
        coefficient, constant = backward_plane(network, relaxed(network, box), last, rows)
        x = sampled(box, 60)
        values = network.forward(x) @ rows.T
        planes = x @ coefficient.mT + (0.0 if constant is None else constant.unsqueeze(1))
        assert bool((planes >= values - 1e-9).all())
        if not eps:
            torch.testing.assert_close(planes, values.expand_as(planes), rtol=1e-7, atol=1e-7)
        above = backward_upper(network, box, relaxed(network, box), last, rows)
        torch.testing.assert_close(above, concretise(box, coefficient, constant))
        assert bool((above + 1e-9 >= planes.amax(1)).all())


def test_examples_may_ask_for_rows_of_their_own() -> None:
    """``chosen`` picks per example what a pass for all rows gives, wherever rows stop being shared."""
    for source in (nets.residual(1), nets.dense(4), nets.concatenation(2)):
        posed = nets.problem(source, 0.3, batch=3)
        network, box = posed.network, posed.box.interval
        lines, last = relaxed(network, box), len(network.nodes) - 1
        random = torch.Generator().manual_seed(7)
        rows = torch.randn(5, network.out_size, generator=random, dtype=torch.float64).to(posed.device)
        chosen = torch.tensor([[0, 3], [4, 1], [2, 2]], device=posed.device)
        coefficient, constant = backward_plane(network, lines, last, rows, chosen)
        every, every_constant = backward_plane(network, lines, last, rows)
        example = torch.arange(3, device=posed.device).unsqueeze(-1)
        torch.testing.assert_close(coefficient, every[example, chosen])
        torch.testing.assert_close(constant, every_constant[example, chosen])


def test_functionals_of_several_nodes_add_up() -> None:
    posed = nets.problem(nets.residual(2), 0.0, batch=2)
    network, box = posed.network, posed.box.interval
    nodes = [network.nodes[k].parents[0] for k in network.activations]
    random = torch.Generator().manual_seed(5)
    sizes = {k: network.nodes[k].size for k in nodes}
    rows = {k: torch.randn(4, n, generator=random, dtype=torch.float64).to(box.lower) for k, n in sizes.items()}
    coefficient, constant = backward_planes(network, relaxed(network, box), rows)
    values = network.values(box.lower)
    expected = sum(values[k] @ row.T for k, row in rows.items())
    torch.testing.assert_close((coefficient @ box.lower.unsqueeze(-1)).squeeze(-1) + constant, expected)


def test_a_node_that_does_not_see_the_input() -> None:
    """Only the input's own functional is left where nothing else is asked for."""
    network = nets.dense(0)
    rows = torch.eye(3, dtype=torch.float64)
    coefficient, constant = backward_plane(network, {}, 0, rows)
    assert torch.equal(coefficient, rows)
    assert constant is None


def test_largest_values_over_boxes_and_balls() -> None:
    coefficient = torch.tensor([[[3.0, -4.0], [0.0, 1.0]]], dtype=torch.float64)
    constant = torch.tensor([[0.5, 0.0]], dtype=torch.float64)
    box = Interval(torch.tensor([[-1.0, 0.0]]).double(), torch.tensor([[2.0, 2.0]]).double())
    assert concretise(box, coefficient, constant).tolist() == [[6.5, 2.0]]
    assert concretise(box, coefficient, None).tolist() == [[6.0, 2.0]]
    ball = NormBall.around(torch.tensor([[1.0, 1.0]]).double(), 2.0, "2")
    found = concretise(ball.region, coefficient, constant)
    torch.testing.assert_close(found, torch.tensor([[-1 + 10.0 + 0.5, 3.0]]).double())
