"""How often is a network proved monotone in a feature? The paper's study on Adult.

    python -m experiments.monotonicity --data-root ../shared/data --examples 50
    python -m experiments.monotonicity --synthetic

A 108-512-512-512-2 network predicts whether an income is above 50K. For each test example and each of the six
continuous features the box lets that feature range over [0, 1] and fixes all others; the score of the class >50K is
proved increasing where the lower bound of its derivative is not negative, decreasing where the upper bound is not
positive. Without Adult's files, or with --synthetic, a small table made here takes their place: one feature raises the
score, one lowers it, one does both. Prints the share of examples per feature and method and writes it as a CSV file.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import lipcompare
from experiments.data import Dataset, data_root, dataset
from experiments.models import mlp
from experiments.readers import Split
from experiments.train import CACHE, Protocol, fit, trained
from lipcompare import Box, Network, Norm, Problem
from lipcompare.errors import InvalidInput, LipcompareError
from lipcompare.preactivation import Tightening
from lipcompare.questions import Direction, Monotonicity, monotonicity

CONTINUOUS = 6
METHODS = {
    "ibp": ("ibp", Tightening.CROWN),
    "recurjac": ("recurjac", Tightening.CROWN),
    "lbp": ("lbp", Tightening.CROWN),
    "lbp-alpha": ("lbp", Tightening.ALPHA_CROWN),
}
OUT = Path("results") / "monotonicity.csv"


def synthetic(points: int = 2000, seed: int = 0) -> Dataset:
    """Six features in [0, 1] and a label that rises with the first, falls with the second, and peaks in the third."""
    random = np.random.default_rng(seed)
    x = random.random((points, CONTINUOUS))
    score = 2 * x[:, 0] - 2 * x[:, 1] - 6 * (x[:, 2] - 0.5) ** 2 + 0.5 * x[:, 3] + 0.5
    y = (score + 0.2 * random.standard_normal(points) > 0).astype(np.int64)
    cut = int(0.7 * points)
    names = ("rising", "falling", "peaked", "slightly rising", "unused 1", "unused 2")
    return Dataset("synthetic", Split(x[:cut], y[:cut]), Split(x[cut:], y[cut:]), 2, features=names)


def feature_problem(network: Network, x: np.ndarray, feature: int) -> Problem:
    """The score of the last class over boxes in which one feature ranges over [0, 1]; x is (examples, inputs)."""
    lower = torch.as_tensor(x, dtype=torch.float64).clone()
    upper = lower.clone()
    lower[:, feature], upper[:, feature] = 0.0, 1.0
    score = torch.eye(network.out_size, dtype=torch.float64)[-1:]
    return Problem(network, Box(lower, upper), Norm.INF, score)


def study(
    network: Network, x: np.ndarray, names: Sequence[str], methods: Sequence[str], *, chunk: int, console: Console
) -> pd.DataFrame:
    """Per method and feature the shares of every answer; the answers of two methods must not exclude each other."""
    rows: list[dict[str, Any]] = []
    answers: dict[int, np.ndarray] = {}
    for method in methods:
        bounding, tightening = METHODS[method]
        for feature in range(CONTINUOUS):
            started = time.perf_counter()
            parts: list[Monotonicity] = [
                monotonicity(feature_problem(network, part, feature), [feature], bounding, tightening=tightening)
                for part in np.array_split(x, -(-len(x) // chunk))
            ]
            found = np.concatenate([p.directions[:, 0, 0] for p in parts])
            _consistent(answers.setdefault(feature, found), found)
            shares = {d.name.lower(): float(np.mean([f is d for f in found])) for d in Direction}
            seconds = (time.perf_counter() - started) / len(x)
            rows.append({"method": method, "feature": names[feature], "examples": len(x), **shares, "seconds": seconds})
        console.print(f"{method}: {sum(r['seconds'] for r in rows if r['method'] == method):.3g} s per example")
    return pd.DataFrame(rows)


def _consistent(first: np.ndarray, second: np.ndarray) -> None:
    proved = (Direction.INCREASING, Direction.DECREASING, Direction.CONSTANT)
    for a, b in zip(first, second, strict=True):
        if (a in proved or b in proved) and Direction.NEITHER in (a, b):
            raise lipcompare.Contradiction("Two methods contradict each other about monotonicity: a bug.")


def table(frame: pd.DataFrame) -> Table:
    """Shares in per cent; constants count as neither increasing nor decreasing here."""
    made = Table("method", "feature", "increasing", "decreasing", "constant", "neither", "undecided", "s/example")
    for _, r in frame.iterrows():
        shares = [f"{100 * r[c]:.1f} %" for c in ("increasing", "decreasing", "constant", "neither", "undecided")]
        made.add_row(r["method"], r["feature"], *shares, f"{r['seconds']:.3g}")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", help="folder with the data (default: $LIPCOMPARE_DATA, else data)")
    parser.add_argument("--synthetic", action="store_true", help="use the small table made here")
    parser.add_argument("--examples", type=int, default=50, help="test examples (default: %(default)s)")
    parser.add_argument("--methods", default="ibp,recurjac,lbp", help=f"of {', '.join(METHODS)} (default: %(default)s)")
    parser.add_argument("--chunk", type=int, default=10, help="examples at once (default: %(default)s)")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for trained models (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT, help="CSV file (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    try:
        module, data = _model(chosen.synthetic, chosen.data_root, chosen.cache, console)
        methods = [m.strip() for m in chosen.methods.split(",")]
        unknown = [m for m in methods if m not in METHODS]
        if unknown or chosen.examples < 1 or chosen.chunk < 1:
            raise InvalidInput(f"Give at least one example, and methods of {', '.join(METHODS)}; got {unknown or 0}.")
        x = np.asarray(data.normalised(data.test.x[: chosen.examples]), dtype=np.float64)
        network = lipcompare.load(module, input_shape=x.shape[1:], name=data.name)
        frame = study(network, x, data.features, methods, chunk=chosen.chunk, console=console)
    except LipcompareError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    console.print(table(frame))
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    frame.assign(data=data.name).to_csv(chosen.out, index=False)
    console.print(f"Written to {chosen.out}. Next: python -m figures.monotonicity --data {chosen.out}")
    return 0


def _model(wanted: bool, root: str | None, cache: Path, console: Console) -> tuple[nn.Sequential, Dataset]:
    """Adult's network, or a smaller one on the synthetic table."""
    if not wanted:
        try:
            data = dataset("adult", data_root(root))
        except InvalidInput as error:
            console.print(f"{error} Using the synthetic table instead.")
        else:
            done = trained("adult_mlp", data_root=root, cache=cache)
            console.print(f"adult_mlp (108-512-512-512-2): test accuracy {done.accuracy:.2%}")
            return done.module, data
    data = synthetic()
    torch.manual_seed(0)
    module = mlp(CONTINUOUS, 32, 32, 2)
    fit(module, data, Protocol(epochs=30))
    return module, data


if __name__ == "__main__":
    sys.exit(main())
