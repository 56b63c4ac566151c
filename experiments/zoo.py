"""Every ONNX network that others trained, through the library in both precisions.

    python -m experiments.zoo --data-root ../shared/data
    python -m experiments.zoo --only sigmoid --methods lbp

Reads ``networks/**/*.onnx`` under the data root, takes a box around an input of each (MNIST's first test image where it
fits and the images are there, else one number everywhere) and prints lower bounds (attack), upper bounds and times.
Every upper bound must lie over the attack's lower bound: the exit code is
1 if one does not, or if a network does not run. For smooth networks a second table says what the joint relaxation of
slope and gradient gains over slope ranges alone. The rows go to a CSV file.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

import lipcompare
from experiments.data import data_root, dataset
from lipcompare import METHODS, Bound, Network, Problem, Status
from lipcompare.errors import InvalidInput, LipcompareError
from lipcompare.methods import Attack, Lbp
from lipcompare.preactivation import Tightening

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


def problems(network: Network, center: float | np.ndarray, where: Setting) -> Iterator[tuple[str, Problem]]:
    """The same question in every precision."""
    for name, dtype in DTYPES.items():
        yield name, Problem.around(network, center, where.eps, dtype=dtype)


def row(path: Path, precision: str, where: Setting, result: Bound) -> dict[str, object]:
    """One line of the table."""
    return {
        "network": path.stem,
        "eps": where.eps,
        "precision": precision,
        "method": result.method,
        "lower": float(result.overall_lower[0]),
        "upper": float(result.overall_upper[0]),
        "seconds": result.seconds,
        "status": result.status.name.lower(),
        "message": result.sentence,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the zoo; the exit code is 1 if anything contradicts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", help="folder with the data (default: $LIPCOMPARE_DATA, else data)")
    parser.add_argument("--only", default="", help="only files whose path holds this word")
    parser.add_argument("--methods", default="lbp,sdp", help="comma-separated (default: %(default)s, if registered)")
    parser.add_argument("--tightening", default="crown", help="of pre-activations (default: %(default)s)")
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds per method (default: %(default)g)")
    parser.add_argument("--attack-limit", type=float, default=5.0, help="seconds per attack (default: %(default)g)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT, help="CSV file (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    root = data_root(chosen.data_root)
    found = files(root, chosen.only)
    if not found:
        print(f"Error: no ONNX files under {root / 'networks'}: name the data root with --data-root.", file=sys.stderr)
        return 2
    console = Console(width=None if sys.stdout.isatty() else 130, highlight=False)
    methods = [lipcompare.methods.get(m) for m in chosen.methods.split(",") if m in METHODS]
    tightened = [
        dataclasses.replace(m, tightening=Tightening(chosen.tightening))  # type: ignore[type-var]
        if any(f.name == "tightening" for f in dataclasses.fields(m))  # type: ignore[arg-type]
        else m
        for m in methods
    ]
    rows: list[dict[str, object]] = []
    failures: list[str] = []
    for path in found:
        where = setting(path)
        try:
            network = lipcompare.load(path)
            center = middle(network, where, root)
            for precision, problem in problems(network, center, where):
                attack = lipcompare.bound(problem, Attack(regions=50), time_limit=chosen.attack_limit)
                rows.append(row(path, precision, where, attack))
                for method in tightened:
                    result = lipcompare.bound(problem, method, time_limit=chosen.time_limit)
                    rows.append(row(path, precision, where, result))
                    tolerance = 1e-9 if precision == "float64" else 1e-3
                    if bool((result.upper < attack.lower * (1 - tolerance)).any()):
                        failures.append(f"{path.stem}, {precision}: {method.name} is under the attack")
                    if result.status is Status.CRASHED:
                        failures.append(f"{path.stem}, {precision}: {result.sentence}")
                console.print(_line(rows, path, precision), soft_wrap=True)
            if not network.piecewise_linear:
                rows.extend(_gain(console, path, network, center, where, chosen.tightening))
        except LipcompareError as error:
            failures.append(f"{path.stem}: {error}")
    console.print(table(rows))
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(chosen.out, index=False)
    console.print(f"{len(found)} networks, {len(rows)} rows in {chosen.out}.")
    for failure in failures:
        console.print(f"FAILED {failure}")
    return 1 if failures else 0


def _line(rows: list[dict[str, object]], path: Path, precision: str) -> str:
    parts = [r for r in rows if r["network"] == path.stem and r["precision"] == precision]
    said = ", ".join(f"{r['method']} {r['lower']:.5g}..{r['upper']:.5g} in {r['seconds']:.2g} s" for r in parts)
    return f"{path.stem} ({precision}): {said}"


def _gain(
    console: Console, path: Path, network: Network, center: float | np.ndarray, where: Setting, tightening: str
) -> Iterator[dict[str, object]]:
    """What the joint relaxation gains on a smooth network, at several radii."""
    for factor in (0.25, 0.5, 1.0, 2.0):
        here = Setting(where.center, where.eps * factor)
        problem = Problem.around(network, center, here.eps)
        both = [lipcompare.bound(problem, Lbp(Tightening(tightening), joint=joint)) for joint in (False, True)]
        plain, joint = both
        for name, result in (("lbp, slope ranges only", plain), ("lbp, joint", joint)):
            yield {**row(path, "float64", here, result), "method": name}
        gain = joint.overall_upper[0] / plain.overall_upper[0]
        looser = bool((joint.upper > plain.upper * (1 + 1e-9)).any())
        ends = f"slope ranges {plain.overall_upper[0]:.6g}, joint {joint.overall_upper[0]:.6g}"
        console.print(
            f"{path.stem}, eps {here.eps:g}: {ends}, ratio {gain:.3f}{', LOOSER' if looser else ''} "
            f"({plain.seconds:.1f} s, {joint.seconds:.1f} s)",
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
