"""The interior point method against public conic solvers on the same semidefinite programs.

    python -m experiments.semidefinite_solvers [--cases mlp] [--largest 120] [--data ../shared/reference]

For the row with the largest linear bound of each case: Clarabel up to 60 coordinates (it takes minutes beyond), SCS up
to ``--largest``, both through cvxpy. Exits with 1 if a certified bound differs by more than 1e-4 from Clarabel's
optimum or 1e-3 from SCS's. Without the reference networks it takes one trained on the digits.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from experiments.reference import DEFAULT_DATA
from experiments.semidefinite_programs import problems, programs
from lipcompare.quadratic.program import SdpData
from lipcompare.quadratic.solver.certificate import certify
from lipcompare.quadratic.solver.interior_point import solve

cp: Any = importlib.import_module("cvxpy")  # its type hints leave its functions out
CLARABEL = 60
TOLERANCE = {"CLARABEL": 1e-4, "SCS": 1e-3}


def program(data: SdpData) -> Any:
    """The first problem of ``data`` as docs/quadratic-gates.md writes it, in scaled units."""
    at = data.mask[0].nonzero().squeeze(-1)
    columns = data.columns[0][at][:, at].numpy()
    entries = data.entries[0][at][:, data.entry_mask[0]].numpy()
    m = cp.Variable((len(at), len(at)), PSD=True)
    objective = cp.trace(data.cost[0][at][:, at].numpy() @ m)
    objective += cp.sum(cp.sqrt(cp.sum(cp.multiply(entries, m @ entries), axis=0)))
    return cp.Problem(
        cp.Maximize(objective), [2 * cp.sum(cp.multiply(m, columns), axis=0) == data.right[0][at].numpy()]
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with reference.json and the networks")
    parser.add_argument("--cases", default="mlp", help="only cases whose key contains this")
    parser.add_argument("--largest", type=int, default=120, help="largest number of coordinates (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    table = Table(
        "case", "coordinates", "solver", "its optimum", "its seconds", "ours", "our seconds", "difference", ""
    )
    misses = 0
    for key, problem, _ in problems(chosen.data, chosen.cases):
        data = programs(problem, 1).data
        if data.size > chosen.largest:
            continue
        begun = time.perf_counter()
        ours = float((certify(data, solve(data, tolerance=1e-6).dual) * data.scale)[0])
        seconds = time.perf_counter() - begun
        solver = "CLARABEL" if data.size <= CLARABEL else "SCS"
        options = {} if solver == "CLARABEL" else {"eps": 1e-6, "max_iters": 50_000}
        posed = program(data)
        begun = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that the optimum may be inaccurate: the table says so
            theirs = float(posed.solve(solver=solver, **options)) * float(data.scale[0])
        their_seconds = time.perf_counter() - begun
        difference = (ours - theirs) / abs(theirs)
        solved = posed.status in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE) and np.isfinite(theirs)
        agrees = solved and abs(difference) <= TOLERANCE[solver]
        misses += not agrees
        verdict = ("agrees" if agrees else "MISS") + ("" if posed.status == cp.OPTIMAL else f" ({posed.status})")
        table.add_row(key, str(data.size), solver.lower(), f"{theirs:.5f}", f"{their_seconds:.2f}", f"{ours:.5f}",
                      f"{seconds:.3f}", f"{difference:+.1e}", verdict)  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
