"""The signs of pre-activations at a point in exact arithmetic.

Inputs and weights are floats, so they are integers times powers of two, and so is every pre-activation of a network
with kinks only. One node after another is evaluated in Python's integers, with one exponent per node; the numbers grow
by about a hundred bits per layer.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from lipcompare.network.activations import LeakyReLU
from lipcompare.network.graph import Activate, Affine, Network, Terms, fold_forward
from lipcompare.network.linear_maps import Composed, Identity, LinearMap, Scale, Select, Transposed

_ENTRIES = 2**22
"""Entries of a map, with its zeros, up to which it is written as a matrix."""
_PRODUCTS = 500_000
"""Products of short numbers that all evaluations of one network together may take: a fraction of a second."""
_SHORT = 3000
"""Bits of a number whose product with a float takes twice as long as that of a short one."""
_MANTISSA = 53


@dataclasses.dataclass(frozen=True, eq=False)
class _Dyadic:
    """``numerator / 2**exponent``, entry by entry.

    Attributes:
        numerator: (n,) Python integers.
    """

    numerator: np.ndarray
    exponent: int

    @classmethod
    def of(cls, values: np.ndarray) -> _Dyadic:
        """Floats (n,) as they are."""
        mantissa, power = np.frexp(np.asarray(values, dtype=np.float64))
        whole = np.ldexp(mantissa, _MANTISSA).astype(np.int64).astype(object)
        exponents = np.where(mantissa == 0, 0, power.astype(np.int64) - _MANTISSA)
        least = int(min(exponents.min(initial=0), 0))
        return cls(whole << (exponents - least).astype(object), -least)

    def __add__(self, other: _Dyadic) -> _Dyadic:
        exponent = max(self.exponent, other.exponent)
        return _Dyadic(self._at(exponent) + other._at(exponent), exponent)

    def __mul__(self, other: _Dyadic) -> _Dyadic:
        return _Dyadic(self.numerator * other.numerator, self.exponent + other.exponent)

    def _at(self, exponent: int) -> np.ndarray:
        shifted: np.ndarray = self.numerator * (1 << (exponent - self.exponent))
        return shifted

    @property
    def signs(self) -> np.ndarray:
        """(n,) of -1, 0 and 1."""
        return np.array([(v > 0) - (v < 0) for v in self.numerator.tolist()], dtype=np.int8)


class TooLarge(Exception):
    """The network is too large to be evaluated exactly."""


class ExactSigns:
    """Evaluates one network at points; its matrices are made once.

    Args:
        network: float64, on the CPU.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self._matrices: dict[int, tuple[LinearMap, scipy.sparse.csr_array]] = {}
        self._cost = 0.0

    def at(self, point: Tensor) -> dict[int, np.ndarray]:
        """Signs (neurons,) of the pre-activations at ``point`` (inputs,), per activation node.

        Nodes behind an activation without kinks are left out: their values are no rational numbers.

        Raises:
            TooLarge: this and the evaluations before it would take more than a fraction of a second.
        """
        signs: dict[int, np.ndarray] = {}

        def activation(k: int, node: Activate, z: _Dyadic | None) -> _Dyadic | None:
            if z is None:
                return None  # nothing goes on from here: later nodes lack this term
            signs[k] = z.signs
            return _activated(node, z, signs[k])

        def affine(k: int, node: Affine, terms: Terms[_Dyadic | None]) -> _Dyadic | None:
            known = [(m, value) for m, value in terms if value is not None]
            if len(known) < len(node.maps):
                return None
            total = _Dyadic.of(np.zeros(node.size) if node.bias is None else node.bias.numpy())
            for m, value in known:
                total = total + self._apply(m, value)
            return total

        given: dict[int, _Dyadic | None] = {0: _Dyadic.of(point.double().numpy())}
        fold_forward(self.network, given, activation, affine)
        return signs

    def _apply(self, m: LinearMap, x: _Dyadic) -> _Dyadic:
        """The map's value; products of maps are taken one after another, as their entries may be rounded."""
        if isinstance(m, Identity):
            return x
        if isinstance(m, Composed):
            return self._apply(m.outer, self._apply(m.inner, x))
        if isinstance(m, Scale):
            return x * _Dyadic.of(m.factor.numpy())
        if isinstance(m, Select):
            index = m.index.numpy()
            return _Dyadic(np.where(index < 0, 0, x.numerator[np.maximum(index, 0)]), x.exponent)
        return self._product(self._matrix(m), x)

    def _matrix(self, m: LinearMap) -> scipy.sparse.csr_array:
        if id(m) not in self._matrices:
            if m.in_size * m.out_size > _ENTRIES:
                raise TooLarge
            if isinstance(m, Transposed):
                matrix = scipy.sparse.csr_array(self._matrix(m.base).T)
            else:
                # Its values at unit vectors are its entries, without rounding.
                matrix = scipy.sparse.csr_array(m.matrix(dtype=torch.float64).numpy())
            self._matrices[id(m)] = m, matrix
        return self._matrices[id(m)][1]

    def _product(self, matrix: scipy.sparse.csr_array, x: _Dyadic) -> _Dyadic:
        bits = max((abs(v).bit_length() for v in x.numerator.tolist()), default=0)
        self._cost += matrix.nnz * (1 + bits / _SHORT)
        if self._cost > _PRODUCTS:
            raise TooLarge
        weights = _Dyadic.of(matrix.data)
        terms = weights.numerator * x.numerator[matrix.indices]
        sums = np.zeros(matrix.shape[0], dtype=object)
        filled = np.flatnonzero(np.diff(matrix.indptr))
        if len(filled):
            sums[filled] = np.add.reduceat(terms, matrix.indptr[filled])
        return _Dyadic(sums, weights.exponent + x.exponent)


def _activated(node: Activate, z: _Dyadic, signs: np.ndarray) -> _Dyadic | None:
    """The activation's value; None where it is no rational number."""
    activation = node.activation
    if not isinstance(activation, LeakyReLU):
        return None
    alpha = np.broadcast_to(torch.as_tensor(activation.alpha, dtype=torch.float64).numpy(), (node.size,))
    return z * _Dyadic.of(np.where(signs > 0, 1.0, alpha))
