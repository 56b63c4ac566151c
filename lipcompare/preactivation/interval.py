"""Interval arithmetic through the network, in centre-radius form, rounded outward."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lipcompare.domain import NormBall, Region
from lipcompare.network.activations import Activation, Lines
from lipcompare.network.graph import Activate, Affine, Network, Terms, fold_forward, linear_value
from lipcompare.network.interval import Interval
from lipcompare.rounding import SPARE, allowance, floor, underflow


class Reach(NamedTuple):
    """A node's interval, and what the rounding of any bound on functionals of its value is measured by.

    Attributes:
        interval: (batch, size).
        size: the sum of the absolute values of all terms, whatever lines they came through, (batch, size).
        largest: of all nodes up to here the largest sum of the entries of ``size``, (batch, 1).
    """

    interval: Interval
    size: Tensor
    largest: Tensor

    @property
    def underflow(self) -> Tensor:
        """What covers underflow in a pass from here to the input, per node of the network, (batch, 1).

        What a coefficient loses is multiplied by the value there, which may be far larger than their product.
        """
        return underflow(1 + self.largest)


def at_input(region: Region) -> Reach:
    """The input over a batch of regions."""
    if isinstance(region, NormBall):
        size = torch.maximum(region.interval.magnitude, region.center.abs() + region.radius.unsqueeze(-1))
        return Reach(region.interval, size, _total(size))
    size = region.magnitude
    return Reach(region, size, _total(size))


def _total(size: Tensor) -> Tensor:
    return size.sum(-1, keepdim=True)


def interval_affine(node: Affine, terms: Terms[Reach]) -> Reach:
    """Image of intervals (batch, size) under an affine node, rounded outward.

    Each entry is a sum of ``fan_in`` products, so its rounding is relative to the sum of their absolute values. Twice
    that also covers the evaluation of the node at any point of the interval, so that the pre-activation that a forward
    pass computes lies inside.

    Args:
        terms: the maps of ``node`` and what their parents reach.
    """
    centers = [value.interval.center for _, value in terms]
    dtype = centers[0].dtype
    center = linear_value([(m, center) for (m, _), center in zip(terms, centers, strict=True)])
    # One call for the radius, for the magnitude that its rounding needs, and for the size. What underflow may have
    # taken from a factor is multiplied by the weight, and what it may take from a product is not.
    least = floor(dtype)
    sizes = [
        (m.absolute, torch.stack([value.upper - middle, value.magnitude + least, size + least]))
        for (m, (value, size, _)), middle in zip(terms, centers, strict=True)
    ]
    radius, magnitude, size = linear_value(sizes).unbind()
    if node.bias is not None:
        assert node.absolute_bias is not None
        center, magnitude, size = center + node.bias, magnitude + node.absolute_bias, size + node.absolute_bias
    operations = sum(m.fan_in for m in node.maps) + SPARE
    radius = radius.add(magnitude + least, alpha=2 * allowance(operations, dtype))
    largest = functools.reduce(torch.maximum, (value.largest for _, value in terms), _total(size))
    return Reach(Interval(center - radius, center + radius), size, largest)


def through_activation(activation: Activation, z: Reach, lines: Lines) -> Reach:
    """The image of an activation, and the size that any of its lines may give it.

    Slopes of lines lie in the range of the activation's; offsets of those that are not given (smooth activations have
    families of lines) are at most what a line that touches the activation has.
    """
    slope, image = activation.steepest(z.interval), activation.image(z.interval)
    offset = lines.upper_intercept.abs()
    if not activation.lower_through_origin:
        offset = torch.maximum(offset, lines.lower_intercept.abs())
    if not activation.piecewise_linear:
        offset = torch.maximum(offset, image.magnitude + slope * z.interval.magnitude)
    size = torch.addcmul(offset, slope, z.size + floor(z.size.dtype))
    return Reach(image, size, torch.maximum(z.largest, _total(size)))


def outward(z: Reach, refined: Interval, network: Network) -> Interval:
    """Bounds that passed back to the input through lines, rounded outward; nothing where sizes are not finite."""
    error = pass_error(z, network)
    return Interval(refined.lower - error, refined.upper + error)


def pass_error(z: Reach, network: Network) -> Tensor:
    """The rounding (batch, size) of a bound on each entry of a node's value by a pass back to the input."""
    dtype = z.size.dtype
    error = z.size.add(z.underflow, alpha=len(network.nodes)).mul_(allowance(network.operations, dtype))
    return error.nan_to_num_(nan=torch.inf, posinf=torch.inf)


def pass_errors(network: Network, region: Region, bounds: Mapping[int, Interval]) -> dict[int, Tensor]:
    """:func:`pass_error` of every pre-activation (batch, neurons) by activation node, for the lines over ``bounds``.

    Over a part of the region lines have no larger slopes and offsets, so there these hold too.
    """
    errors: dict[int, Tensor] = {}
    by_activation: dict[int, Tensor] = {}

    def activation(k: int, node: Activate, z: Reach) -> Reach:
        by_activation[k] = errors[node.parent] if node.parent in errors else torch.zeros_like(z.size)
        return through_activation(
            node.activation, z._replace(interval=bounds[k]), node.activation.relaxation(bounds[k])
        )

    def affine(k: int, node: Affine, terms: Terms[Reach]) -> Reach:
        reach = interval_affine(node, terms)
        errors[k] = pass_error(reach, network)
        return reach

    fold_forward(network, {0: at_input(region)}, activation, affine)
    return by_activation


def interval_bounds(network: Network, box: Interval) -> dict[int, Interval]:
    """Pre-activation bounds (batch, neurons) of every activation node by interval arithmetic alone."""
    return interval_values(network, box)[0]


def interval_values(network: Network, box: Interval) -> tuple[dict[int, Interval], Interval]:
    """The same, and bounds (batch, outputs) on the outputs."""
    bounds: dict[int, Interval] = {}

    def activation(k: int, node: Activate, z: Reach) -> Reach:
        bounds[k] = z.interval
        image = node.activation.image(z.interval)
        return Reach(image, image.magnitude, torch.maximum(z.largest, _total(image.magnitude)))

    def affine(k: int, node: Affine, terms: Terms[Reach]) -> Reach:
        return interval_affine(node, terms)

    outputs = fold_forward(network, {0: at_input(box)}, activation, affine)
    assert outputs is not None  # every node depends on the input
    return bounds, outputs.interval
