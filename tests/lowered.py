"""One lowering alone, as a network, against what it should compute."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lipcompare import Network
from lipcompare.network.lowering.builder import Builder, Operand
from lipcompare.network.room import Room

Lowering = Callable[[Builder, Operand], Operand]
"""Appends nodes to a builder that compute something of its input."""


def network(lowering: Lowering, shape: tuple[int, ...], out_shape: tuple[int, ...]) -> Network:
    """The network of one lowering; shapes with their batch axis of 1."""
    builder = Builder(shape, Room())
    return builder.finish(lowering(builder, builder.input), shape[1:], out_shape[1:], "lowered")


def check(lowering: Lowering, function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Network:
    """The lowering computes the function on (1, *shape), in values and in gradients, at random points."""
    generator = torch.Generator().manual_seed(0)
    points = 2 * torch.randn(4, *shape, generator=generator, dtype=torch.float64)
    out = function(points[:1])
    made = network(lowering, (1, *shape), tuple(out.shape))
    for point in points:
        expected = function(point.unsqueeze(0))
        torch.testing.assert_close(made.forward(point.reshape(-1)), expected.reshape(-1), rtol=1e-12, atol=1e-12)
        rows = torch.eye(made.out_size, dtype=torch.float64)
        found = made.pull_back(made.slopes(made.values(point.reshape(-1))), rows)
        truth = torch.autograd.functional.jacobian(
            lambda z: function(z.reshape(1, *shape)).reshape(-1), point.reshape(-1)
        )
        torch.testing.assert_close(found, truth, rtol=1e-11, atol=1e-11)
    return made
