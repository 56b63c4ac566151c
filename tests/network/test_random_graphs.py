"""Random graphs: every import agrees with torch in value and gradient, simplified or not."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lipcompare.network.compose import cost
from lipcompare.network.from_torch.graph import lower
from lipcompare.network.from_torch.importer import graph_of
from lipcompare.network.graph import Affine, Network
from lipcompare.network.room import Room
from lipcompare.network.simplify import simplify

Step = Callable[[list[Tensor]], Tensor]


class Program(nn.Module):
    """Steps that each read values computed before; the output is everything that nobody read."""

    def __init__(self, steps: list[Callable[[list[Tensor]], Tensor]]) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for step in self.steps:
            values.append(step(values))
        return torch.cat([v.flatten(1) for v in values[-2:]], 1)


def _unary(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[Callable[[Tensor], Tensor], tuple[int, ...]]:
    """A random operation on an image of ``shape`` (C, H, W), and the shape of its result."""
    c, h, w = shape
    seed = draw(st.integers(0, 99))
    generator = torch.Generator().manual_seed(seed)

    def random(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    kind = draw(st.sampled_from(
        ["conv", "depthwise", "transposed", "relu", "leaky", "abs", "clip", "max", "average", "adaptive", "scale",
         "norm", "smooth", "flip", "transpose", "slice", "pad", "dense", "groupsort", "upsample", "mean", "reshape",
         "prelu"]
    ))  # fmt: skip
    small, many = min(h, w), draw(st.integers(1, 3))
    if kind == "conv":
        k, s, p, d = (draw(st.integers(1, min(2, small))), draw(st.integers(1, 2)), draw(st.integers(0, 1)), 1)
        weight, bias = random(many, c, k, k), random(many)
        return lambda x: F.conv2d(x, weight, bias, s, p, d), _conv_shape(many, h, w, k, s, p)
    if kind == "depthwise":
        weight = random(c, 1, 1, 1)
        return lambda x: F.conv2d(x, weight, groups=c), shape
    if kind == "transposed" and c * h * w <= 60:
        s = draw(st.integers(1, 2))
        weight = random(c, many, 2, 2)
        return lambda x: F.conv_transpose2d(x, weight, stride=s), (many, (h - 1) * s + 2, (w - 1) * s + 2)
    if kind == "leaky":
        alpha = draw(st.sampled_from([0.1, -0.5, 1.7]))
        return lambda x: F.leaky_relu(x, alpha), shape
    if kind == "prelu":
        slopes = random(c)
        return lambda x: F.prelu(x, slopes), shape
    if kind == "abs":
        return lambda x: x.abs() - 0.3, shape
    if kind == "clip":
        return lambda x: x.clamp(-0.4, 0.6), shape
    if kind == "max" and small > 1:
        s, p = draw(st.integers(1, 2)), draw(st.integers(0, 1))
        return lambda x: F.max_pool2d(x, 2, s, p), _conv_shape(c, h, w, 2, s, p)
    if kind == "average" and small > 1:
        s, p, counted = draw(st.integers(1, 2)), draw(st.integers(0, 1)), draw(st.booleans())
        return lambda x: F.avg_pool2d(x, 2, s, p, count_include_pad=counted), _conv_shape(c, h, w, 2, s, p)
    if kind == "adaptive":
        a, b = draw(st.integers(1, h)), draw(st.integers(1, w))
        return lambda x: F.adaptive_avg_pool2d(x, (a, b)), (c, a, b)
    if kind == "scale":
        factor = draw(st.sampled_from([random(1), random(c, 1, 1), random(h, w)]))
        return lambda x: x * factor - 0.1, shape
    if kind == "norm":
        mean, var, gamma = random(c), random(c).abs() + 0.1, random(c)
        return lambda x: F.batch_norm(x, mean, var, gamma, mean), shape
    if kind == "smooth":
        smooth = [torch.sigmoid, torch.tanh, F.softplus, F.elu, F.selu, F.celu, F.silu, F.gelu, F.mish, F.softsign,
                  F.hardswish, F.hardsigmoid, F.logsigmoid, torch.erf, torch.atan]  # fmt: skip
        return draw(st.sampled_from(smooth)), shape
    if kind == "flip":
        return lambda x: x.flip(2).roll(1, 3), shape
    if kind == "transpose":
        return lambda x: x.permute(0, 3, 1, 2), (w, c, h)
    if kind == "slice" and small > 1:
        return lambda x: x[:, :, 1:, ::2], (c, h - 1, (w + 1) // 2)
    if kind == "pad" and c * h * w <= 60:
        return lambda x: F.pad(x, (1, 0, 0, 1), value=0.2), (c, h + 1, w + 1)
    if kind == "dense":
        weight = random(many, w)
        return lambda x: F.linear(x, weight), (c, h, many)
    if kind == "groupsort" and c % 2 == 0:
        return lambda x: torch.cat([torch.maximum(*x.chunk(2, 1)), torch.minimum(*x.chunk(2, 1))], 1), shape
    if kind == "upsample" and c * h * w <= 30:
        return lambda x: F.interpolate(x, scale_factor=2.0), (c, 2 * h, 2 * w)
    if kind == "mean":
        return lambda x: x.mean(1, keepdim=True) + x.sum(2, keepdim=True) / 3, (c, h, w)
    if kind == "reshape":
        return lambda x: x.reshape(1, 1, c * h, w), (1, c * h, w)
    return F.relu, shape


def _conv_shape(c: int, h: int, w: int, k: int, s: int, p: int) -> tuple[int, ...]:
    return c, (h + 2 * p - k) // s + 1, (w + 2 * p - k) // s + 1


@st.composite
def programs(draw: st.DrawFn) -> tuple[Program, tuple[int, ...]]:
    shape = (draw(st.integers(1, 3)), draw(st.integers(2, 4)), draw(st.integers(2, 4)))
    shapes, steps = [shape], list[Step]()
    for _ in range(draw(st.integers(1, 6))):
        source = draw(st.integers(max(0, len(shapes) - 2), len(shapes) - 1))
        partners = [i for i, s in enumerate(shapes) if s == shapes[source]]
        if len(partners) > 1 and draw(st.booleans()):
            other = draw(st.sampled_from(partners))
            join = draw(st.sampled_from(["add", "subtract", "maximum", "cat"]))
            if join == "cat":
                steps.append(lambda v, i=source, j=other: torch.cat([v[i], v[j]], 1))
                shapes.append((2 * shapes[source][0], *shapes[source][1:]))
            else:
                function = {"add": torch.add, "subtract": torch.sub, "maximum": torch.maximum}[join]
                steps.append(lambda v, i=source, j=other, f=function: f(v[i], 0.5 * v[j]))
                shapes.append(shapes[source])
        else:
            function, result = _unary(draw, shapes[source])
            if min(result) < 1:
                continue
            steps.append(lambda v, i=source, f=function: f(v[i]))
            shapes.append(result)
    return Program(steps), shape


def _cost(network: Network) -> int:
    return sum(cost(m) for node in network.nodes if isinstance(node, Affine) for m in node.maps)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(programs(), st.integers(0, 1000))
def test_random_graphs_agree_with_torch(drawn: tuple[Program, tuple[int, ...]], seed: int) -> None:
    model, shape = drawn
    program = torch.export.export(model, (torch.zeros(1, *shape, dtype=torch.float64),))
    plain = lower(graph_of(program), "random", Room())
    small = simplify(plain)
    assert len(small.nodes) <= len(plain.nodes) and _cost(small) <= _cost(plain)
    assert isinstance(small.nodes[-1], Affine)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, *shape, generator=generator, dtype=torch.float64, requires_grad=True)
    y = model(x).reshape(-1)
    rows = torch.randn(2, y.numel(), generator=generator, dtype=torch.float64)
    gradients = torch.stack([torch.autograd.grad(row @ y, x, retain_graph=True)[0].reshape(-1) for row in rows])
    for network in (plain, small):
        values = network.values(x.detach().reshape(-1))
        torch.testing.assert_close(values[-1], y, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(network.pull_back(network.slopes(values), rows), gradients, rtol=1e-9, atol=1e-9)
