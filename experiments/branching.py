"""Branch and bound: interval against time, and subdomains to close, for each bound and each splitting heuristic.

    python -m experiments.branching [--time-limit 60] [--data ../shared/reference] [--out results/branching.csv]

By default the networks are small random ones, made here; ``--data`` takes trained ones. Runs on one thread. Writes one
row per point of every trace, the last of each run with its number of subdomains and status; ``python -m
figures.branching`` draws it. Exits with 1 if two runs exclude each other.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

import lipcompare
from experiments.solver_swap import random_network
from lipcompare import Problem
from lipcompare.methods.bab import Bab, Schedule

WIDTHS = (12, 20)
EPS = 0.5
TRAINED = (("mlp3_w16", 0.3), ("mlp3_w32", 0.3), ("mlp_d4_w32", 0.1), ("mlp3_w64", 0.1))

VARIANTS = {
    "paper: lbp, area, class by class": Bab(bound="lbp", heuristic="area", schedule=Schedule.CLASSES, sweeps=0),
    "lbp, area": Bab(bound="lbp", heuristic="area"),
    "lbp, babsr": Bab(bound="lbp", heuristic="babsr"),
    "lbp, area, no half-spaces": Bab(bound="lbp", heuristic="area", sweeps=0),
    "sdp, area": Bab(bound="sdp", heuristic="area"),
    "sdp, babsr": Bab(bound="sdp", heuristic="babsr"),
    "sdp, moment": Bab(bound="sdp", heuristic="moment"),
    "sdp, moment, cuts near the root": Bab(bound="sdp", heuristic="moment", cuts=300),
    "sdp, moment, no half-spaces": Bab(bound="sdp", heuristic="moment", sweeps=0),
}


def problems(data: Path | None, pattern: str) -> Iterator[tuple[str, Problem]]:
    """Labelled problems, from the easiest to the hardest."""
    if data is None:
        made = [(f"random_w{w}@{EPS:g}", Problem.around(random_network(w), 0.0, EPS)) for w in WIDTHS]
    else:
        made = [(f"{n}@{e:g}", Problem.around(lipcompare.load(data / f"{n}.npz"), 0.5, e)) for n, e in TRAINED]
    yield from ((label, problem) for label, problem in made if pattern in label)


def records(label: str, variant: str, problem: Problem, time_limit: float) -> list[dict[str, Any]]:
    """The trace of one run."""
    result = lipcompare.bound(problem, VARIANTS[variant], time_limit=time_limit)
    points = [
        {"problem": label, "variant": variant, "seconds": p.seconds, "lower": p.lower, "upper": p.upper}
        for p in result.trace
    ]
    end = {"lower": result.overall_lower[0], "upper": result.overall_upper[0], "seconds": result.seconds}
    # The detail begins with the number of subdomains.
    last = {"status": result.status.name.lower(), "nodes": int(result.detail.split()[0]), "time_limit": time_limit}
    return [*points, {"problem": label, "variant": variant, **end, **last}]


def contradictions(frame: pd.DataFrame) -> list[str]:
    """Problems on which two runs prove intervals that exclude each other; it should be empty."""
    ends = frame.groupby("problem").agg(lower=("lower", "max"), upper=("upper", "min"))
    return [str(label) for label, row in ends.iterrows() if row["lower"] > row["upper"] * (1 + 1e-9)]


def main(arguments: list[str] | None = None) -> int:
    """Run every variant on every problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds per run (default: %(default)g)")
    parser.add_argument("--problems", default="", help="only those whose label contains this")
    parser.add_argument("--variants", default="", help="only those whose name contains this")
    parser.add_argument("--data", type=Path, help="folder with trained networks (default: random ones, made here)")
    parser.add_argument("--out", type=Path, default=Path("results/branching.csv"), help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    table = Table("problem", "variant", "lower", "upper", "seconds", "subdomains", "status", title="Branch and bound")
    rows: list[dict[str, Any]] = []
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        for label, problem in problems(chosen.data, chosen.problems):
            for variant in (name for name in VARIANTS if chosen.variants in name):
                rows += records(label, variant, problem, chosen.time_limit)
                pd.DataFrame(rows).to_csv(chosen.out, index=False)  # what is done survives an interruption
                end = rows[-1]
                numbers = (f"{end['lower']:.5f}", f"{end['upper']:.5f}", f"{end['seconds']:.2f}", str(end["nodes"]))
                table.add_row(label, variant, *numbers, end["status"])
    except KeyboardInterrupt:
        console.print("Interrupted; what was done is kept.")
    console.print(table)
    wrong = contradictions(pd.DataFrame(rows)) if rows else []
    for label in wrong:
        console.print(f"CONTRADICTION on {label}")
    console.print(f"Written to {chosen.out}; {len(wrong)} contradictions.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
