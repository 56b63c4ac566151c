"""What each family of cutting planes gains over the quadratic-gate bound.

    python -m experiments.semidefinite_cuts [--cases mlp3_w32@0.3] [--cuts 600] [--data ../shared/reference]

One line per network and radius: the bound (over the rows that can be the largest) without cuts, with products of signs
and gate chords, with products of chords, and with both; the share of the gap to the exact constant that each closes,
and the seconds. Without the reference networks it takes one trained on the digits.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import lipcompare
from experiments.reference import DEFAULT_DATA
from experiments.semidefinite_programs import Programs, problems, programs
from lipcompare.jacobian.sdp_certificate import certify
from lipcompare.jacobian.sdp_cuts import Family, tighten
from lipcompare.jacobian.sdp_solver import solve

FAMILIES = (Family.SIGN_CHORD, Family.CHORD_CHORD, Family.BOTH)


def bounds(made: Programs, cuts: int) -> list[tuple[float, float]]:
    """(largest bound over the rows, seconds) without cuts and with each family."""
    begun = time.perf_counter()
    solution = solve(made.data)
    plain = certify(made.data, solution.dual) * made.data.scale
    results = [(float(plain.max()), time.perf_counter() - begun)]
    for family in FAMILIES:
        begun = time.perf_counter()
        harder, sharper = tighten(
            made.data, solution, made.maps, made.place, made.row, cuts=cuts, tolerance=1e-4, family=family
        )
        upper = torch.minimum(plain, certify(harder, sharper.dual) * harder.scale)
        results.append((float(upper.max()), time.perf_counter() - begun))
    return results


def cell(upper: float, seconds: float, plain: float, exact: float | None) -> str:
    gap = (
        "" if exact is None or plain <= exact * (1 + 1e-9) else f", {(plain - upper) / (plain - exact):.0%} of the gap"
    )
    return f"{upper:.4f} ({seconds:.2f} s{gap})"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with reference.json and the networks")
    parser.add_argument("--cases", default="mlp", help="only cases whose key contains this")
    parser.add_argument("--cuts", type=int, default=600, help="cuts per row (default: %(default)s)")
    parser.add_argument("--most", type=int, default=150, help="largest number of coordinates (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    table = Table("case", "coordinates", "exact", "no cuts", *(family.value for family in FAMILIES))
    table.title = f"{chosen.cuts} cuts on every row that can be the largest, one CPU thread"
    for key, problem, exact in problems(chosen.data, chosen.cases):
        # Only rows whose bound without cuts reaches the best one's lower end can matter.
        full = lipcompare.bound(problem, "sdp", all_rows=True, tightening="crown")
        rows = int((full.upper[0] >= 0.9 * full.upper[0].max()).sum())
        made = programs(problem, problem.rows)
        if made.data.size > chosen.most:
            continue
        best = torch.tensor(full.upper[0])[made.row].argsort(descending=True)[:rows]
        made = Programs(made.data.select(best), made.maps, made.place[best], made.row[best])
        results = bounds(made, chosen.cuts)
        plain = results[0][0]
        cells = [cell(upper, seconds, plain, exact) for upper, seconds in results[1:]]
        first = f"{plain:.4f} ({results[0][1]:.2f} s)"
        table.add_row(key, str(made.data.size), "" if exact is None else f"{exact:.4f}", first, *cells)
    Console(width=None if sys.stdout.isatty() else 170).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
