"""Softmax by activations of one variable: its values, its Jacobian, and bounds against what points attain."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from decimal import Decimal, localcontext

import pytest
import torch
from torch import Tensor, nn

import lipcompare
from lipcompare import Network, Norm, Problem
from lipcompare.network.from_onnx import from_onnx
from lipcompare.network.lowering.builder import Builder
from lipcompare.network.lowering.heads import log_softmax, softmax
from lipcompare.network.room import Room
from lipcompare.problem import Box

HEADS = {"softmax": (softmax, torch.softmax), "log_softmax": (log_softmax, torch.log_softmax)}
METHODS = ("naive", "ibp", "recurjac", "lbp", "sdp")


def lowered(head: str, shape: tuple[int, ...], axis: int) -> Network:
    """The head alone, as a network."""
    builder = Builder((1, *shape), Room(2**30))
    output = HEADS[head][0](builder, builder.input, axis)
    return builder.finish(output, shape, shape, head)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 10, 17])
def test_values_and_jacobian_are_those_of_torch(head: str, count: int) -> None:
    network = lowered(head, (count,), -1)
    function: Callable[..., Tensor] = HEADS[head][1]
    x = 5 * torch.randn(6, count, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    x[0, 0], x[1, -1], x[2] = 900.0, -900.0, x[2] * 200
    torch.testing.assert_close(network.forward(x), function(x, -1), rtol=1e-12, atol=1e-15)
    for point in x:
        slopes = network.slopes(network.values(point))
        found = network.pull_back(slopes, torch.eye(count, dtype=torch.float64))
        truth = torch.autograd.functional.jacobian(lambda z: function(z, -1), point)
        torch.testing.assert_close(found, truth, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_axes(axis: int) -> None:
    x = torch.randn(3, 4, dtype=torch.float64)
    network = lowered("softmax", (3, 4), axis)
    torch.testing.assert_close(network.forward(x.reshape(-1)), x.unsqueeze(0).softmax(axis).reshape(-1))


def test_depth_is_logarithmic() -> None:
    network = lowered("softmax", (1000,), -1)
    assert len(network.activations) <= 2 * math.ceil(math.log2(1000))
    assert network.neurons <= 1000 * len(network.activations)


@pytest.mark.parametrize(("opset", "axis"), [(11, None), (11, 2), (13, None), (13, 1)])
def test_onnx_means_all_axes_from_one_on_until_opset_13(opset: int, axis: int | None) -> None:
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("Softmax", ["x"], ["y"], **({} if axis is None else {"axis": axis}))
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph([node], "g", [info("x", 1, [1, 2, 3])], [info("y", 1, [1, 2, 3])])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    x = torch.randn(2, 3, dtype=torch.float64)
    truth = {
        (11, None): x.flatten().softmax(0),
        (11, 2): x.softmax(1).flatten(),
        (13, None): x.softmax(1).flatten(),
        (13, 1): x.softmax(0).flatten(),
    }[opset, axis]
    torch.testing.assert_close(from_onnx(model).forward(x.flatten()), truth)


@functools.cache
def classifier(head: type[nn.Module]) -> tuple[nn.Module, Network]:
    """A small classifier that ends in probabilities or their logarithms."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 5), head(-1)).double().requires_grad_(False)
    return model, lipcompare.load(model)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("head", [nn.Softmax, nn.LogSoftmax])
def test_bounds_hold_at_sampled_points(head: type[nn.Module], method: str) -> None:
    """The norm is another for each method and head: what is new here is the head."""
    model, network = classifier(head)
    norm = list(Norm)[(METHODS.index(method) + (head is nn.Softmax)) % 3]
    rows = torch.cat([torch.eye(5), torch.randn(1, 5)]).double()
    for eps, within in ((1e-4, 1.01), (0.3, 4.0), (30.0, math.inf)):
        problem = Problem.around(network, torch.tensor([0.3, -0.2]), eps, norm=norm, functionals=rows)
        bound = lipcompare.bound(problem, method)
        side = torch.linspace(-1, 1, 41, dtype=torch.float64)
        x = problem.box.lower[0].cpu() + (1 + torch.cartesian_prod(side, side)) * eps
        x = x.unsqueeze(1).repeat(1, 6, 1).requires_grad_()
        (gradients,) = torch.autograd.grad((model(x) * rows).sum(), x)
        truth = norm.dual.of(gradients).amax(0)
        assert bool((torch.from_numpy(bound.upper[0]) >= truth * (1 - 1e-9)).all())
        if method != "naive":
            assert float(bound.overall_upper[0]) <= within * float(truth.max())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("logits", [(800.0, 0.0, 0.0), (0.0, 0.0, 700.0), (30.0, -5.0, 2.0), (1e5, -1e5, 0.0)])
def test_bounds_hold_at_a_point_where_probabilities_vanish(logits: tuple[float, ...], method: str) -> None:
    """The truth in decimal arithmetic, where nothing underflows: s_i sum_j |[i = j] - s_j|."""
    network = lowered("softmax", (3,), -1)
    z = torch.tensor([logits], dtype=torch.float64)
    upper = lipcompare.bound(Problem(network, Box(z, z)), method).upper[0]
    with localcontext() as context:
        context.prec, context.Emin = 60, -(10**6)
        powers = [Decimal(value - max(logits)).exp() for value in logits]
        for i in range(3):
            others = sum(powers[:i] + powers[i + 1 :])
            truth = 2 * powers[i] * others / sum(powers) ** 2
            assert Decimal(float(upper[i])) >= truth
