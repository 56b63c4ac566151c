"""What files that promise much take to be refused, and what a run takes beyond its budget.

    python -m experiments.memory [--run-seconds 10]

Every line is a process of its own, which has loaded everything before; memory is its peak on top of that. Files have to
be refused in one sentence within 1 GiB. Runs on a large network with a budget of 64 MiB, with all 200 functionals and
with ten, have to be refused in one sentence or to keep it, but for what the libraries underneath take once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import gzip
import os
import resource
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime  # noqa: F401  # what reading needs is loaded before anything is measured
import torch
from onnx import helper
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import lipcompare
from experiments import large
from lipcompare import Problem
from lipcompare.cli.vnnlib import read_vnnlib
from lipcompare.errors import LipcompareError

BUDGET = 2**26
_FEW = 10
_ONCE = 48
"""MiB that the libraries take when they are first used, whatever for."""


class _Zeros(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.zeros(10, 10).sum()


def _npz(folder: Path) -> Path:
    np.savez_compressed(folder / "zeros.npz", W0=np.zeros((1, 100 << 20)))
    return folder / "zeros.npz"


def _doubled(folder: Path) -> Path:
    """Forty concatenations of a value with itself."""
    nodes = [helper.make_node("Relu", ["x"], ["h0"])]
    nodes += [helper.make_node("Concat", [f"h{k}", f"h{k}"], [f"h{k + 1}"], axis=1) for k in range(40)]
    ends = [helper.make_tensor_value_info(name, 1, shape) for name, shape in (("x", [1, 4]), ("h40", None))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "doubled.onnx")
    return folder / "doubled.onnx"


def _vnnlib(folder: Path) -> Path:
    """A few megabytes that unpack to two gigabytes."""
    path = folder / "long.vnnlib.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(200):
            file.write(b"(declare-const X_0 Real)\n" * 400_000)
    return path


def _archive(folder: Path) -> Path:
    """An exported program that makes a matrix of 10^12 zeros."""
    import zipfile

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(_Zeros(), (torch.zeros(1, 3),)), folder / "small.pt2")
    with zipfile.ZipFile(folder / "small.pt2") as source, zipfile.ZipFile(folder / "huge.pt2", "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("model.json"):
                content = content.replace(b"[10, 10]", b"[1000000, 1000000]")
            target.writestr(name, content)
    return folder / "huge.pt2"


FILES: dict[str, Callable[[Path], Path]] = {
    "1 MB .npz of zeros": _npz,
    ".onnx of 40 doublings": _doubled,
    ".vnnlib.gz of 2 GB": _vnnlib,
    ".pt2 with zeros(1e6, 1e6)": _archive,
}


def _read(path: Path) -> str:
    try:
        (read_vnnlib if path.suffix == ".gz" else lipcompare.load)(path)
    except LipcompareError as error:
        return f"refused: {error}"
    return "read"


def _bounded(problem: Problem, seconds: float) -> str:
    result = lipcompare.bound(problem, "lbp", time_limit=seconds, memory=BUDGET)
    return f"at most {result.overall_upper[0]:.5g}: {result.status.value} {result.detail}"


def measured(work: Callable[[], str]) -> tuple[str, float]:
    """What the work says, and how many MiB it took in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with contextlib.suppress(BaseException), os.fdopen(writing, "w") as pipe:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            pipe.write(f"{pages * resource.getpagesize() / 2**20}\n{work()}")
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        before, _, said = pipe.read().partition("\n")
    _, _, used = os.wait4(child, 0)
    return said, used.ru_maxrss / 1024 - float(before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 if anything took more than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-seconds", type=float, default=10.0, help="limit of the run; 0 leaves it out")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    table = Table("what", "MiB", "said")
    worst, over = 0.0, False
    with tempfile.TemporaryDirectory() as folder:
        for name, make in FILES.items():
            path = make(Path(folder))
            said, memory = measured(functools.partial(_read, path))
            worst = max(worst, memory if said.startswith("refused") else np.inf)
            table.add_row(name, f"{memory:.0f}", said.replace(folder, ""))
    if given.run_seconds:
        whole = large.problem(Path("no folder"), "tiny_cnn6@0.5")
        for rows in (whole.rows, _FEW):
            some = dataclasses.replace(whole, functionals=whole.functionals[:, :rows])
            said, memory = measured(functools.partial(_bounded, some, given.run_seconds))
            over |= memory > _ONCE + BUDGET / 2**20
            table.add_row(f"lbp on tiny_cnn6, {rows} functionals, {BUDGET >> 20} MiB", f"{memory:.0f}", said)
    console.print(table)
    return int(worst > 2**10 or over)


if __name__ == "__main__":
    sys.exit(main())
