"""Writes a program as a free-format MPS file: columns x0, x1, ..., equalities e0, ..., inequalities u0,
..."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.sparse as sp

from solvers.program import MixedIntegerProgram, OneSidedRows


def write_mps(path: Path, program: MixedIntegerProgram, rows: OneSidedRows) -> None:
    """Numbers are written to the last bit. The offset is left out: readers disagree on its sign."""
    num_eq, num_ub = len(rows.b_eq), len(rows.b_ub)
    names = [f"e{i}" for i in range(num_eq)] + [f"u{i}" for i in range(num_ub)]
    lines = ["NAME model FREE", "ROWS", " N cost"]
    lines += [f" E {name}" for name in names[:num_eq]] + [f" L {name}" for name in names[num_eq:]]
    lines.append("COLUMNS")
    columns = sp.vstack([rows.A_eq, rows.A_ub], format="csc")
    starts, indices, data = columns.indptr.tolist(), columns.indices.tolist(), columns.data.tolist()
    cost = program.cost.tolist()
    # All integer columns first, between one pair of markers.
    for j in np.argsort(~program.integrality, kind="stable").tolist():
        lines.append(f" x{j} cost {cost[j]!r}")
        lines += [f" x{j} {names[indices[k]]} {data[k]!r}" for k in range(starts[j], starts[j + 1])]
    integers = np.flatnonzero(program.integrality)
    if len(integers):
        entries = int(np.diff(columns.indptr)[integers].sum()) + len(integers)
        first = lines.index("COLUMNS") + 1
        lines.insert(first + entries, " M1 'MARKER' 'INTEND'")
        lines.insert(first, " M0 'MARKER' 'INTORG'")
    lines.append("RHS")
    right = np.concatenate([rows.b_eq, rows.b_ub]).tolist()
    lines += [f" rhs {name} {value!r}" for name, value in zip(names, right, strict=True) if value != 0.0]
    lines.append("BOUNDS")
    # Both bounds of every column are written: the defaults for integer columns differ between readers.
    for j, (low, high) in enumerate(zip(program.lower.tolist(), program.upper.tolist(), strict=True)):
        lines.append(f" MI bnd x{j}" if low == -np.inf else f" LO bnd x{j} {low!r}")
        lines.append(f" PL bnd x{j}" if high == np.inf else f" UP bnd x{j} {high!r}")
    lines.append("ENDATA")
    path.write_text("\n".join(lines) + "\n")
