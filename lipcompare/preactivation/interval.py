"""Interval arithmetic through the network, in centre-radius form, rounded outward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lipcompare.network.graph import Activate, Affine, Input, Network
from lipcompare.network.interval import Interval


def interval_affine(node: Affine, values: Sequence[Interval]) -> tuple[Interval, Tensor]:
    """Image of intervals (batch, size) under an affine node, and the rounding allowance it was widened by.

    A sum of n products computed in precision u is off by at most ``n u sum |a_i||x_i|`` (to first order). Twice that
    also covers the evaluation of the node at any point of the interval, so that the pre-activation that a forward pass
    computes lies inside. The allowance has shape (batch, size).
    """
    (p, m), *rest = node.terms
    center = m.forward(values[p].center)
    # One call for the radius and for the magnitude that the allowance needs.
    spread = m.absolute.forward(torch.stack([values[p].radius, values[p].magnitude]))
    for p, m in rest:
        center = center + m.forward(values[p].center)
        spread = spread + m.absolute.forward(torch.stack([values[p].radius, values[p].magnitude]))
    radius, size = spread
    if node.bias is not None:
        center = center + node.bias
        size = size + node.bias.abs()
    products = sum(m.fan_in for m in node.maps) + 4
    slack = (2 * products * torch.finfo(size.dtype).eps) * size
    radius = radius + slack
    return Interval(center - radius, center + radius), slack


def interval_bounds(network: Network, box: Interval) -> dict[int, Interval]:
    """Pre-activation bounds (batch, neurons) of every activation node by interval arithmetic alone."""
    values: list[Interval] = []
    bounds: dict[int, Interval] = {}
    for k, node in enumerate(network.nodes):
        if isinstance(node, Input):
            values.append(box)
        elif isinstance(node, Affine):
            values.append(interval_affine(node, values)[0])
        elif isinstance(node, Activate):
            bounds[k] = values[node.parent]
            values.append(node.activation.image(bounds[k]))
    return bounds
