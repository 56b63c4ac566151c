"""Interval arithmetic through the network, in centre-radius form, rounded outward."""

from __future__ import annotations

import torch
from torch import Tensor

from lipcompare.network.graph import Activate, Affine, Network, Terms, fold_forward
from lipcompare.network.interval import Interval


def interval_affine(node: Affine, terms: Terms[Interval]) -> tuple[Interval, Tensor]:
    """Image of intervals (batch, size) under an affine node, and the rounding allowance it was widened by.

    A sum of n products computed in precision u is off by at most ``n u sum |a_i||x_i|`` (to first order). Twice that
    also covers the evaluation of the node at any point of the interval, so that the pre-activation that a forward pass
    computes lies inside. The allowance has shape (batch, size).

    Args:
        terms: the maps of ``node`` and the intervals (batch, size of the parent) of their parents.
    """
    (m, value), *rest = terms
    center = m.forward(value.center)
    # One call for the radius and for the magnitude that the allowance needs.
    spread = m.absolute.forward(torch.stack([value.radius, value.magnitude]))
    for m, value in rest:
        center = center + m.forward(value.center)
        spread = spread + m.absolute.forward(torch.stack([value.radius, value.magnitude]))
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
    bounds: dict[int, Interval] = {}

    def activation(k: int, node: Activate, z: Interval) -> Interval:
        bounds[k] = z
        return node.activation.image(z)

    def affine(k: int, node: Affine, terms: Terms[Interval]) -> Interval:
        return interval_affine(node, terms)[0]

    fold_forward(network, {0: box}, activation, affine)
    return bounds
