"""Exact constants of small networks that others trained: LipBaB's published values, ACAS Xu and two policies.

    python -m experiments.controllers --data-root ../shared/data

Reads ``networks/`` under the data root: LipBaB's two networks with their published operator norms (Linf by ``bab`` and
``lipbab``, L1 and L2 by ``lipbab``); the collision avoidance network ACAS Xu 1_1 over a box of radius 0.05 about the
centre of property 3's box; and the policies ``cartpole`` and ``lunarlander`` over radius 0.1 about the origin. Prints
the interval that is proved in the time limit, to a relative gap of 1e-3 (LipBaB: to the digits that were printed). The
exit code is 1 if a published constant lies outside an interval.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

import lipcompare
from experiments.data import data_root
from lipcompare import Bound, Problem
from lipcompare.cli.vnnlib import read_vnnlib
from lipcompare.methods import Bab, Method
from lipcompare.methods.lipbab import LipBab, lipbab_operator_norm

OUT = Path("results") / "controllers.csv"


@dataclasses.dataclass(frozen=True)
class Published:
    """A network of LipBaB's over the box ``[0, upper]``, with its operator norms as printed, by norm."""

    name: str
    upper: float
    constants: dict[str, float]
    digits: int


LIPBAB = (
    Published("sdnet_10_20_15_10_3", 0.1, {"2": 40.0565, "1": 48.0490, "inf": 72.2857}, 4),
    Published("iris_4_5_5_3", 1.0, {"2": 6.77145, "1": 5.95805, "inf": 12.60509}, 5),
)


def published(root: Path, time_limit: float) -> Iterator[dict[str, object]]:
    """The constants of LipBaB's networks; the Linf norm is the largest row, so that ``bab`` has it as well."""
    for net in LIPBAB:
        network = lipcompare.load(root / "networks" / "lipbab" / f"{net.name}.npz")
        for norm, constant in net.constants.items():
            problem = Problem.around(network, net.upper / 2, net.upper / 2, norm=norm)
            gap = 0.1 * 10.0**-net.digits / constant
            began = time.perf_counter()
            norms = lipbab_operator_norm(problem, time_limit=time_limit, gap=gap)
            stopped = f"{norms.nodes} regions; search {norms.stop.value}."
            results = [("lipbab", norms.lower, norms.upper, time.perf_counter() - began, stopped)]
            if norm == "inf":
                results.append(_plain(lipcompare.bound(problem, Bab(), time_limit=time_limit, gap=gap)))
            for result in results:
                agrees = _agrees(result[1], result[2], constant, net.digits)
                line = row(net.name, f"[0, {net.upper:g}]^{network.in_size}", f"L{norm} operator norm", *result)
                yield {**line, "published": f"{constant:.{net.digits}f}", "agrees": agrees}


def _plain(result: Bound) -> tuple[str, float, float, float, str]:
    return (
        result.method,
        float(result.overall_lower[0]),
        float(result.overall_upper[0]),
        result.seconds,
        result.sentence,
    )


def _agrees(low: float, high: float, constant: float, digits: int) -> bool:
    """Whether the interval and what rounds to the printed constant have a point in common."""
    half = 0.5 * 10.0**-digits
    return low <= constant + half * (1 + 1e-6) and constant - half * (1 + 1e-6) <= high


def controllers(root: Path, time_limit: float) -> Iterator[dict[str, object]]:
    """ACAS Xu and the policies, by ``bab``."""
    folder = root / "networks" / "vnncomp"
    box = read_vnnlib(folder / "specs" / "acasxu_prop_3.vnnlib")
    center = ((box.lower + box.upper) / 2)[:1]
    acas = lipcompare.load(folder / "acasxu" / "ACASXU_run2a_1_1_batch_2000.onnx")
    questions = [("ACAS Xu 1_1", "property 3's centre +- 0.05", Problem.around(acas, center, 0.05))]
    for name in ("cartpole", "lunarlander"):
        network = lipcompare.load(folder / "rl_benchmarks" / f"{name}.onnx")
        questions.append((name, "0 +- 0.1", Problem.around(network, 0.0, 0.1)))
    methods: tuple[Method, ...] = (Bab(), LipBab())
    for name, where, problem in questions:
        for method in methods:
            result = lipcompare.bound(problem, method, time_limit=time_limit, gap=1e-3)
            yield row(name, where, "largest row, Linf", *_plain(result))


def row(
    network: str, box: str, quantity: str, method: str, low: float, high: float, seconds: float, sentence: str
) -> dict[str, object]:
    """One line of the table."""
    return {
        "network": network,
        "box": box,
        "quantity": quantity,
        "method": method,
        "lower": low,
        "upper": high,
        "gap": 1 - low / high if high > 0 and math.isfinite(high) else math.nan,
        "published": "",
        "agrees": None,
        "seconds": seconds,
        "status": sentence,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run all of it; the exit code is 1 if a published constant is contradicted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", help="folder with the data (default: $LIPCOMPARE_DATA, else data)")
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds each (default: %(default)s)")
    parser.add_argument("--only", choices=("published", "controllers"), help="one half of it")
    parser.add_argument("--out", type=Path, default=OUT, help="CSV file (default: %(default)s)")
    options = parser.parse_args(arguments)
    root = data_root(options.data_root)
    console = Console(width=None if sys.stdout.isatty() else 120)
    parts = {"published": published, "controllers": controllers}
    lines = []
    for name, part in parts.items():
        if options.only not in (None, name):
            continue
        for line in part(root, options.time_limit):
            lines.append(line)
            what = f"{line['network']} over {line['box']}, {line['quantity']}, {line['method']}: {line['status']}"
            console.print(what, highlight=False, markup=False)
    frame = pd.DataFrame(lines)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(options.out, index=False)
    console.print(_table(frame))
    console.print(f"The rows are in {options.out}.")
    wrong = frame["agrees"].eq(False)
    return int(bool(wrong.any()))


def _table(frame: pd.DataFrame) -> Table:
    table = Table(box=None)
    for name in ("network", "quantity", "method"):
        table.add_column(name, no_wrap=True)
    for name in ("at least", "at most", "gap", "published", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in frame.to_dict("records"):
        table.add_row(
            line["network"], line["quantity"], line["method"], f"{line['lower']:.7g}", f"{line['upper']:.7g}",
            f"{line['gap']:.1e}", line["published"], f"{line['seconds']:.1f} s",
        )  # fmt: skip
    return table


if __name__ == "__main__":
    sys.exit(main())
