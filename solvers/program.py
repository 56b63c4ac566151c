"""The two kinds of program a solver is given, as plain arrays. Everything is minimised.

Only minimisation exists here because solvers are tested far better on it (HiGHS has had wrong dual bounds
when maximising): negate the objective to maximise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

Vector = NDArray[np.float64]
BoolVector = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class MixedIntegerProgram:
    """minimise  cost @ x + offset   subject to   row_lower <= A x <= row_upper,   lower <= x <= upper,
    x_j integer where integrality_j.

    Shapes: cost, lower, upper, integrality (n,); A (m, n), sparse; row_lower, row_upper (m,). Bounds may be
    infinite. Arrays are copied on creation and read-only afterwards. Raises ValueError with one sentence on a
    malformed program.
    """

    cost: Vector
    A: sp.csr_matrix
    row_lower: Vector
    row_upper: Vector
    lower: Vector
    upper: Vector
    integrality: BoolVector
    offset: float = 0.0
    names: tuple[str, ...] | None = None

    def __init__(
        self,
        cost: ArrayLike,
        A: Any,
        row_lower: ArrayLike,
        row_upper: ArrayLike,
        lower: ArrayLike,
        upper: ArrayLike,
        integrality: ArrayLike | None = None,
        offset: float = 0.0,
        names: tuple[str, ...] | None = None,
    ) -> None:
        vectors = {
            "cost": _vector("cost", cost),
            "row_lower": _vector("row_lower", row_lower),
            "row_upper": _vector("row_upper", row_upper),
            "lower": _vector("lower", lower),
            "upper": _vector("upper", upper),
        }
        n = len(vectors["cost"])
        if n == 0:
            raise ValueError("a program needs at least one variable, but cost is empty")
        matrix = _matrix(A, n)
        flags = np.zeros(n, bool) if integrality is None else np.array(integrality)
        if flags.shape != (n,) or not np.isin(flags, (0, 1)).all():
            raise ValueError(f"integrality must be {n} booleans, one per variable; it has shape {flags.shape}")
        for name, size in (
            ("row_lower", matrix.shape[0]),
            ("row_upper", matrix.shape[0]),
            ("lower", n),
            ("upper", n),
        ):
            if len(vectors[name]) != size:
                raise ValueError(f"{name} must have {size} entries to match A {matrix.shape}, has {len(vectors[name])}")
        if not np.isfinite(vectors["cost"]).all() or not np.isfinite(offset):
            raise ValueError("cost and offset must be finite")
        _ordered("row_lower", vectors["row_lower"], "row_upper", vectors["row_upper"], "row")
        _ordered("lower", vectors["lower"], "upper", vectors["upper"], "variable")
        if names is not None and (len(names) != n or len(set(names)) != n):
            raise ValueError(f"names must be {n} distinct strings, one per variable")
        for name, value in vectors.items():
            object.__setattr__(self, name, _frozen(value))
        object.__setattr__(self, "A", matrix)
        object.__setattr__(self, "integrality", _frozen(flags.astype(bool)))
        object.__setattr__(self, "offset", float(offset))
        object.__setattr__(self, "names", None if names is None else tuple(names))

    @property
    def num_variables(self) -> int:
        return len(self.cost)

    @property
    def num_rows(self) -> int:
        return int(self.A.shape[0])

    @property
    def is_mip(self) -> bool:
        """True if some variable must be an integer."""
        return bool(self.integrality.any())

    def objective(self, x: Vector) -> float:
        """cost @ x + offset at x (n,)."""
        return float(self.cost @ x + self.offset)

    def relaxed(self) -> MixedIntegerProgram:
        """The linear relaxation: the same program with no integer variables."""
        return replace(self, integrality=np.zeros(self.num_variables, bool))

    def without_cost(self) -> MixedIntegerProgram:
        """The feasibility question: the same constraints with objective zero."""
        return replace(self, cost=np.zeros(self.num_variables), offset=0.0)

    def recession(self) -> MixedIntegerProgram:
        """The steepest direction of the linear relaxation inside [-1, 1]^n: its minimum is negative if and
        only if the relaxation, where feasible, is unbounded. The origin is always feasible."""

        def side(value: Vector, infinite: float) -> Vector:
            return np.where(np.isfinite(value), 0.0, infinite)

        return MixedIntegerProgram(
            cost=self.cost,
            A=self.A,
            row_lower=side(self.row_lower, -np.inf),
            row_upper=side(self.row_upper, np.inf),
            lower=side(self.lower, -1.0),
            upper=side(self.upper, 1.0),
        )

    def may_be_unbounded(self) -> bool:
        """False if the variable bounds alone keep the objective bounded from below."""
        downhill = np.where(self.cost > 0, self.lower, np.where(self.cost < 0, -self.upper, 0.0))
        return bool(np.isneginf(downhill).any())


@dataclass(frozen=True)
class Cones:
    """K = {0}^zero x R_+^nonneg x second-order cones x psd cones, in this order of rows.

    second_order: sizes k of {(t, z) : ||z||_2 <= t} in R^k. psd: orders k of the cone of psd k x k matrices,
    each as svec(matrix) in R^(k(k+1)/2).
    """

    zero: int = 0
    nonneg: int = 0
    second_order: tuple[int, ...] = ()
    psd: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if min((self.zero, self.nonneg, 0)) < 0 or min((*self.second_order, *self.psd, 1)) < 1:
            raise ValueError(f"cone sizes must be positive: {self}")

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.zero + self.nonneg + sum(self.second_order) + sum(k * (k + 1) // 2 for k in self.psd)

    def slices(self) -> tuple[list[slice], list[slice]]:
        """The rows of every second-order cone and of every psd cone."""
        edge = self.zero + self.nonneg
        second_order, psd = [], []
        for k in self.second_order:
            second_order.append(slice(edge, edge + k))
            edge += k
        for k in self.psd:
            psd.append(slice(edge, edge + k * (k + 1) // 2))
            edge += k * (k + 1) // 2
        return second_order, psd


@dataclass(frozen=True, eq=False)
class ConicProgram:
    """minimise  cost @ x + offset   subject to   A x + s = b,   s in K   (the form of Clarabel and SCS).

    Shapes: cost (n,), A (m, n) sparse, b (m,), m = cones.size. Its dual is: maximise offset - b @ y subject
    to A^T y + cost = 0, y in K*. Arrays are copied and read-only. Raises ValueError with one sentence.
    """

    cost: Vector
    A: sp.csr_matrix
    b: Vector
    cones: Cones
    offset: float = 0.0

    def __init__(self, cost: ArrayLike, A: Any, b: ArrayLike, cones: Cones, offset: float = 0.0) -> None:
        c, right = _vector("cost", cost), _vector("b", b)
        if len(c) == 0:
            raise ValueError("a program needs at least one variable, but cost is empty")
        matrix = _matrix(A, len(c))
        if not np.isfinite(c).all() or not np.isfinite(right).all() or not np.isfinite(offset):
            raise ValueError("cost, b and offset of a conic program must be finite")
        if matrix.shape[0] != len(right) or cones.size != len(right):
            sizes = f"A has {matrix.shape[0]} rows, b {len(right)} entries and the cones {cones.size} rows"
            raise ValueError(f"{sizes}: the three must agree")
        for name, value in (("cost", _frozen(c)), ("A", matrix), ("b", _frozen(right)), ("cones", cones)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "offset", float(offset))

    @property
    def num_variables(self) -> int:
        return len(self.cost)

    @property
    def num_rows(self) -> int:
        return len(self.b)

    @property
    def is_mip(self) -> bool:
        return False

    def objective(self, x: Vector) -> float:
        """cost @ x + offset at x (n,)."""
        return float(self.cost @ x + self.offset)

    def without_cost(self) -> ConicProgram:
        """The feasibility question: the same constraints with objective zero."""
        return replace(self, cost=np.zeros(self.num_variables), offset=0.0)

    def may_be_unbounded(self) -> bool:
        """True unless the objective is constant: variables of a conic program have no bounds of their own."""
        return bool(self.cost.any())


Program = MixedIntegerProgram | ConicProgram


def svec(matrix: Vector) -> Vector:
    """The symmetric k x k matrix as k(k+1)/2 numbers: lower triangle, column by column, off-diagonal entries
    times sqrt(2), so that svec(X) @ svec(Y) = trace(X Y). (SCS's order.)"""
    k = matrix.shape[0]
    columns, rows = np.triu_indices(k)
    return np.asarray(np.where(rows == columns, 1.0, np.sqrt(2.0)) * matrix[rows, columns])


def smat(vector: Vector) -> Vector:
    """The inverse of svec: k(k+1)/2 numbers as a symmetric k x k matrix."""
    k = (int(np.sqrt(8 * len(vector) + 1)) - 1) // 2
    return np.asarray((smat_operator(k) @ vector).reshape(k, k))


def smat_operator(k: int) -> sp.csr_matrix:
    """The linear map svec(X) -> X.ravel(), sparse, (k*k, k(k+1)/2)."""
    columns, rows = np.triu_indices(k)
    scale = np.where(rows == columns, 1.0, np.sqrt(0.5))
    index = np.arange(len(rows))
    off = rows != columns
    entries = np.concatenate([scale, scale[off]])
    where = np.concatenate([rows * k + columns, (columns * k + rows)[off]])
    return sp.csr_matrix((entries, (where, np.concatenate([index, index[off]]))), shape=(k * k, len(rows)))


@dataclass(frozen=True, eq=False)
class OneSidedRows:
    """The rows of a program as A_eq x = b_eq and A_ub x <= b_ub, for solvers without ranged rows.

    eq_rows and ub_rows say which row each came from; ub_sign is -1 where a lower side was negated.
    """

    A_eq: sp.csr_matrix
    b_eq: Vector
    eq_rows: NDArray[np.intp]
    A_ub: sp.csr_matrix
    b_ub: Vector
    ub_rows: NDArray[np.intp]
    ub_sign: Vector

    def row_duals(self, y_eq: Vector, y_ub: Vector, num_rows: int) -> Vector:
        """The duals y (m,) with reduced costs cost - A^T y, from those of the pieces in the same sign
        convention."""
        y = np.zeros(num_rows)
        np.add.at(y, self.eq_rows, y_eq)
        np.add.at(y, self.ub_rows, self.ub_sign * y_ub)
        return y


def one_sided(program: MixedIntegerProgram) -> OneSidedRows:
    """Splits ranged rows; rows with no finite side vanish."""
    equal = program.row_lower == program.row_upper
    eq = np.flatnonzero(equal)
    above = np.flatnonzero(~equal & np.isfinite(program.row_upper))
    below = np.flatnonzero(~equal & np.isfinite(program.row_lower))
    return OneSidedRows(
        A_eq=program.A[eq],
        b_eq=program.row_lower[eq],
        eq_rows=eq,
        A_ub=sp.vstack([program.A[above], -program.A[below]], format="csr"),
        b_ub=np.concatenate([program.row_upper[above], -program.row_lower[below]]),
        ub_rows=np.concatenate([above, below]),
        ub_sign=np.concatenate([np.ones(len(above)), -np.ones(len(below))]),
    )


def _vector(name: str, value: ArrayLike) -> Vector:
    array = np.array(value, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} must be a vector, it has shape {array.shape}")
    if np.isnan(array).any():
        raise ValueError(f"{name} has a NaN at entry {int(np.flatnonzero(np.isnan(array))[0])}")
    return array


def _matrix(value: Any, columns: int) -> sp.csr_matrix:
    matrix = sp.csr_matrix(value, dtype=np.float64, copy=True)
    if matrix.shape[1] != columns:
        raise ValueError(f"A has {matrix.shape[1]} columns but there are {columns} variables")
    if not np.isfinite(matrix.data).all():
        raise ValueError("A must be finite, it has a NaN or an infinity")
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    for part in (matrix.data, matrix.indices, matrix.indptr):
        part.setflags(write=False)
    return matrix


def _ordered(low_name: str, low: Vector, high_name: str, high: Vector, what: str) -> None:
    wrong = np.flatnonzero(low > high)
    if len(wrong):
        j = int(wrong[0])
        raise ValueError(f"{low_name} is above {high_name} at {what} {j}: {low[j]} > {high[j]}")
    if np.isposinf(low).any() or np.isneginf(high).any():
        raise ValueError(f"{low_name} cannot be +inf and {high_name} cannot be -inf")


def _frozen(array: Any) -> Any:
    array.setflags(write=False)
    return array
