"""Positive semidefiniteness: by Cholesky with the margin that makes it a proof, or by exact elimination."""

from __future__ import annotations

import numpy as np

from lipverify.numbers import TINY, Arithmetic, Array, Number


def shift(arithmetic: Arithmetic, matrix: Array) -> Number:
    """A small ``delta`` with ``matrix + delta I`` positive semidefinite, proved; infinity where none was found.

    In floating point the lower triangle is what is meant.
    """
    floats = arithmetic.floats(matrix)
    if not np.isfinite(floats).all():
        return np.inf
    n, identity = len(floats), np.eye(len(floats))
    least = np.linalg.eigvalsh(floats)[0]
    # A Cholesky factorisation of A that runs through proves A + (n + 2) u tr(A) I positive semidefinite (Rump, BIT 46,
    # 2006). The trace of what is factorised is at most this, and adding to the diagonal rounds too: n + 6.
    size = np.abs(np.diag(floats)).sum() + 2 * n * abs(least)
    margin = 1.01 * (n + 6) * 2.0**-53 * size + TINY
    for factor in (1.0, 4.0, 64.0, 1024.0):
        delta = max(0.0, -least) * (1 + 1e-12 * factor) + 4 * factor * margin
        if arithmetic.exact:
            if semidefinite(matrix + arithmetic.array(delta * identity)):
                return arithmetic.array(delta)[()]
            continue
        try:
            np.linalg.cholesky(floats + (delta - margin) * identity)
        except np.linalg.LinAlgError:
            continue
        return np.float64(delta)
    return np.inf


def semidefinite(matrix: Array) -> bool:
    """Whether a rational symmetric matrix is positive semidefinite: LDL' by elimination."""
    rest = matrix.copy()
    for i in range(len(rest)):
        pivot, column = rest[i, i], rest[i + 1 :, i]
        if pivot < 0 or (pivot == 0 and bool((column != 0).any())):
            return False
        if pivot > 0:
            rest[i + 1 :, i + 1 :] = rest[i + 1 :, i + 1 :] - np.outer(column / pivot, column)
    return True
