"""Norms of intervals, the relaxation of a norm over an interval, and the product of layer norms."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lipcompare.network.activations import Activation
from lipcompare.network.graph import Activate, Affine, Network, Terms, fold_forward
from lipcompare.network.interval import Interval
from lipcompare.network.linear_maps import LinearMap
from lipcompare.problem import Norm

_DENSE_LIMIT = 4_000_000  # entries of a map that is still worth a singular value decomposition


def rounding_allowance(network: Network, dtype: torch.dtype) -> float:
    """Relative widening of a final bound that covers the rounding of the sums it was computed with."""
    products = sum(m.fan_in for node in network.nodes if isinstance(node, Affine) for m in node.maps)
    return 1 + 8 * torch.finfo(dtype).eps * (products + 16)


def interval_norm(gradient: Interval, norm: Norm) -> Tensor:
    """Largest dual norm over an interval (..., inputs): (...); infinite where an unbounded slope met a zero."""
    return norm.dual.of(gradient.magnitude.nan_to_num(nan=torch.inf))


def absolute_chord(gradient: Interval) -> tuple[Tensor, Tensor]:
    """Slope and intercept of the smallest line above ``|J|`` over ``J`` in the interval (the paper, section 3)."""
    lower, upper = gradient
    below, above = lower.clamp(max=0), upper.clamp(min=0)
    width = above - below
    mixed = (below < 0) & (above > 0)
    safe = torch.where(mixed, width, torch.ones_like(width))
    slope = torch.where(mixed, (above + below) / safe, (above > 0).to(lower.dtype) - (below < 0).to(lower.dtype))
    intercept = torch.where(mixed, -2 * above * below / safe, torch.zeros_like(width))
    return slope, intercept


def square_chord(gradient: Interval) -> tuple[Tensor, Tensor]:
    """Slope and intercept of the chord of ``J^2`` over the interval."""
    return gradient.lower + gradient.upper, -gradient.lower * gradient.upper


def norm_product(network: Network, functionals: Tensor, norm: Norm) -> Tensor:
    """Product of layer norms times activation slopes (*NaiveUB*): a global bound, valid on every box.

    Each row's last layer contributes its dual norm, so the product is taken per row. Branches add. Spectral norms are
    exact where a layer is small enough for a singular value decomposition, else ``sqrt(||A||_1 ||A||_inf)``.

    Args:
        functionals: (batch, rows, outputs).

    Returns:
        Tensor (batch, rows).
    """
    last = len(network.nodes) - 1
    rows = norm.dual.of(functionals)

    def size(k: int, m: LinearMap) -> float | Tensor:
        return norm.dual.of(m.adjoint(functionals)) if k == last else operator_norm(m, norm, functionals)

    found = _product(network, size, functionals)
    total = found if isinstance(network.nodes[last], Affine) else found * rows
    total = torch.as_tensor(total, dtype=rows.dtype, device=rows.device).expand_as(rows)
    return torch.where(total.isnan(), torch.inf, total)


def layer_product(network: Network, norm: Norm, like: Tensor) -> float:
    """Product of the operator norms ``p -> p`` of all layers, times activation slopes; branches add."""
    return float(_product(network, lambda k, m: operator_norm(m, norm, like), like))


def _product(network: Network, size: Callable[[int, LinearMap], float | Tensor], like: Tensor) -> float | Tensor:
    """Product along the network of steepest slopes and of the ``size`` of each map of an affine node; branches add."""

    def activation(k: int, node: Activate, reach: float | Tensor) -> float | Tensor:
        return reach * _steepest(node.activation, node.size, like)

    def affine(k: int, node: Affine, terms: Terms[float | Tensor]) -> float | Tensor:
        return sum(reach * size(k, m) for m, reach in terms)

    start: dict[int, float | Tensor] = {0: 1.0}
    found = fold_forward(network, start, activation, affine)
    assert found is not None  # every node depends on the input
    return found


def operator_norm(linear: LinearMap, norm: Norm, like: Tensor) -> float:
    """Upper bound on the operator norm ``p -> p`` of a map; exact for p = inf and p = 1."""
    ones_in, ones_out = like.new_ones(linear.in_size), like.new_ones(linear.out_size)
    if norm is Norm.INF:
        return float(linear.absolute.forward(ones_in).max())
    if norm is Norm.ONE:
        return float(linear.absolute.adjoint(ones_out).max())
    if linear.in_size * linear.out_size <= _DENSE_LIMIT:
        return float(torch.linalg.matrix_norm(linear.matrix(device=like.device, dtype=like.dtype), ord=2))
    return float((linear.absolute.forward(ones_in).max() * linear.absolute.adjoint(ones_out).max()).sqrt())


def _steepest(activation: Activation, size: int, like: Tensor) -> float:
    """Largest absolute slope anywhere."""
    slopes = activation.slopes_anywhere(like.new_zeros(size))
    return float(slopes.magnitude.max())
