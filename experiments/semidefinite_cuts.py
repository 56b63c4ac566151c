"""What each family of cutting planes gains over the quadratic-gate bound.

    python -m experiments.semidefinite_cuts [--cases mlp3_w32@0.3] [--cuts 600] [--data ../shared/reference]

One line per network and radius: the bound (over the rows that can be the largest) without cuts; after probing, which
decides some gates; with products of signs, with products of gate chords, with states that exclude each other, with the
forward pass in the program, and with all of them. Each with the share of the gap to the exact constant that it closes,
and the seconds. Without the reference networks it takes one trained on the digits.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import lipcompare
from experiments.reference import DEFAULT_DATA
from experiments.semidefinite_programs import Programs, coupled_programs, problems, programs
from lipcompare import Network
from lipcompare.quadratic.cuts.separation import CutFamily, tighten
from lipcompare.quadratic.solver.certificate import certify
from lipcompare.quadratic.solver.interior_point import solve

FAMILIES = {
    "signs": CutFamily.SIGN,
    "chords": CutFamily.CHORD,
    "conflicts": CutFamily.CONFLICT,
    "forward pass": CutFamily.FORWARD,
    "all": CutFamily.ALL,
}


def bounds(plain: Programs, probed: Programs, network: Network, cuts: int) -> Iterator[tuple[float, float]]:
    """(largest bound over the rows, seconds) without cuts, after probing and with each family."""
    for made in (plain, probed):
        begun = time.perf_counter()
        solution = solve(made.data)
        upper = certify(made.data, solution.dual) * made.data.scale
        yield float(upper.max()), time.perf_counter() - begun
    for family in FAMILIES.values():
        begun = time.perf_counter()
        found = tighten(
            made.data, solution, made.maps, made.place, made.row, cuts=cuts, tolerance=1e-4, family=family,
            network=network, coupling=made.coupling,
        )  # fmt: skip
        yield float(torch.minimum(upper, found.upper).max()), time.perf_counter() - begun


def of_rows(made: Programs, rows: Tensor) -> Programs:
    """The programs of some rows of the only example."""
    index = (made.row == rows.unsqueeze(-1)).nonzero()[:, 1]
    return dataclasses.replace(made, data=made.data.select(index), place=made.place[index], row=made.row[index])


def cell(upper: float, seconds: float, plain: float, exact: float | None) -> str:
    gap = "" if exact is None or plain <= exact * (1 + 1e-9) else f", {(plain - upper) / (plain - exact):.0%}"
    return f"{upper:.4f} ({seconds:.2f} s{gap})"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with reference.json and the networks")
    parser.add_argument("--cases", default="mlp", help="only cases whose key contains this")
    parser.add_argument("--cuts", type=int, default=600, help="cuts per row (default: %(default)s)")
    parser.add_argument("--most", type=int, default=150, help="largest number of coordinates (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    table = Table("case", "coordinates", "exact", "no cuts", "probed", *FAMILIES)
    table.title = f"at most {chosen.cuts} cuts on every row that can be the largest, one CPU thread"
    for key, problem, exact in problems(chosen.data, chosen.cases):
        full = lipcompare.bound(problem, "sdp", all_rows=True, tightening="crown")
        least = lipcompare.bound(problem, "attack", time_limit=1.0).overall_lower[0]
        rows = torch.tensor(full.upper[0] >= least).nonzero().squeeze(-1)
        plain, probed = (of_rows(make(problem, problem.rows), rows) for make in (programs, coupled_programs))
        if plain.data.size > chosen.most:
            continue
        (first, seconds), *others = bounds(plain, probed, problem.network, chosen.cuts)
        cells = [cell(upper, spent, first, exact) for upper, spent in others]
        known = "" if exact is None else f"{exact:.4f}"
        table.add_row(key, str(plain.data.size), known, f"{first:.4f} ({seconds:.2f} s)", *cells)
    Console(width=None if sys.stdout.isatty() else 190).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
