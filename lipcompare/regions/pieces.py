"""Where one pattern of a network holds it is affine: its pieces, and what they may be off by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lipcompare.network.graph import (
    Activate,
    Affine,
    Network,
    Terms,
    adjoints,
    fold_backward,
    fold_forward,
    linear_value,
)
from lipcompare.network.linear_maps import LinearMap
from lipcompare.rounding import allowance, underflow


class AffinePiece(NamedTuple):
    """Pre-activations of one activation node as affine functions of the input: ``matrix x + offset``."""

    matrix: Tensor  # (..., neurons, inputs)
    offset: Tensor  # (..., neurons)


def affine_pieces(network: Network, slopes: Mapping[int, Tensor]) -> dict[int, AffinePiece]:
    """Pre-activations of every activation node under fixed slopes (..., neurons).

    Piecewise linear activations here pass through the origin (``LeakyReLU``), so a slope fixes the piece.
    """
    size = network.in_size
    some = next(iter(slopes.values()))
    # The offset is row 0, and biases are added to it alone: differences of values would cancel.
    basis = torch.cat([some.new_zeros(1, size), torch.eye(size, dtype=some.dtype, device=some.device)])
    pieces: dict[int, AffinePiece] = {}

    def activation(k: int, node: Activate, z: Tensor) -> Tensor:  # z: (..., 1 + inputs, neurons)
        pieces[k] = AffinePiece(z[..., 1:, :].transpose(-1, -2), z[..., 0, :])
        return z * slopes[k].unsqueeze(-2)

    def affine(k: int, node: Affine, terms: Terms[Tensor]) -> Tensor:
        value = linear_value(terms)
        if node.bias is None:
            return value
        row = node.bias.new_zeros(1 + size, node.size)
        row[0] = node.bias
        return value + row

    fold_forward(network, {0: basis}, activation, affine)
    return pieces


def chosen_pieces(
    network: Network, slopes: Mapping[int, Tensor], chosen: Mapping[int, Tensor]
) -> dict[int, AffinePiece]:
    """:func:`affine_pieces` of some neurons ``chosen`` (some,) of every node alone; slopes are (patterns, neurons).

    By whichever way takes less: forward from all inputs, or back from each of these neurons.
    """
    if sum(map(len, chosen.values())) >= network.in_size:
        count = len(next(iter(slopes.values())))
        return {
            k: AffinePiece(
                piece.matrix[..., chosen[k], :].expand(count, -1, -1), piece.offset[..., chosen[k]].expand(count, -1)
            )
            for k, piece in affine_pieces(network, slopes).items()
        }
    return {k: _pulled_back(network, slopes, k, rows) for k, rows in chosen.items()}


def _pulled_back(network: Network, slopes: Mapping[int, Tensor], k: int, rows: Tensor) -> AffinePiece:
    """The pieces of neurons ``rows`` (some,) of one activation node, back from them to the input."""
    (z,) = network.nodes[k].parents
    count = len(slopes[k])
    start = slopes[k].new_zeros(len(rows), network.nodes[z].size)
    start.scatter_(1, rows.unsqueeze(-1), 1.0)
    offset = start.new_zeros(count, len(rows))

    def activation(a: int, node: Activate, weights: Tensor) -> Tensor:
        return weights * slopes[a].unsqueeze(-2)

    def affine(a: int, node: Affine, maps: Sequence[LinearMap], weights: Tensor) -> Iterator[Tensor]:
        nonlocal offset
        if node.bias is not None:
            offset = offset + weights @ node.bias
        return adjoints(a, node, maps, weights)

    matrix = fold_backward(network, {z: start}, activation, affine)
    if matrix is None:
        matrix = start.new_zeros(len(rows), network.in_size)
    return AffinePiece(matrix.expand(count, -1, -1), offset)


def piece_errors(network: Network, slopes: Mapping[int, Tensor], magnitude: Tensor) -> dict[int, Tensor]:
    """What rounding makes of the value of an affine piece, (..., neurons) per activation node, at inputs within
    magnitudes.

    A sum of products is off by at most ``gamma_N`` times the same sum of absolute values, with ``gamma_N = N u / (1 - N
    u)`` and N the length of the longest chain of operations. So the computed matrix and offset, evaluated exactly, are
    off by that at any ``x`` with ``|x| <= magnitude``. The sum itself is computed, hence 2 N. What underflows on the
    way, in either direction, is multiplied by the weights after it and by the values before it.

    Args:
        slopes: (..., neurons) per activation node.
        magnitude: (..., inputs).
    """
    # eps is 2 u; N u stays far below one half.
    gamma = 2 * allowance(network.operations, magnitude.dtype)
    errors: dict[int, Tensor] = {}
    total = 1 + magnitude.sum(-1, keepdim=True)  # of the sizes of all nodes so far

    def carried(size: Tensor) -> Tensor:
        """The sizes (..., size) of a node's values, with what underflow makes of them."""
        nonlocal total
        total = total + size.sum(-1, keepdim=True)
        return size + underflow(total)

    def activation(k: int, node: Activate, size: Tensor) -> Tensor:
        errors[k] = gamma * size
        return carried(size * slopes[k].abs())

    def affine(k: int, node: Affine, terms: Terms[Tensor]) -> Tensor:
        size = linear_value([(m.absolute, value) for m, value in terms])
        return carried(size if node.bias is None else size + node.bias.abs())

    fold_forward(network, {0: magnitude}, activation, affine)
    return errors
