"""Every ONNX network that others trained, through the library in both precisions.

    python -m experiments.zoo --data-root ../shared/data
    python -m experiments.zoo --only sigmoid --methods lbp

Reads ``networks/**/*.onnx`` under the data root, takes a box around an input of each (MNIST's first test image where it
fits and the images are there, else one number everywhere) and prints lower bounds (attack), upper bounds and times.
Every upper bound must lie over the attack's lower bound: the exit code is 1 if one does not, or if a network has none.
Each cell has a process and a time limit; a method that does not stop midway is killed --grace seconds later. For smooth
networks it also says by how much the joint relaxation of slope and gradient is tighter than slope ranges alone. The
rows go to a CSV file.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

import lipcompare
from experiments.data import data_root, dataset
from lipcompare import Network, Problem
from lipcompare.errors import InvalidInput, LipcompareError
from lipcompare.store.database import Record
from lipcompare.study import run as runner
from lipcompare.study.definition import plan
from lipcompare.study.process import CellProcess
from lipcompare.study.run import CellLimits, Study, Task

DTYPES = {"float64": torch.float64, "float32": torch.float32}
OUT = Path("results") / "zoo.csv"


@dataclasses.dataclass(frozen=True)
class Setting:
    """Where a network is looked at: the box of radius ``eps`` around ``center`` (every input)."""

    center: float
    eps: float


# Radii at which the bounds say something. Deep networks need small ones; the sigmoid network amplifies most.
_SETTINGS = {
    "SIGMOID": Setting(0.3, 0.002),
    "acasxu": Setting(0.0, 0.01),
    "tllbench": Setting(0.0, 0.05),
    "mnist": Setting(0.3, 0.01),
    "MNIST": Setting(0.3, 0.01),
    "verivital": Setting(0.3, 0.01),
    "cifar": Setting(0.0, 0.004),
    "oval21": Setting(0.0, 0.004),
    "collins": Setting(0.5, 0.01),
}
_DEFAULT = Setting(0.5, 0.05)


def setting(path: Path) -> Setting:
    """The box for a file, from words in its path."""
    return next((s for word, s in _SETTINGS.items() if word in str(path)), _DEFAULT)


def files(root: Path, only: str) -> list[Path]:
    """The ONNX files under a data root whose path holds a word."""
    folder = root / "networks"
    return [p for p in sorted(folder.rglob("*.onnx")) if only in str(p.relative_to(folder))]


def middle(network: Network, where: Setting, root: Path) -> float | np.ndarray:
    """The input around which a network is looked at."""
    if network.in_size != 784:
        return where.center
    try:
        data = dataset("mnist", root)
    except InvalidInput:
        return where.center
    return data.normalised(data.test.x[:1]).reshape(1, -1)


def problem(network: Network, center: float | np.ndarray, where: Setting, precision: str) -> Problem:
    """The question in one precision."""
    return Problem.around(network, center, where.eps, dtype=DTYPES[precision])


class Bench:
    """Runs cells one after another in a process that is killed where a method does not keep its time limit."""

    def __init__(self, limits: CellLimits) -> None:
        self.limits = limits
        self.process = CellProcess()

    def run(self, question: Problem, chosen: Sequence[runner.Setting]) -> list[Record]:
        """One record per method."""
        made = plan([Study("zoo", [Task(question)], chosen, self.limits)])
        return [self.process.run(cell, made.networks[cell.network_hash]) for cell in made.cells.values()]


def row(path: Path, where: Setting, label: str, record: Record) -> dict[str, object]:
    """One line of the table."""
    return {
        "network": path.stem,
        "eps": where.eps,
        "precision": record.dtype,
        "method": label,
        "lower": record.lower,
        "upper": record.upper,
        "seconds": record.seconds,
        "status": record.status,
        "message": record.message,
    }


def complaints(path: Path, attack: Record, record: Record) -> Iterator[str]:
    """What is wrong with an upper bound."""
    name = f"{path.stem}, {record.dtype}: {record.method}"
    tolerance = 1e-9 if record.dtype == "float64" else 1e-3
    if any(high < low * (1 - tolerance) for low, high in zip(attack.rows_lower, record.rows_upper, strict=False)):
        yield f"{name} is under the attack's lower bound"
    if not np.isfinite(record.upper):
        yield f"{name} has no upper bound: {record.message}"


def main(arguments: list[str] | None = None) -> int:
    """Run the zoo; the exit code is 1 if anything contradicts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", help="folder with the data (default: $LIPCOMPARE_DATA, else data)")
    parser.add_argument("--only", default="", help="only files whose path holds this word")
    parser.add_argument("--methods", default="lbp,sdp", help="upper bounds, comma-separated (default: %(default)s)")
    parser.add_argument("--tightening", default="crown", help="of pre-activations (default: %(default)s)")
    parser.add_argument("--time-limit", type=float, default=120.0, help="seconds per cell (default: %(default)g)")
    parser.add_argument("--grace", type=float, default=60.0, help="seconds more before it is killed (%(default)g)")
    parser.add_argument("--attack-limit", type=float, default=5.0, help="seconds per attack (default: %(default)g)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT, help="CSV file (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    root = data_root(chosen.data_root)
    found = files(root, chosen.only)
    if not found:
        print(f"Error: no ONNX files under {root / 'networks'}: name the data root with --data-root.", file=sys.stderr)
        return 2
    console = Console(width=None if sys.stdout.isatty() else 130, highlight=False)
    attack = runner.Setting("attack", {"regions": 50}, time=chosen.attack_limit)
    methods = [runner.Setting(name, {"tightening": chosen.tightening}) for name in chosen.methods.split(",")]
    began = time.perf_counter()
    rows: list[dict[str, object]] = []
    failures: list[str] = []
    bench = Bench(CellLimits(time=chosen.time_limit, grace=chosen.grace, threads=chosen.threads))
    try:
        for path in found:
            where = setting(path)
            try:
                network = lipcompare.load(path)
            except LipcompareError as error:
                failures.append(f"{path.stem}: {error}")
                continue
            center = middle(network, where, root)
            for precision in DTYPES:
                records = bench.run(problem(network, center, where, precision), [attack, *methods])
                rows += [row(path, where, record.method, record) for record in records]
                for record in records[1:]:
                    failures += complaints(path, records[0], record)
                console.print(_line(path, precision, records), soft_wrap=True)
            if not network.piecewise_linear:
                rows += gain(console, bench, path, network, center, where, chosen.tightening)
    finally:
        bench.process.close()
    console.print(table(rows))
    for r in rows:
        if r["method"] != "attack" and (r["status"] != "complete" or "linear bound" in str(r["message"])):
            console.print(f"{r['network']} ({r['precision']}), {r['method']}: {r['message']}", soft_wrap=True)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(chosen.out, index=False)
    console.print(f"{len(found)} networks, {len(rows)} rows in {chosen.out}, {time.perf_counter() - began:.0f} s.")
    for failure in failures:
        console.print(f"FAILED {failure}", soft_wrap=True)
    return 1 if failures else 0


def _line(path: Path, precision: str, records: Sequence[Record]) -> str:
    said = ", ".join(f"{r.method} {r.lower:.5g}..{r.upper:.5g} in {r.seconds:.2g} s" for r in records)
    return f"{path.stem} ({precision}): {said}"


def gain(
    console: Console,
    bench: Bench,
    path: Path,
    network: Network,
    center: float | np.ndarray,
    where: Setting,
    tightening: str,
) -> Iterator[dict[str, object]]:
    """What the joint relaxation gains on a smooth network over slope ranges, at several radii."""
    both = [runner.Setting("lbp", {"tightening": tightening, "joint": joint}) for joint in (False, True)]
    for factor in (0.25, 0.5, 1.0, 2.0):
        here = Setting(where.center, where.eps * factor)
        plain, joint = bench.run(problem(network, center, here, "float64"), both)
        for name, record in (("lbp, slope ranges only", plain), ("lbp, joint", joint)):
            yield row(path, here, name, record)
        if np.isfinite(plain.upper) and np.isfinite(joint.upper):
            looser = ", LOOSER" if joint.upper > plain.upper * (1 + 1e-9) else ""
            console.print(
                f"{path.stem}, eps {here.eps:g}: slope ranges {plain.upper:.6g}, joint {joint.upper:.6g}: "
                f"{1 - joint.upper / plain.upper:.1%} tighter{looser} ({plain.seconds:.1f} s, {joint.seconds:.1f} s)",
                soft_wrap=True,
            )


def table(rows: list[dict[str, object]]) -> Table:
    """Bounds and times, one line per network and method."""
    made = Table("network", "eps", "precision", "method", "lower", "upper", "seconds", "status")
    for r in rows:
        numbers = [f"{r['lower']:.6g}", f"{r['upper']:.6g}", f"{r['seconds']:.2f}"]
        made.add_row(
            str(r["network"]), f"{r['eps']:g}", str(r["precision"]), str(r["method"]), *numbers, str(r["status"])
        )
    return made


if __name__ == "__main__":
    sys.exit(main())
