"""Iterations of the interior point method on random networks that its constants were not tuned on.

    python -m experiments.semidefinite_random [--count 1000] [--first 0]

Widths 4 to 64 and depths 2 to 10 (linear layers), each at random; every other network is trained for a few steps on
clusters, the others are not; radii 0.02 to 0.5. One line per kind and depth: networks, undecided gates, iterations of
the row that needs most, rows that did not converge, rows that keep the linear bound without being settled by another
row. Exits with 1 if any row needs more than 25 iterations. One thread; the default takes about half an hour.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

import lipcompare
from experiments.data import clusters
from experiments.models import mlp
from experiments.train import Protocol, fit
from lipcompare import Problem
from lipcompare.jacobian import RELAXATIONS
from lipcompare.preactivation import Tightening
from lipcompare.propagation import propagate
from lipcompare.quadratic.bound import sdp_bound

MOST = 25
INPUTS, CLASSES = 8, 4
RADII = (0.02, 0.1, 0.5)


def drawn(seed: int) -> tuple[Problem, dict[str, object]]:
    """The problem of one seed, and what it is."""
    random = np.random.default_rng(seed)
    width, depth = round(4 * 16 ** random.random()), int(random.integers(2, 11))
    trained, eps = seed % 2 == 1, RADII[seed // 2 % len(RADII)]
    torch.manual_seed(seed)
    module = mlp(INPUTS, *[width] * (depth - 1), CLASSES)
    if trained:
        fit(module, clusters(INPUTS, points=2000, classes=CLASSES, seed=seed), Protocol(epochs=20, batch=64, seed=seed))
    network = lipcompare.load(module)
    return Problem.around(network, 0.5, eps), {"trained": trained, "depth": depth, "width": width, "eps": eps}


def measured(seed: int) -> dict[str, object]:
    """One row of the data frame."""
    problem, about = drawn(seed)
    found = propagate(problem, Tightening.CROWN, RELAXATIONS["lbp"], joint=False, memory=2**30)
    begun = time.perf_counter()
    result = sdp_bound(problem.network, found.gates, problem.functionals, found.gradients, problem.norm)
    return about | {
        "seed": seed,
        "gates": int(found.gates.unstable_count[0]),
        "iterations": int(result.iterations.max()),
        "unconverged": int((~result.converged & ~result.pruned & (result.iterations > 0)).sum()),
        "fell_back": int((result.fell_back & (result.iterations > 0)).sum()),
        "seconds": time.perf_counter() - begun,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="networks (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="first seed (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console = Console(stderr=True)
    seeds = range(chosen.first, chosen.first + chosen.count)
    rows = pd.DataFrame([measured(seed) for seed in track(seeds, "networks", console=console)])
    table = Table("trained", "depth", "networks", "gates", "iterations", "most", "unconverged", "keep lbp", "seconds")
    table.title = "Quadratic-gate programs of random networks, means unless said otherwise, one CPU thread"
    for (trained, depth), part in rows.groupby(["trained", "depth"]):
        table.add_row(
            "yes" if trained else "no", str(depth), str(len(part)), f"{part.gates.mean():.1f}",
            f"{part.iterations.mean():.2f}", str(part.iterations.max()), str(part.unconverged.sum()),
            str(part.fell_back.sum()), f"{part.seconds.mean():.3f}",
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    most = int(rows.iterations.max())
    print(f"{len(rows)} networks: at most {most} iterations, mean {rows.iterations[rows.iterations > 0].mean():.2f}; "
          f"{rows.unconverged.sum()} rows unconverged, {rows.fell_back.sum()} keep the linear bound.")  # fmt: skip
    return int(most > MOST)


if __name__ == "__main__":
    sys.exit(main())
