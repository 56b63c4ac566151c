"""What a bound costs as networks grow: seconds of the processor and peak memory, with fitted powers.

    python -m experiments.scaling [--methods ibp,lbp,...] [--axes width,image,...] [--seconds 60] [--figure scaling.pdf]

Networks have random weights; one size is varied at a time. Every point is a process of its own, one thread, float64, so
that its peak memory is its own; what importing takes and a first bound of tiny networks, which loads what a method
needs, is left out of both. A power is the slope of the logarithms over the larger half of the points, where what does
not grow counts least. A point that the time limit stopped counts with the time it took and is marked. With ``--device
cuda`` all points run in one process, each twice: seconds are those of the clock for the second run, as the first loads
kernels, and memory is that of the device.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import lipcompare
from experiments.device import add_device, clock, described, peak_bytes
from experiments.models import cnn, mlp
from lipcompare import Problem


class Axis(NamedTuple):
    """A size that is varied, and the problem of each value."""

    values: tuple[int, ...]
    build: Callable[[int], Problem]


class Point(NamedTuple):
    """What one run took."""

    value: int
    seconds: float
    bytes: float
    complete: bool


def dense(width: int = 64, depth: int = 3, classes: int = 10, batch: int = 1) -> Problem:
    """Boxes of radius 0.05 for a fully connected network with 16 inputs."""
    torch.manual_seed(0)
    network = lipcompare.load(mlp(16, *(width,) * (depth - 1), classes), input_shape=(16,))
    centers = torch.rand(batch, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Problem.around(network, centers, 0.05)


def image(side: int = 12, channels: int = 8, layers: int = 2, classes: int = 10) -> Problem:
    """A box of radius 0.01 for a convolutional network with a hidden dense layer."""
    torch.manual_seed(0)
    shape = (3, side, side)
    network = lipcompare.load(cnn(shape, (channels,) * layers, (64, classes), padding=1), input_shape=shape)
    return Problem.around(network, 0.5, 0.01)


AXES = {
    "width": Axis((32, 64, 128, 256), lambda n: dense(width=n)),
    "depth": Axis((2, 4, 6, 8), lambda n: dense(depth=n)),
    "batch": Axis((1, 10, 100, 1000), lambda n: dense(width=32, batch=n)),
    "classes": Axis((5, 20, 80, 320), lambda n: image(classes=n)),
    "image": Axis((8, 12, 16, 24, 32), lambda n: image(side=n)),
    "channels": Axis((4, 8, 16, 32), lambda n: image(channels=n)),
    "layers": Axis((1, 2, 3, 4), lambda n: image(layers=n)),
}


def measure(axis: str, value: int, method: str, seconds: float, device: str) -> Point:
    """One point: on the processor in a process of its own, as no other way tells what it took of the memory."""
    if device != "cpu":
        found = run_one(axis, value, method, seconds, device)
        return Point(value, found["seconds"], found["bytes"], bool(found["complete"]))
    command = [sys.executable, "-m", "experiments.scaling", "--one", axis, str(value), method, str(seconds)]
    done = subprocess.run([*command, "--device", device], check=True, capture_output=True, text=True)  # noqa: S603
    found = json.loads(done.stdout)
    return Point(value, found["seconds"], found["bytes"], found["complete"])


def run_one(axis: str, value: int, method: str, seconds: float, device: str) -> dict[str, float | bool]:
    """Seconds and bytes beyond those of building the problem; on a GPU, of a second run, as the first loads kernels."""
    torch.set_num_threads(1)
    built = AXES[axis].build(value)
    problem = dataclasses.replace(built, box=built.box.to(device, built.dtype))
    if device == "cpu":
        for tiny in (dense(width=4, depth=3, classes=2), image(side=6, channels=1, classes=2)):
            lipcompare.bound(tiny, method, time_limit=seconds)
    else:
        lipcompare.bound(problem, method, time_limit=seconds)
        torch.cuda.reset_peak_memory_stats(device)
    before, start = peak_bytes(device), clock(device)
    bound = lipcompare.bound(problem, method, time_limit=seconds)
    spent = clock(device) - start
    stopped = bound.status is lipcompare.Status.TIME_LIMIT
    return {"seconds": spent, "bytes": peak_bytes(device) - before, "complete": not stopped}


def power(sizes: list[int], costs: list[float]) -> float:
    """Slope of the logarithms over the larger half of the sizes, at least two of them; NaN where nothing was taken."""
    first = min(len(sizes) // 2, len(sizes) - 2)
    pairs = [(n, cost) for n, cost in zip(sizes[first:], costs[first:], strict=True) if cost > 0]
    if len(pairs) < 2:
        return math.nan
    sizes_logs, costs_logs = np.log(np.array(pairs, dtype=float)).T
    return float(np.polyfit(sizes_logs, costs_logs, 1)[0])


def draw(found: dict[tuple[str, str], list[Point]], path: Path) -> None:
    """Seconds and memory against every size, logarithmic."""
    from matplotlib import pyplot

    axes = list(dict.fromkeys(axis for axis, _ in found))
    figure, grid = pyplot.subplots(2, len(axes), figsize=(2.4 * len(axes), 4.6), squeeze=False)
    for (axis, method), points in found.items():
        column = axes.index(axis)
        sizes = [p.value for p in points]
        for row, costs in enumerate(([p.seconds for p in points], [max(p.bytes, 1.0) / 2**20 for p in points])):
            grid[row][column].loglog(sizes, costs, marker="o", markersize=3, label=method)
        grid[1][column].set_xlabel(axis)
    grid[0][0].set_ylabel("seconds")
    grid[1][0].set_ylabel("MiB")
    grid[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="ibp,recurjac,lbp,sdp", help="names of methods, separated by commas")
    parser.add_argument("--axes", default=",".join(AXES), help="what is varied, separated by commas")
    parser.add_argument("--seconds", type=float, default=60.0, help="time limit of each point")
    parser.add_argument("--figure", type=Path, help="file to draw the curves to")
    add_device(parser)
    parser.add_argument("--one", nargs=4, metavar=("AXIS", "VALUE", "METHOD", "SECONDS"), help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.one:
        axis, value, method, seconds = chosen.one
        print(json.dumps(run_one(axis, int(value), method, float(seconds), chosen.device)))
        return 0
    found: dict[tuple[str, str], list[Point]] = {}
    heads = ("varied", "method", "seconds", "MiB", "power of time", "power of memory")
    table = Table(*heads, title=described(chosen.device))
    for axis in chosen.axes.split(","):
        for method in chosen.methods.split(","):
            points = []
            for value in AXES[axis].values:
                points.append(measure(axis, value, method, chosen.seconds, chosen.device))
                took = f"{points[-1].seconds:.3g} s, {points[-1].bytes / 2**20:.0f} MiB"
                print(f"{method}, {axis} {value}: {took}", file=sys.stderr)  # should the rest be stopped
            found[axis, method] = points
            sizes = [p.value for p in points]
            table.add_row(
                axis,
                method,
                "  ".join(f"{p.value}: {p.seconds:.3g}{'' if p.complete else ' (stopped)'}" for p in points),
                "  ".join(f"{p.bytes / 2**20:.0f}" for p in points),
                f"{power(sizes, [p.seconds for p in points]):.2f}",
                f"{power(sizes, [p.bytes for p in points]):.2f}",
            )
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    if chosen.figure:
        draw(found, chosen.figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
