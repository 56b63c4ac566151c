"""Backward propagation of linear functionals through linear relaxations (CROWN, Zhang et al., arXiv 1811.00866)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lipcompare.domain import NormBall, Region
from lipcompare.network.activations import Lines
from lipcompare.network.graph import Activate, Affine, Network


def backward_upper(network: Network, region: Region, lines: Mapping[int, Lines], node: int, rows: Tensor) -> Tensor:
    """Upper bounds of linear functionals of one node's value over a region of inputs.

    Args:
        region: an interval (batch, inputs), or a ball.
        lines, node, rows: as for :func:`backward_plane`.

    Returns:
        Tensor (batch, targets).
    """
    return concretise(region, *backward_plane(network, lines, node, rows))


def concretise(region: Region, coefficient: Tensor, constant: Tensor | None) -> Tensor:
    """Largest values (batch, targets) of affine functions over a region: its dual norm.

    Args:
        coefficient: (targets, inputs) or (batch, targets, inputs).
        constant: (targets,) or (batch, targets).
    """
    if isinstance(region, NormBall):
        reach = region.maximum(coefficient)
    else:
        reach = _dot(coefficient, region.center.unsqueeze(-2)) + _dot(coefficient.abs(), region.radius.unsqueeze(-2))
    return reach if constant is None else reach + constant


def backward_plane(
    network: Network, lines: Mapping[int, Lines], node: int, rows: Tensor, chosen: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Affine functions of the input that lie above linear functionals of one node's value.

    Args:
        lines: relaxation of every activation node before ``node``; fields broadcast to (batch, targets, neurons).
        node: the node whose value is bounded.
        rows: functionals, (targets, size) or (batch, targets, size).
        chosen: (batch, some) which of the ``rows`` (targets, size) each example asks for, if not all; ``some`` takes
            the place of ``targets`` in the result.

    Returns:
        Coefficients (..., targets, inputs) and constants (..., targets), without the batch axis where nothing depends
        on it; None for no constant.
    """
    return backward_planes(network, lines, {node: rows}, chosen)


def backward_planes(
    network: Network, lines: Mapping[int, Lines], rows: Mapping[int, Tensor], chosen: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Affine functions of the input that lie above sums of linear functionals of several nodes' values.

    Args:
        lines: as for :func:`backward_plane`, for every activation node before the last one in ``rows``.
        rows: per node functionals (targets, size) or (batch, targets, size), at least one.
        chosen: as for :func:`backward_plane`.
    """

    def picked(value: Tensor, per_example: int) -> Tensor:
        """What each example asks for, of something (targets, ...) that does not depend on the example so far."""
        return value if chosen is None or value.ndim == per_example else value[chosen]

    last = max(rows)
    coefficients: list[Tensor | None] = [None] * (last + 1)
    constant: Tensor | None = None

    def add(k: int, value: Tensor) -> None:
        old = coefficients[k]
        if old is not None and old.ndim != value.ndim:
            old, value = picked(old, 3), picked(value, 3)
        coefficients[k] = value if old is None else old + value

    for k, row in rows.items():
        add(k, row)
    for k in range(last, 0, -1):
        coefficient = coefficients[k]
        coefficients[k] = None
        if coefficient is None:
            continue
        item = network.nodes[k]
        if isinstance(item, Activate):
            line, coefficient = lines[k], picked(coefficient, 3)
            positive = coefficient.clamp(min=0)
            negative = coefficient - positive
            offset = _dot(positive, line.upper_intercept) + _dot(negative, line.lower_intercept)
            constant = offset if constant is None else constant + offset
            add(item.parent, positive * line.upper_slope + negative * line.lower_slope)
        elif isinstance(item, Affine):
            if item.bias is not None:
                offset = picked(coefficient @ item.bias, 2)
                constant = offset if constant is None else constant + offset
            for p, m in item.terms:
                add(p, m.adjoint(coefficient))

    coefficient = coefficients[0]
    if coefficient is None:
        some = rows[last]
        coefficient = some.new_zeros(*some.shape[:-1], network.in_size)
    return picked(coefficient, 3), constant


def _dot(coefficient: Tensor, vector: Tensor) -> Tensor:
    """``sum_i coefficient[..., t, i] vector[..., t or 1, i]``: (batch, targets)."""
    if vector.shape[-2] == 1:
        return torch.matmul(coefficient, vector.transpose(-1, -2)).squeeze(-1)
    return (coefficient * vector).sum(-1)
