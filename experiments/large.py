"""Value against time of the upper bounds on networks for images, at the paper's radii.

    python -m experiments.large [--data ../shared/reference/large] [--cases cifar_cnn4@2,...] [--methods lbp,...]

The radius is in pixels of 255 and divided by the data's deviation; boxes are not clipped. One thread, float64, input 0.
Without the reference networks, networks of the same shapes with random weights are bounded at the same radii around a
random image, which says something of time and nothing of values. A line per point of the trace: seconds, the largest
upper bound; then the processor's seconds and the peak memory of the whole process. With ``--device cuda`` these are
seconds of the clock, and the memory on the device.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import lipcompare
from experiments.device import add_device, clock, described, peak_bytes
from experiments.models import cnn
from experiments.reference import DEFAULT_DATA
from experiments.study import guarded
from lipcompare import Network, Problem
from lipcompare.errors import InvalidInput, nearest


class Shape(NamedTuple):
    """A reference network's architecture, and the deviation of the data that it takes."""

    image: tuple[int, int, int]
    channels: tuple[int, ...]
    hidden: tuple[int, ...]
    kernel: int
    stride: int
    padding: int
    deviation: float


SHAPES = {
    "cifar_cnn4": Shape((3, 32, 32), (32, 32), (256, 10), 3, 1, 0, 0.2009),
    "cifar_cnn6": Shape((3, 32, 32), (32, 32, 32, 32), (256, 10), 3, 1, 0, 0.2009),
    "tiny_cnn4": Shape((3, 64, 64), (32, 32), (256, 200), 3, 2, 1, 0.22),
    "tiny_cnn6": Shape((3, 64, 64), (32, 32, 32, 32), (256, 200), 3, 2, 1, 0.22),
    "mnist_cnn": Shape((1, 28, 28), (8, 8), (100, 10), 4, 1, 0, 1.0),
}
CASES = ("mnist_cnn@2", "cifar_cnn4@2", "tiny_cnn4@2", "tiny_cnn6@2", "cifar_cnn6@1", "cifar_cnn6@2")


def problem(data: Path, case: str, device: str = "cpu") -> Problem:
    """The case ``NAME@RADIUS``.

    Raises:
        InvalidInput: there is no such case.
    """
    name, _, radius = case.partition("@")
    if name not in SHAPES or not radius:
        raise InvalidInput(f"Unknown case {case!r}: write NAME@RADIUS.{nearest(name, SHAPES)}")
    shape = SHAPES[name]
    path = data / f"{name}.onnx"
    if path.exists():
        network, center = lipcompare.load(path), torch.as_tensor(np.load(data / f"{name}_inputs.npy")[0]).double()
    else:
        network, center = stand_in(shape), torch.rand(shape.image, generator=torch.Generator().manual_seed(0))
    return Problem.around(network, center.double().reshape(1, -1), float(radius) / 255 / shape.deviation, device=device)


def stand_in(shape: Shape) -> Network:
    """A network of that architecture with random weights."""
    torch.manual_seed(0)
    module = cnn(
        shape.image, shape.channels, shape.hidden, kernel=shape.kernel, stride=shape.stride, padding=shape.padding
    )
    return lipcompare.load(module, input_shape=shape.image)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA / "large")
    parser.add_argument("--cases", default=",".join(CASES), help="NAME@RADIUS, separated by commas")
    parser.add_argument("--methods", default="lbp", help="names of methods, separated by commas")
    parser.add_argument("--tightening", default="crown", help="of the methods that have one")
    parser.add_argument("--seconds", type=float, default=100.0, help="time limit of each")
    add_device(parser)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console = Console(width=None if sys.stdout.isatty() else 120)
    for case in chosen.cases.split(","):
        posed = problem(chosen.data, case, chosen.device)
        for method in chosen.methods.split(","):
            options = {"tightening": chosen.tightening} if method in ("lbp", "sdp", "recurjac", "bab") else {}
            start = clock(chosen.device)
            bound = lipcompare.bound(posed, method, time_limit=chosen.seconds, **options)
            spent = clock(chosen.device) - start
            table = Table("seconds", "at least", "at most", title=f"{case}, {method}")
            for point in bound.trace:
                table.add_row(f"{point.seconds:.1f}", f"{point.lower:.6g}", f"{point.upper:.8g}")
            console.print(table)
            peak, where = peak_bytes(chosen.device) / 2**30, described(chosen.device)
            console.print(f"{where}: {spent:.1f} s, {peak:.2f} GiB at most so far; {bound.status.value}")
            if bound.detail:
                console.print(bound.detail)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
