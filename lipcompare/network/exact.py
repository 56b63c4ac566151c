"""Values and gradients of networks with kinks in exact arithmetic, or as near to it as a question needs.

Inputs and weights are floats, so they are integers times powers of two, and so is every pre-activation of a network
with kinks only. One node after another is evaluated in Python's integers, with one exponent per node. Exactly, the
numbers grow by about a hundred bits per layer; so they are first cut to a few hundred bits, with a bound on what that
has cost, which decides every sign but those of pre-activations that vanish or nearly do.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from lipcompare.network.activations import LeakyReLU
from lipcompare.network.graph import Activate, Affine, Network, Terms, fold_backward, fold_forward
from lipcompare.network.linear_maps import Composed, Identity, LinearMap, Scale, Select, Transposed

UNKNOWN = 2
"""In place of a sign that was not decided."""

_ENTRIES = 2**22
"""Entries of a map, with its zeros, up to which it is written as a matrix."""
_PRODUCTS = 300_000
"""Products of short numbers that all evaluations of one network together may take: a fraction of a second."""
_POINTS = 1000
"""Points that are remembered."""
_SHORT = 3000
"""Bits of a number whose product with a float takes twice as long as that of a short one."""
_MANTISSA = 53
_BITS = (256, 1024, None)
"""Bits that a node's largest value is cut to, one after another until all signs are known; None for all of them."""
_GRADIENT_BITS = 1024
"""The same for gradients, which are asked for only where absolute values grow far beyond them."""


def whole(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Floats as Python's integers, of the same shape, and the exponent of the power of two under all of them."""
    mantissa, power = np.frexp(np.asarray(values, dtype=np.float64))
    numbers = np.ldexp(mantissa, _MANTISSA).astype(np.int64).astype(object)
    exponents = np.where(mantissa == 0, 0, power.astype(np.int64) - _MANTISSA)
    least = int(min(exponents.min(initial=0), 0))
    return numbers << (exponents - least).astype(object), -least


def whole_matrix(m: LinearMap) -> tuple[np.ndarray, int]:
    """A map's matrix (out, in) in the same form; products of maps factor by factor, as their entries may be rounded."""
    if isinstance(m, Composed):
        (outer, high), (inner, low) = whole_matrix(m.outer), whole_matrix(m.inner)
        return outer @ inner, high + low
    if isinstance(m, Transposed):
        base, exponent = whole_matrix(m.base)
        return base.T, exponent
    # Its values at unit vectors are its entries, without rounding.
    return whole(m.matrix(dtype=torch.float64).numpy())


@dataclasses.dataclass(frozen=True, eq=False)
class _Dyadic:
    """``(numerator +- error) / 2**exponent``, entry by entry.

    Attributes:
        numerator, error: (n,) Python integers; no error where nothing was cut.
    """

    numerator: np.ndarray
    exponent: int
    error: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> _Dyadic:
        """Floats (n,) as they are."""
        numerator, exponent = whole(values)
        return cls(numerator, exponent, np.zeros(len(numerator), dtype=object))

    def __add__(self, other: _Dyadic) -> _Dyadic:
        exponent = max(self.exponent, other.exponent)
        one, two = self._at(exponent), other._at(exponent)
        return _Dyadic(one.numerator + two.numerator, exponent, one.error + two.error)

    def times(self, factors: _Dyadic) -> _Dyadic:
        """The product with exact factors."""
        error = self.error * abs(factors.numerator)
        return _Dyadic(self.numerator * factors.numerator, self.exponent + factors.exponent, error)

    def at(self, index: np.ndarray) -> _Dyadic:
        """Entries (n,) of that index, 0 where it is negative."""
        inside = np.maximum(index, 0)
        numerator, error = (np.where(index < 0, 0, v[inside]) for v in (self.numerator, self.error))
        return _Dyadic(numerator, self.exponent, error)

    def scattered(self, index: np.ndarray, size: int) -> _Dyadic:
        """Sums (size,) of the entries with each index, those with a negative one left out."""
        used = index >= 0
        sums = [np.zeros(size, dtype=object) for _ in range(2)]
        for total, part in zip(sums, (self.numerator, self.error), strict=True):
            np.add.at(total, index[used], part[used])
        return _Dyadic(sums[0], self.exponent, sums[1])

    def cut(self, bits: int | None) -> _Dyadic:
        """Numbers of at most so many bits; what is cut off is under one unit of the last of them."""
        spare = 0 if bits is None else self.bits - bits
        if spare <= 0:
            return self
        kept = self.numerator >> spare
        whole = ((kept << spare) == self.numerator) & (self.error == 0)
        return _Dyadic(kept, self.exponent - spare, np.where(whole, 0, (self.error >> spare) + 2))

    @property
    def bits(self) -> int:
        """Of the largest numerator."""
        return max((abs(v).bit_length() for v in self.numerator.tolist()), default=0)

    def _at(self, exponent: int) -> _Dyadic:
        factor = 1 << (exponent - self.exponent)
        return _Dyadic(self.numerator * factor, exponent, self.error * factor)

    @property
    def signs(self) -> np.ndarray:
        """(n,) of -1, 0, 1 and UNKNOWN."""
        pairs = zip(self.numerator.tolist(), self.error.tolist(), strict=True)
        return np.array([_sign(v, e) for v, e in pairs], dtype=np.int8)

    def least(self) -> np.ndarray:
        """Floats (n,) that the absolute values are not under."""
        pairs = zip(self.numerator.tolist(), self.error.tolist(), strict=True)
        return np.array([_below(max(abs(v) - e, 0), self.exponent) for v, e in pairs])


def _sign(value: int, error: int) -> int:
    if abs(value) > error:
        return 1 if value > 0 else -1
    return UNKNOWN if error else 0


def _below(numerator: int, exponent: int) -> float:
    """A float that is not above ``numerator / 2**exponent``, and as near as floats are unless it is tiny."""
    spare = max(numerator.bit_length() - _MANTISSA, 0)
    try:
        value = math.ldexp(numerator >> spare, spare - exponent)
    except OverflowError:
        return sys.float_info.max
    # Nearer to zero floats have fewer bits, and a power would be rounded to nearest.
    return value if value >= 2.0**-1000 else 0.0


class TooLarge(Exception):
    """The network is too large to be evaluated exactly."""


class _Matrix(NamedTuple):
    """A map (which is kept alive, as it is known by its identity) as integers over a power of two, row after row.

    Attributes:
        places: (out, in), whose data are the places of the entries in ``weights`` and ``sizes``.
        weights, sizes: (entries,) Python integers and their absolute values.
    """

    map: LinearMap
    places: scipy.sparse.csr_array
    weights: np.ndarray
    sizes: np.ndarray
    exponent: int

    @classmethod
    def of(cls, m: LinearMap) -> _Matrix:
        # Its values at unit vectors are its entries, without rounding.
        matrix = scipy.sparse.csr_array(m.matrix(dtype=torch.float64).numpy())
        weights, exponent = whole(matrix.data)
        places = scipy.sparse.csr_array((np.arange(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape)
        return cls(m, places, weights, abs(weights), exponent)

    def transposed(self, m: LinearMap) -> _Matrix:
        """That of the map ``m``, the transposed one of this one."""
        turned = scipy.sparse.csr_array(self.places.T)
        weights, sizes = self.weights[turned.data], self.sizes[turned.data]
        return _Matrix(m, turned, weights, sizes, self.exponent)

    def times(self, x: _Dyadic) -> _Dyadic:
        """Its product (out,) with numbers (in,)."""
        exact = not x.error.any()
        error = np.zeros(self.places.shape[0], dtype=object) if exact else self._sums(self.sizes, x.error)
        return _Dyadic(self._sums(self.weights, x.numerator), x.exponent + self.exponent, error)

    def _sums(self, weights: np.ndarray, x: np.ndarray) -> np.ndarray:
        sums = np.zeros(self.places.shape[0], dtype=object)
        filled = np.flatnonzero(np.diff(self.places.indptr))
        if len(filled):
            terms = weights * x[self.places.indices]
            sums[filled] = np.add.reduceat(terms, self.places.indptr[filled])
        return sums


class Exact:
    """Evaluates one network at points; its matrices are made once, and what is known of a point is found once.

    Args:
        network: float64, on the CPU.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self._matrices: dict[tuple[int, bool], _Matrix] = {}
        self._known: dict[bytes, dict[int, np.ndarray]] = {}
        self._cost = 0.0

    @classmethod
    @functools.lru_cache(maxsize=1)
    def of(cls, network: Network) -> Exact:
        """The one of this network, as long as no other network is asked for: the search, what it found and the check
        of that ask for the same points."""
        return cls(network)

    def renewed(self) -> Exact:
        """Itself, with nothing spent."""
        self._cost = 0.0
        if len(self._known) > _POINTS:
            self._known.clear()
        return self

    def signs(self, point: Tensor) -> dict[int, np.ndarray]:
        """Signs (neurons,) of the pre-activations at ``point`` (inputs,), per activation node; UNKNOWN for some that
        nearly vanish, where more bits would take too long.

        Nodes behind an activation without kinks are left out: their values are no rational numbers.

        Raises:
            TooLarge: this and the evaluations before it would take more than a fraction of a second.
        """
        key = point.numpy().tobytes()
        if key in self._known:
            return self._known[key]
        pattern: dict[int, np.ndarray] = {}
        for bits in _BITS:
            try:
                pattern = self._signs(point, bits)
            except TooLarge:
                if not pattern:
                    raise
            if not any((signs == UNKNOWN).any() for signs in pattern.values()):
                break
        self._known[key] = pattern
        return pattern

    def _signs(self, point: Tensor, bits: int | None) -> dict[int, np.ndarray]:
        signs: dict[int, np.ndarray] = {}

        def activation(k: int, node: Activate, z: _Dyadic | None) -> _Dyadic | None:
            if z is None:
                return None  # nothing goes on from here: later nodes lack this term
            signs[k] = z.signs
            return _activated(node, z, signs[k])

        def affine(k: int, node: Affine, terms: Terms[_Dyadic | None]) -> _Dyadic | None:
            reached = [(m, value) for m, value in terms if value is not None]
            if len(reached) < len(node.maps):
                return None
            total = _Dyadic.of(np.zeros(node.size) if node.bias is None else node.bias.numpy())
            for m, value in reached:
                total = total + self._apply(m, value)
            return total.cut(bits)

        given: dict[int, _Dyadic | None] = {0: _Dyadic.of(point.double().numpy())}
        fold_forward(self.network, given, activation, affine)
        return signs

    def gradient(self, slopes: Mapping[int, Tensor], functional: Tensor) -> np.ndarray:
        """What the entries (inputs,) of a gradient are at least in absolute value.

        Args:
            slopes: (neurons,) per activation node.
            functional: (outputs,).

        Raises:
            TooLarge: as for :meth:`signs`.
        """

        def activation(k: int, node: Activate, value: _Dyadic) -> _Dyadic:
            return value.times(_Dyadic.of(slopes[k].numpy()))

        def affine(k: int, node: Affine, maps: Sequence[LinearMap], value: _Dyadic) -> Iterator[_Dyadic]:
            return (self._apply(Transposed(m), value).cut(_GRADIENT_BITS) for m in maps)

        start = {len(self.network.nodes) - 1: _Dyadic.of(functional.double().numpy())}
        found = fold_backward(self.network, start, activation, affine)
        return np.zeros(self.network.in_size) if found is None else found.least()

    def _apply(self, m: LinearMap, x: _Dyadic) -> _Dyadic:
        """The map's value; products of maps are taken one after another, as their entries may be rounded."""
        if isinstance(m, Identity):
            return x
        if isinstance(m, Composed):
            return self._apply(m.outer, self._apply(m.inner, x))
        if isinstance(m, Scale):
            return x.times(_Dyadic.of(m.factor.numpy()))
        if isinstance(m, Select):
            return x.at(m.index.numpy())
        if isinstance(m, Transposed):
            base = m.base
            if isinstance(base, (Identity, Scale)):
                return self._apply(base, x)
            if isinstance(base, Select):
                return x.scattered(base.index.numpy(), base.in_size)
            if isinstance(base, Composed):
                return self._apply(Transposed(base.inner), self._apply(Transposed(base.outer), x))
            if isinstance(base, Transposed):
                return self._apply(base.base, x)
        return self._product(m, x)

    def _matrix(self, m: LinearMap) -> _Matrix:
        key = (id(m.base), True) if isinstance(m, Transposed) else (id(m), False)
        if key not in self._matrices:
            if m.in_size * m.out_size > _ENTRIES:
                raise TooLarge
            made = self._matrix(m.base).transposed(m) if isinstance(m, Transposed) else _Matrix.of(m)
            self._matrices[key] = made
        return self._matrices[key]

    def _product(self, m: LinearMap, x: _Dyadic) -> _Dyadic:
        matrix = self._matrix(m)
        self._cost += len(matrix.weights) * (1 + x.bits / _SHORT)
        if self._cost > _PRODUCTS:
            raise TooLarge
        return matrix.times(x)


def _activated(node: Activate, z: _Dyadic, signs: np.ndarray) -> _Dyadic | None:
    """The activation's value; None where it is no rational number."""
    activation = node.activation
    if not isinstance(activation, LeakyReLU):
        return None
    alpha = np.broadcast_to(torch.as_tensor(activation.alpha, dtype=torch.float64).numpy(), (node.size,))
    # Where the sign is not known, zero is off by no more than the larger of both sides.
    unknown = signs == UNKNOWN
    steepest = np.maximum(np.abs(alpha), 1.0)
    y = z.times(_Dyadic.of(np.where(unknown, steepest, np.where(signs > 0, 1.0, alpha))))
    error = np.where(unknown, abs(y.numerator) + y.error, y.error)
    return _Dyadic(np.where(unknown, 0, y.numerator), y.exponent, error)
