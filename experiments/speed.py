"""Speed on one CPU thread, against the targets of the project, or on another device.

    python -m experiments.speed [--data ../shared/reference] [--repeats 30] [--trees 3] [--against CHECKOUT]
    python -m experiments.speed --device cuda

Every entry is timed in turn, round after round, so that a disturbance of the machine hits all of them; the tables show
the median, which the targets are held against, and the quickest run, in CPU seconds, and how many operators of torch a
run calls: small networks take their time for those, and no load of the machine changes their number. Then, ``--trees``
times, how many subdomains a second branch and bound gets done on four networks: the time of a search of 140 subdomains
less that of one of 40, which takes what comes before the search out. Without the reference networks, networks of the
same shapes with random weights are timed. Exits with 1 on a miss.

``--against`` times the code of another checkout of this repository in turn with this one, each in a process of its own,
and shows the median of the ratios instead of targets. ``--device cuda`` has no targets; its seconds are
those of the clock.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode

import lipcompare
from experiments.device import add_device, described, seconds
from experiments.models import mlp
from experiments.reference import DEFAULT_DATA
from lipcompare import Network, Problem

TREES = {  # subdomains a second to reach: twice those of the code before folders, on one quiet thread
    ("mlp3_w32", 0.3): 152,
    ("mlp_d5_w32", 0.1): 82,
    ("mlp_d4_w32", 0.3): 80,
    ("mlp3_w64", 0.3): 46,
}
SHORT, LONG = 40, 140


def network(data: Path, name: str) -> Network:
    """A reference network, or one of its shape with random weights; ``mlp3_w32`` has two hidden layers."""
    path = data / f"{name}.npz"
    if path.exists():
        return lipcompare.load(path)
    kind, width = name.split("_w")
    hidden = [int(width)] * (2 if kind == "mlp3" else int(kind.removeprefix("mlp_d")))
    torch.manual_seed(0)
    return lipcompare.load(mlp(16, *hidden, 10), input_shape=(16,))


Entry = tuple[str, float | None, Callable[[], object]]
"""Description, target in milliseconds (None: no target, for comparison with other revisions), what is timed."""


def entries(data: Path, device: str = "cpu") -> list[Entry]:
    """What is timed."""
    wide = Problem.around(network(data, "mlp3_w128"), 0.5, 0.1, device=device)
    narrow = Problem.around(network(data, "mlp3_w32"), 0.5, 0.1, device=device)
    deep = Problem.around(network(data, "mlp_d8_w32"), 0.5, 0.3, device=device)
    centers = torch.rand(100, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    many = Problem.around(narrow.network, centers, 0.1, device=device)

    def run(problem: Problem, method: str, **options: Any) -> Callable[[], object]:
        return lambda: lipcompare.bound(problem, method, time_limit=float("inf"), **options)

    return [
        ("naive, mlp3_w32", None, run(narrow, "naive")),
        ("ibp, mlp3_w32 at 0.1", None, run(narrow, "ibp")),
        ("lbp, mlp3_w32 at 0.1, plain CROWN", None, run(narrow, "lbp", tightening="crown")),
        ("lbp, mlp3_w128 at 0.1, plain CROWN", 4, run(wide, "lbp", tightening="crown")),
        ("lbp, mlp3_w128 at 0.1, optimised slopes", 25, run(wide, "lbp")),
        ("ibp, 100 boxes of mlp3_w32 at 0.1", None, run(many, "ibp")),
        ("lbp, 100 boxes of mlp3_w32 at 0.1, plain CROWN", 20, run(many, "lbp", tightening="crown")),
        ("lbp, 100 boxes of mlp3_w32 at 0.1, optimised slopes", 100, run(many, "lbp")),
        ("sdp, mlp_d8_w32 at 0.3", 600, run(deep, "sdp")),
    ]


class Calls(TorchDispatchMode):
    """Counts the operators that are called inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def calls(work: Callable[[], object]) -> int:
    """Operators of torch that a piece of work calls."""
    with Calls() as counted:
        work()
    made: int = counted.count
    return made


def rate(problem: Problem) -> float:
    """Subdomains that branch and bound gets done in a second."""

    def search(nodes: int) -> Callable[[], object]:
        return lambda: lipcompare.bound(problem, "bab", node_limit=nodes, attack_seconds=0.2, time_limit=float("inf"))

    device = problem.device.type
    return (LONG - SHORT) / (seconds(search(LONG), device) - seconds(search(SHORT), device))


def serve(data: Path) -> None:
    """Answers every number of an entry that comes in with the milliseconds that it takes, or after a minus with its
    calls of operators."""
    timed = entries(data)
    for line in sys.stdin:
        work = timed[int(line.lstrip("-"))][2]
        print(calls(work) if line.startswith("-") else 1e3 * seconds(work, "cpu"), flush=True)


def started(checkout: Path, data: Path) -> subprocess.Popen[str]:
    """A process that times the code of a checkout."""
    command = [sys.executable, str(Path(__file__).resolve()), "--serve", "--data", str(data.resolve())]
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve())}
    return subprocess.Popen(  # noqa: S603  # our own
        command, cwd=checkout, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def compare(checkout: Path, data: Path, repeats: int, console: Console) -> None:
    """Both revisions in turn."""
    both = [started(where, data) for where in (checkout, Path(__file__).parents[1])]

    def ask(process: subprocess.Popen[str], number: int | str) -> float:
        assert process.stdin is not None and process.stdout is not None
        print(number, file=process.stdin, flush=True)
        return float(process.stdout.readline())

    title = f"One CPU thread, float64, ten rows, medians: {checkout}, and here"
    table = Table("what", "there ms", "here ms", "ratio", "there calls", "here calls", title=title)
    for number, (what, _, _) in enumerate(entries(data)):
        pairs = [[ask(process, number) for process in both] for _ in range(repeats + 1)][1:]  # the first warms up
        before, here = (statistics.median(times) for times in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        counts = [f"{ask(process, f'-{number}'):,.0f}" for process in both]
        table.add_row(what, f"{before:.1f}", f"{here:.1f}", f"{ratio:.2f}", *counts)
    for process in both:
        process.communicate()
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--trees", type=int, default=3)
    parser.add_argument("--against", type=Path, help="another checkout, timed in turn with this one")
    add_device(parser)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console, misses = Console(width=None if sys.stdout.isatty() else 120), 0
    if arguments.serve:
        serve(arguments.data)
        return 0
    if arguments.against is not None:
        compare(arguments.against, arguments.data, arguments.repeats, console)
        return 0
    device = arguments.device
    timed = entries(arguments.data, device)
    for _, _, work in timed:
        work()
    taken: list[list[float]] = [[] for _ in timed]
    for _ in range(arguments.repeats):
        for times, (_, _, work) in zip(taken, timed, strict=True):
            times.append(1e3 * seconds(work, device))
    title = f"{described(device)}, float64, ten rows"
    table = Table("what", "median ms", "quickest ms", "target ms", "result", "calls", title=title)
    for (what, target, work), times in zip(timed, taken, strict=True):
        median = statistics.median(times)
        target = target if device == "cpu" else None
        missed = target is not None and median > target
        verdict = "-" if target is None else "MISS" if missed else "pass"
        misses += missed
        goal = "-" if target is None else f"{target:g}"
        table.add_row(what, f"{median:.1f}", f"{min(times):.1f}", goal, verdict, f"{calls(work):,}")
    console.print(table)
    if arguments.trees:
        table = Table("bab", "median a second", "most a second", "target", "result", title="Subdomains")
        problems = {k: Problem.around(network(arguments.data, k[0]), 0.5, k[1], device=device) for k in TREES}
        rates = {key: [rate(problem) for _ in range(arguments.trees)] for key, problem in problems.items()}
        for (name, eps), wanted in TREES.items():
            found = rates[name, eps]
            median = statistics.median(found)
            missed = device == "cpu" and median < wanted
            misses += missed
            goal, verdict = ("-", "-") if device != "cpu" else (f"{wanted}", "MISS" if missed else "pass")
            table.add_row(f"{name} at {eps:g}", f"{median:.0f}", f"{max(found):.0f}", goal, verdict)
        console.print(table)
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
