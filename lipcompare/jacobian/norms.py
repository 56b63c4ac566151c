"""Norms of intervals, the relaxation of a norm over an interval, and the product of layer norms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import torch
from torch import Tensor

from lipcompare.gates import Gates
from lipcompare.jacobian.interval import interval_gradient
from lipcompare.network.activations import Activation
from lipcompare.network.graph import Activate, Affine, Network, Terms, fold_forward
from lipcompare.network.interval import Interval
from lipcompare.network.linear_maps import LinearMap
from lipcompare.problem import Norm
from lipcompare.rounding import (
    SPARE,
    allowance,
    power_of_two,
    product_above,
    raised,
    scaled,
    sqrt_above,
    sum_above,
    unit_roundoff,
)

_DENSE_LIMIT = 4_000_000  # entries of a map that is still worth a singular value decomposition


def interval_norm(gradient: Interval, norm: Norm) -> Tensor:
    """Largest dual norm over an interval (..., inputs): (...); infinite where an unbounded slope met a zero."""
    return norm_above(gradient.magnitude.nan_to_num(nan=torch.inf, posinf=torch.inf), norm.dual)


def norm_above(values: Tensor, norm: Norm) -> Tensor:
    """The norm of the last axis, rounded upward."""
    size = norm.of(values)
    return size if norm is Norm.INF else raised(size, values.shape[-1])


def pattern_bound(network: Network, slopes: Mapping[int, Tensor], functionals: Tensor, norm: Norm) -> Tensor:
    """Upper bounds (batch, rows) on the dual norm of the gradient under fixed slopes (batch, neurons).

    Args:
        functionals: (batch, rows, outputs).
    """
    gates = Gates({k: Interval(slope, slope) for k, slope in slopes.items()})
    return interval_norm(interval_gradient(network, gates, functionals), norm)


def absolute_chord(gradient: Interval) -> tuple[Tensor, Tensor]:
    """Slope and intercept of the smallest line above ``|J|`` over ``J`` in the interval (the paper, section 3).

    It holds with its stored coefficients, of which the first is off by at most 4 roundoffs and the second by at most 6
    times the largest ``|J|``; the intercept covers 16. Where the sign is decided the line is ``|J|`` itself.
    """
    lower, upper = gradient
    below, above = lower.clamp(max=0), upper.clamp(min=0)
    width, under = above - below, -below
    slope = ((above + below) / width).nan_to_num_(nan=0.0)
    mixed = torch.minimum(above, under).sign()
    # Divided first: the product of two small numbers may underflow.
    intercept = 2 * above * (under / width).nan_to_num_(nan=0.0)
    intercept.addcmul_(torch.maximum(above, under), mixed, value=16 * unit_roundoff(width.dtype))
    return slope, intercept


def square_chord(gradient: Interval) -> tuple[Tensor, Tensor]:
    """Slope and intercept of the chord of ``J^2`` over the interval.

    It holds with its stored coefficients: either is off by at most one roundoff, which the intercept covers.
    """
    error = 8 * unit_roundoff(gradient.lower.dtype) * gradient.magnitude.square()
    return gradient.lower + gradient.upper, error - gradient.lower * gradient.upper


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
    rows = norm_above(functionals, norm.dual)

    def size(k: int, m: LinearMap) -> float | Tensor:
        if k < last:
            return operator_norm(m, norm, functionals)
        error = allowance(m.fan_out + SPARE, rows.dtype) * m.absolute.adjoint(functionals.abs())
        return norm_above(m.adjoint(functionals).abs() + error, norm.dual).double()

    product = _product(network, size, functionals)
    total = product if isinstance(network.nodes[last], Affine) else product_above(product, rows.double())
    total = torch.as_tensor(total, dtype=torch.float64, device=rows.device).expand_as(rows)
    return torch.where(total.isnan(), torch.inf, total)


def layer_product(network: Network, norm: Norm, like: Tensor) -> float:
    """Product of the operator norms ``p -> p`` of all layers, times activation slopes; branches add."""
    return float(_product(network, lambda k, m: operator_norm(m, norm, like), like))


def _product(network: Network, size: Callable[[int, LinearMap], float | Tensor], like: Tensor) -> float | Tensor:
    """Product along the network of steepest slopes and of the ``size`` of each map of an affine node; branches add.

    Formed in float64 whatever the problem's precision, in which it may be out of range.
    """

    def activation(k: int, node: Activate, reach: float | Tensor) -> float | Tensor:
        return product_above(reach, _steepest(node.activation, node.size, like))

    def affine(k: int, node: Affine, terms: Terms[float | Tensor]) -> float | Tensor:
        return reduce(sum_above, (product_above(reach, size(k, m)) for m, reach in terms))

    start: dict[int, float | Tensor] = {0: 1.0}
    found = fold_forward(network, start, activation, affine)
    assert found is not None  # every node depends on the input
    return found


def operator_norm(linear: LinearMap, norm: Norm, like: Tensor) -> float:
    """Upper bound on the operator norm ``p -> p`` of a map; exact but for rounding for p = inf and p = 1."""
    ones_in, ones_out = like.new_ones(linear.in_size), like.new_ones(linear.out_size)
    if norm is not Norm.ONE:
        rows = float(raised(linear.absolute.forward(ones_in).max(), linear.fan_in))
    if norm is not Norm.INF:
        columns = float(raised(linear.absolute.adjoint(ones_out).max(), linear.fan_out))
    if norm is not Norm.TWO:
        return rows if norm is Norm.INF else columns
    mixed = sqrt_above(float(product_above(rows, columns)))
    if linear.in_size * linear.out_size > _DENSE_LIMIT:
        return mixed
    return min(mixed, float(spectral_norm(linear.to(like.device, torch.float64).matrix(device=like.device))))


def spectral_norm(matrix: Tensor) -> Tensor:
    """Upper bounds (...,) on the largest singular values of matrices (..., m, n); infinite where one is not finite.

    Computed singular values are those of a matrix that differs by a modest multiple of ``u`` times the norm (LAPACK
    Users' Guide, section 4.9: the factor grows with the size at most linearly); allowed for are eight times rows and
    columns together.
    """
    finite = matrix.isfinite().all(-1).all(-1)
    known = torch.where(finite[..., None, None], matrix, 0.0)
    exponent = power_of_two(known.abs().amax((-2, -1), keepdim=True))
    size = torch.linalg.matrix_norm(scaled(known, -exponent), ord=2)
    above = raised(scaled(size, exponent[..., 0, 0]), 8 * (matrix.shape[-1] + matrix.shape[-2]))
    return torch.where(finite, above, torch.inf)


def _steepest(activation: Activation, size: int, like: Tensor) -> float:
    """Largest absolute slope anywhere."""
    slopes = activation.slopes_anywhere(like.new_zeros(size))
    return float(slopes.magnitude.max())
