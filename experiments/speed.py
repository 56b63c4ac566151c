"""Speed of the linear bound on one CPU thread, in paired runs, against the targets of the project.

    python -m experiments.speed [--data ../shared/reference] [--repeats 30]

Every entry is timed in turn, round after round, so that a disturbance of the machine hits all of them; the table shows
the median, which the targets are held against, and the quickest run. Without the reference networks, networks of the
same shapes with random weights are timed. Exits with 1 on a miss.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import lipcompare
from experiments.models import mlp
from experiments.reference import DEFAULT_DATA
from lipcompare import Network, Problem


def network(data: Path, name: str, width: int) -> Network:
    """A reference network, or one of its shape with random weights."""
    path = data / f"{name}.npz"
    if path.exists():
        return lipcompare.load(path)
    torch.manual_seed(0)
    return lipcompare.load(mlp(16, width, width, 10), input_shape=(16,))


def entries(data: Path) -> list[tuple[str, float, Callable[[], object]]]:
    """(description, target in milliseconds, what is timed)."""
    wide = Problem.around(network(data, "mlp3_w128", 128), 0.5, 0.1)
    centers = torch.rand(100, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    many = Problem.around(network(data, "mlp3_w32", 32), centers, 0.1)
    return [
        ("mlp3_w128 at 0.1, ten rows, plain CROWN", 10, lambda: lipcompare.bound(wide, "lbp", tightening="crown")),
        ("mlp3_w128 at 0.1, ten rows, optimised slopes", 150, lambda: lipcompare.bound(wide, "lbp")),
        ("100 boxes of mlp3_w32 at 0.1, ten rows each, plain CROWN", 40,
         lambda: lipcompare.bound(many, "lbp", tightening="crown")),
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    timed = entries(arguments.data)
    for _, _, work in timed:
        work()
    seconds: list[list[float]] = [[] for _ in timed]
    for _ in range(arguments.repeats):
        for times, (_, _, work) in zip(seconds, timed, strict=True):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
    table = Table("what", "median ms", "quickest ms", "target ms", "result", title="lbp, one CPU thread, float64")
    misses = 0
    for (what, target, _), times in zip(timed, seconds, strict=True):
        median, quickest = 1e3 * statistics.median(times), 1e3 * min(times)
        misses += median > target
        verdict = "pass" if median <= target else "MISS"
        table.add_row(what, f"{median:.1f}", f"{quickest:.1f}", f"{target:g}", verdict)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
