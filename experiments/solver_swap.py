"""The same mixed-integer programs through every solver and every tightening of the pre-activations.

    python -m experiments.solver_swap [--time-limit 5] [--solvers highs,gurobi] [--out results/solver_swap.csv]

Each network contributes one program per tightening: its hardest row (the largest linear bound), without start, cutoff
or any other help, so that only the solver and the big-Ms differ. By default the networks are small random ones of
growing width, made here; ``--data ../shared/reference`` takes trained ones. Runs on one thread. Writes a row per solve
(value, proved bound, seconds, nodes, status) and prints the table; ``python -m figures.solver_swap`` draws it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

import lipcompare
import solvers
from lipcompare import Problem
from lipcompare.network.activations import relu
from lipcompare.network.graph import Activate, Affine, Input, Network, Node
from lipcompare.network.linear_maps import Dense
from lipcompare.programs.preactivation import Refinement, refined_bounds
from lipcompare.programs.prepared import encode_rows, prepare

WIDTHS = (4, 6, 8, 12, 16)
INPUTS, OUTPUTS, EPS = 8, 4, 0.3
TRAINED = (("mlp3_w16", 0.1), ("mlp3_w16", 0.3), ("mlp3_w32", 0.1), ("mlp_d3_w32", 0.1), ("mlp_d5_w32", 0.02))


def random_network(width: int, seed: int = 0) -> Network:
    """A ReLU network 8-w-w-4 with Gaussian weights of variance 2 / fan-in."""
    random = torch.Generator().manual_seed(1000 * seed + width)
    nodes: list[Node] = [Input(INPUTS)]
    sizes = (INPUTS, width, width, OUTPUTS)
    for k in range(3):
        shape = (sizes[k + 1], sizes[k])
        weight = torch.randn(*shape, generator=random, dtype=torch.float64) * (2.0 / sizes[k]) ** 0.5
        bias = 0.3 * torch.randn(sizes[k + 1], generator=random, dtype=torch.float64)
        nodes.append(Affine((len(nodes) - 1,), (Dense(weight),), bias))
        if k < 2:
            nodes.append(Activate(len(nodes) - 1, relu(), sizes[k + 1]))
    return Network(tuple(nodes), (INPUTS,), (OUTPUTS,), f"random_w{width}")


def problems(data: Path | None) -> Iterator[tuple[str, Problem]]:
    """Labelled problems, from the easiest to the hardest."""
    if data is None:
        for width in WIDTHS:
            yield f"random_w{width}@{EPS:g}", Problem.around(random_network(width), 0.0, EPS)
        return
    for name, eps in TRAINED:
        yield f"{name}@{eps:g}", Problem.around(lipcompare.load(data / f"{name}.npz"), 0.5, eps)


def mip_solvers(wanted: str) -> list[solvers.Solver]:
    """The chosen solvers, or every one here that solves mixed-integer programs."""
    if wanted:
        return [solvers.get(name) for name in wanted.split(",")]
    known = [solvers.get(name) for name in solvers.names()]
    return [solver for solver in known if solver.is_available() and solver.capabilities.mip]


def solves(
    chosen: list[solvers.Solver], tightenings: list[Refinement], data: Path | None, time_limit: float
) -> Iterator[dict[str, Any]]:
    """One record per program and solver."""
    highs = solvers.get("highs")
    for label, problem in problems(data):
        for tightening in tightenings:
            began = time.perf_counter()
            bounds = refined_bounds(problem.network, problem.box.interval, tightening, highs)
            prepared = prepare(problem, bounds)
            row = int(prepared.upper.argmax())
            program = encode_rows(prepared, [row]).program
            seconds = time.perf_counter() - began
            for solver in chosen:
                solution = solver.solve(program, solvers.Limits(time_limit=time_limit))
                yield {
                    "problem": label,
                    "tightening": tightening.value,
                    "tightening_seconds": seconds,
                    "row": row,
                    "columns": program.num_variables,
                    "constraints": program.num_rows,
                    "nonzeros": program.A.nnz,
                    "binaries": int(program.integrality.sum()),
                    "linear_bound": float(prepared.upper[row]),
                    "solver": solver.name,
                    "version": solution.version,
                    "value": None if solution.objective is None else -solution.objective,
                    "bound": -solution.dual_bound,
                    "seconds": solution.seconds,
                    "nodes": solution.nodes,
                    "status": solution.status.name.lower(),
                    "time_limit": time_limit,
                }


def agreement(frame: pd.DataFrame) -> list[str]:
    """Problems on which two solvers prove values that exclude each other; it should be empty."""
    wrong = []
    for label, group in frame.groupby("problem"):
        best = group["value"].astype(float).max()
        short = group[group["bound"] < best * (1 - 1e-4) - 1e-4]
        wrong += [f"{label}: {r.solver} proves {r.bound:.6g}, a point has {best:.6g}" for r in short.itertuples()]
    return wrong


def main(arguments: list[str] | None = None) -> int:
    """Run the ablation; 1 if two solvers contradict each other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time-limit", type=float, default=5.0, help="seconds per solve (default: %(default)g)")
    parser.add_argument("--solvers", default="", help="comma-separated (default: every solver of MILPs found here)")
    levels = [r.value for r in Refinement]
    parser.add_argument("--tightenings", default=",".join(levels), help="comma-separated (default: %(default)s)")
    parser.add_argument("--data", type=Path, help="folder with trained networks (default: random ones, made here)")
    parser.add_argument("--out", type=Path, default=Path("results/solver_swap.csv"), help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    tightenings = [Refinement(value) for value in chosen.tightenings.split(",")]

    console = Console(width=None if sys.stdout.isatty() else 130, highlight=False)
    records: list[dict[str, Any]] = []
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    columns = ("problem", "tightening", "binaries", "solver", "value", "bound", "seconds", "nodes", "status")
    table = Table(*columns, title=f"Solver swap, one thread, {chosen.time_limit:g} s per solve")
    try:
        for record in solves(mip_solvers(chosen.solvers), tightenings, chosen.data, chosen.time_limit):
            records.append(record)
            pd.DataFrame(records).to_csv(chosen.out, index=False)  # what is done survives an interruption
            shown = {**record, "seconds": f"{record['seconds']:.2f}", "bound": f"{record['bound']:.5f}"}
            shown["value"] = "none" if record["value"] is None else f"{record['value']:.5f}"
            table.add_row(*(str(shown[column]) for column in columns))
    except KeyboardInterrupt:
        console.print("Interrupted; what was done is kept.")
    console.print(table)
    wrong = agreement(pd.DataFrame(records)) if records else []
    for line in wrong:
        console.print(f"CONTRADICTION {line}")
    console.print(f"{len(records)} solves written to {chosen.out}; {len(wrong)} contradictions.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
