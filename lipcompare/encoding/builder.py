"""Sparse building blocks of a mixed-integer program: affine expressions over columns, and the program as it grows."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

import solvers
from lipcompare.budget import BLOCK_ENTRIES, fitting
from lipcompare.network.linear_maps import Composed, Conv, Dense, LinearMap, Select, Transposed
from lipcompare.rounding import SPARE, allowance

Vector = NDArray[np.float64]
Columns = NDArray[np.intp]


class OutOfRange(ArithmeticError):
    """A program has numbers that float64 does not hold."""

    def __init__(self) -> None:
        super().__init__("Numbers of the program are out of range: what was known before it stands.")


def in_range(*values: NDArray[np.float64]) -> None:
    """Raises OutOfRange unless all values are finite."""
    if not all(np.isfinite(v).all() for v in values):
        raise OutOfRange


@dataclasses.dataclass(frozen=True, eq=False)
class Expression:
    """Affine functions of the program's columns: ``matrix @ columns + constant``.

    The matrix may be narrower than the program is by now: columns that came later do not occur in it.
    """

    matrix: sp.csr_matrix  # (n, columns known when it was made)
    constant: Vector  # (n,)

    @property
    def size(self) -> int:
        return len(self.constant)

    @property
    def is_constant(self) -> NDArray[np.bool_]:
        """Entries in which no column occurs, (n,)."""
        empty: NDArray[np.bool_] = np.diff(self.matrix.indptr) == 0
        return empty

    @property
    def nnz(self) -> int:
        return int(self.matrix.nnz)

    @classmethod
    def of(cls, constant: Vector) -> Expression:
        """Constants."""
        return cls(sp.csr_matrix((len(constant), 0)), np.asarray(constant, dtype=np.float64))

    @classmethod
    def columns(cls, columns: Columns, factor: Vector | float = 1.0) -> Expression:
        """One column per entry, times a factor."""
        n = len(columns)
        width = int(columns.max(initial=-1)) + 1
        data = np.broadcast_to(np.asarray(factor, dtype=np.float64), (n,)).copy()
        return cls(sp.csr_matrix((data, columns, np.arange(n + 1)), shape=(n, width)), np.zeros(n))

    def widened(self, width: int) -> sp.csr_matrix:
        """The matrix with ``width`` columns."""
        m = self.matrix
        return sp.csr_matrix((m.data, m.indices, m.indptr), shape=(m.shape[0], width))

    def __add__(self, other: Expression) -> Expression:
        width = max(self.matrix.shape[1], other.matrix.shape[1])
        return Expression(self.widened(width) + other.widened(width), self.constant + other.constant)

    def __getitem__(self, chosen: Columns) -> Expression:
        return Expression(self.matrix[chosen], self.constant[chosen])

    def scaled(self, factor: Vector) -> Expression:
        """Every entry times its factor."""
        matrix = sp.csr_matrix(sp.diags(factor) @ self.matrix)
        matrix.eliminate_zeros()
        return Expression(matrix, self.constant * factor)

    def mapped(self, linear: sp.csr_matrix) -> Expression:
        """``linear @ self``."""
        matrix = sp.csr_matrix(linear @ self.matrix)
        matrix.eliminate_zeros()
        return Expression(matrix, linear @ self.constant)

    def placed(self, at: Columns, size: int) -> Expression:
        """The entries at positions ``at`` of a longer vector that is zero elsewhere."""
        spread = sp.csr_matrix((np.ones(len(at)), (at, np.arange(len(at)))), shape=(size, len(at)))
        return self.mapped(spread)

    def value(self, x: Vector) -> Vector:
        """Value at a point of the program, of which at least the columns that occur must be known."""
        return np.asarray(self.matrix @ x[: self.matrix.shape[1]] + self.constant)


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """``expression = first + sign * second`` where the binary (1: all of it is ``first``, 0: all of it is
    ``second``)."""

    expression: Expression
    first: Columns
    second: Columns
    sign: float
    binary: Columns


@dataclasses.dataclass(frozen=True, eq=False)
class GateColumns:
    """The undecided neurons of one activation node and their binaries (1: the upper end of the slope range)."""

    neurons: Columns
    columns: Columns


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """A maximum over alternatives: ``value = expression`` where the binary is 1, at most 0 elsewhere."""

    expression: Expression
    value: Columns
    binary: Columns


class ProgramBuilder:
    """A mixed-integer program under construction. Every column has finite bounds."""

    def __init__(self) -> None:
        self._lower: list[Vector] = []
        self._upper: list[Vector] = []
        self._integer: list[NDArray[np.bool_]] = []
        self._rows: list[Expression] = []
        self._row_lower: list[Vector] = []
        self._row_upper: list[Vector] = []
        self.width = 0

    def add_columns(self, lower: Vector, upper: Vector, *, integer: bool = False) -> Columns:
        """New columns with the given bounds.

        Raises:
            OutOfRange: a bound is not finite.
        """
        in_range(lower, upper)
        n = len(lower)
        self._lower.append(lower)
        self._upper.append(upper)
        self._integer.append(np.full(n, integer))
        self.width += n
        return np.arange(self.width - n, self.width)

    def add_binaries(self, n: int) -> Columns:
        return self.add_columns(np.zeros(n), np.ones(n), integer=True)

    def add_rows(self, lower: Vector | float, expression: Expression, upper: Vector | float) -> None:
        """``lower <= expression <= upper``, entry by entry.

        Raises:
            OutOfRange: a coefficient is not finite.
        """
        if not expression.size:
            return
        in_range(expression.matrix.data, expression.constant)
        self._rows.append(expression)
        for sides, side in ((self._row_lower, lower), (self._row_upper, upper)):
            sides.append(np.broadcast_to(side, expression.size) - expression.constant)

    def ranges(self, columns: Columns) -> tuple[Vector, Vector]:
        """Bounds of some columns."""
        return np.concatenate(self._lower)[columns], np.concatenate(self._upper)[columns]

    def reach(self, expression: Expression) -> tuple[Vector, Vector]:
        """Interval of an expression over the columns' bounds, rounded outward."""
        width = expression.matrix.shape[1]
        if not width or not expression.nnz:
            return expression.constant, expression.constant
        lower, upper = np.concatenate(self._lower)[:width], np.concatenate(self._upper)[:width]
        center, radius = (lower + upper) / 2, (upper - lower) / 2
        size = abs(expression.matrix)
        middle = expression.matrix @ center + expression.constant
        terms = int(np.diff(expression.matrix.indptr).max()) + SPARE
        magnitude = size @ np.maximum(abs(lower), abs(upper)) + np.abs(expression.constant)
        slack = allowance(terms, torch.float64) * magnitude
        spread = size @ radius + slack
        return middle - spread, middle + spread

    def program(self, objective: Expression) -> solvers.MixedIntegerProgram:
        """The program that maximises the one entry of ``objective``, by minimising its negative.

        Raises:
            OutOfRange: a coefficient is not finite.
        """
        in_range(objective.matrix.data, objective.constant)
        n = self.width
        # A program must have a row: an empty matrix will do.
        rows = [r.widened(n) for r in self._rows]
        matrix = sp.vstack(rows, format="csr") if rows else sp.csr_matrix((0, n))
        return solvers.MixedIntegerProgram(
            cost=-objective.widened(n).toarray().ravel(),
            A=matrix,
            row_lower=np.concatenate(self._row_lower) if rows else np.zeros(0),
            row_upper=np.concatenate(self._row_upper) if rows else np.zeros(0),
            lower=np.concatenate(self._lower),
            upper=np.concatenate(self._upper),
            integrality=np.concatenate(self._integer),
            offset=-float(objective.constant[0]),
        )


def sparse_matrix(linear: LinearMap) -> sp.csr_matrix:
    """The matrix of a linear map, (out_size, in_size), float64, without ever holding all of it densely."""
    if isinstance(linear, Conv):
        return _convolution(linear)
    if isinstance(linear, Transposed):
        return sp.csr_matrix(sparse_matrix(linear.base).T)
    if isinstance(linear, Composed):
        return sp.csr_matrix(sparse_matrix(linear.outer) @ sparse_matrix(linear.inner))
    if isinstance(linear, Select):
        index = linear.index.numpy()
        rows = np.flatnonzero(index >= 0)
        return sp.csr_matrix((np.ones(len(rows)), (rows, index[rows])), shape=(len(index), linear.size))
    if isinstance(linear, Dense):
        block = sp.csr_matrix(linear.weight.double().numpy())
        return block if linear.blocks == 1 else sp.block_diag([block] * linear.blocks, format="csr")
    # Any other map tells its entries at unit vectors.
    step = fitting(BLOCK_ENTRIES, max(linear.in_size, linear.out_size))
    blocks = []
    for start in range(0, linear.in_size, step):
        stop = min(start + step, linear.in_size)
        unit = torch.zeros(stop - start, linear.in_size, dtype=torch.float64)
        unit[torch.arange(stop - start), torch.arange(start, stop)] = 1
        blocks.append(sp.csr_matrix(linear.forward(unit).numpy()))
    return sp.csr_matrix(sp.vstack(blocks).T)


def _convolution(linear: Conv) -> sp.csr_matrix:
    """The same for a convolution, from where each of its windows lies."""
    weight = linear.weight.double().numpy()
    channels, per_group = weight.shape[:2]
    spatial, taps = linear.in_shape[1:], weight.shape[2:]
    pixel, inside = np.zeros((1, 1), dtype=np.int64), np.ones((1, 1), dtype=bool)  # (positions, taps), axis by axis
    for axis, n in enumerate(spatial):
        start = np.arange(linear.out_shape[1 + axis]) * linear.stride[axis] - linear.padding[axis]
        at = (start[:, None] + np.arange(taps[axis]) * linear.dilation[axis])[None, :, None, :]
        shape = (len(pixel) * at.shape[1], pixel.shape[1] * at.shape[3])
        pixel = (pixel[:, None, :, None] * n + at).reshape(shape)
        inside = (inside[:, None, :, None] & (at >= 0) & (at < n)).reshape(shape)
    positions = len(pixel)
    first = np.arange(channels) // (channels // linear.groups) * per_group
    channel = (first[:, None] + np.arange(per_group)) * math.prod(spatial)
    columns = channel[:, None, :, None] + pixel[:, None, :]  # (channels, positions, channels per group, taps)
    values = np.broadcast_to(weight.reshape(channels, 1, per_group, -1), columns.shape)
    present = inside[:, None, :] & (values != 0)
    ends = np.concatenate([[0], present.sum((2, 3)).reshape(channels * positions).cumsum()])
    shape = (linear.out_size, linear.in_size)
    return sp.csr_matrix((values[present], columns[present], ends), shape=shape)
