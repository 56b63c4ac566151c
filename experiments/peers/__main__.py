"""Other programs beside this one: the same problems, one after the other in turn, each in a process of its own.

    python -m experiments.peers [--pairs 'auto_LiRPA' ...] [--repeats 3] [--seconds 60] [--csv peers.csv]

LIPCOMPARE_PEERS names the folder that has the programs (docs/peers.md); what is not there is a row that says so. Each
row is one of ours against one of theirs on one problem, which asks both for the same kind of bound: the values, the
median CPU seconds of the runs on one thread, after imports, a tiny problem and the conversion of the network, the ratio
of these, and the memory of the processes. A value is the largest of all rows, or a radius.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lipcompare_peers.peer import Answer, Failed, NotInstalled, OutOfTime, ask, start, write
from rich.console import Console
from rich.table import Table

import lipcompare
from experiments.peers import PACKAGE
from experiments.reference import DEFAULT_DATA
from experiments.speed import network
from lipcompare import Problem

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two programs that are asked the same.

    Attributes:
        name: of the other one, as its authors call it.
        program, choice: which driver it is, and what that is told.
        ours: what :mod:`experiments.peers.ours` is told.
        kind: of the problems: ``dense``, ``conv``, ``tiny`` (for exact programs), ``norm`` or ``radius``.
    """

    name: str
    program: str
    choice: str
    ours: str
    kind: str


PAIRS = (
    Pair("auto_LiRPA, CROWN", "auto_lirpa", "plain", "lbp tightening=crown", "dense"),
    Pair("auto_LiRPA, CROWN", "auto_lirpa", "plain", "lbp tightening=crown", "conv"),
    Pair("auto_LiRPA, optimised", "auto_lirpa", "optimized", "lbp", "dense"),
    Pair("auto_LiRPA, optimised", "auto_lirpa", "optimized", "lbp", "conv"),
    Pair("the paper's code", "paper_code", "plain", "lbp", "dense"),
    Pair("the paper's code, BaB", "paper_code", "branching", "bab", "dense"),
    Pair("LipMIP", "lipmip_code", "", "exact", "tiny"),
    Pair("LipBaB", "lipbab_code", "", "exact", "tiny"),
    Pair("ExLipBaB", "exlipbab", "", "exact", "tiny"),
    Pair("ECLipsE-Gen-Local CF", "eclipse", "CF", "operator-norm lbp", "norm"),
    Pair("ECLipsE-Gen-Local Acc", "eclipse", "Acc", "operator-norm sdp", "norm"),
    Pair("CROWN radius", "crown", "CROWN", "certify crown", "radius"),
    Pair("CROWN radius, optimised", "crown", "CROWN-Optimized", "certify alpha-crown", "radius"),
)

DENSE = (("mlp3_w32", 0.1), ("mlp3_w128", 0.1), ("mlp_d4_w32", 0.1), ("mlp_d8_w32", 0.3))
TINY = (("mlp_d2_w32", 0.02), ("mlp3_w16", 0.02), ("mlp3_w16", 0.1))
NORM = (("mlp3_w16", 0.1), ("mlp3_w32", 0.3), ("mlp_d4_w32", 0.1))
RADIUS = ("mlp3_w32", "mlp3_w128", "mlp_d4_w32")


def image_network() -> lipcompare.Network:
    """A convolutional network with random weights, about as large as the paper's smallest."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, stride=2), torch.nn.ReLU()]
    module = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(8 * 6 * 6, 10))
    return lipcompare.load(module.double(), input_shape=(1, 16, 16), name="conv8-conv8")


def problems(kind: str, data: Path) -> Iterator[tuple[str, Problem]]:
    """The problems of one kind with their names; without the reference networks, networks of their shapes."""
    if kind == "conv":
        for eps in (2 / 255, 8 / 255):
            yield f"conv8-conv8@{eps:.3g}", Problem.around(image_network(), 0.5, eps)
    elif kind == "radius":
        for name in RADIUS:
            yield name, Problem.around(network(data, name), 0.5, 1.0)
    elif kind == "norm":
        for name, eps in NORM:
            yield f"{name}@{eps}", Problem.around(network(data, name), 0.5, eps, norm=2, ball=2)
    else:
        for name, eps in TINY if kind == "tiny" else DENSE:
            yield f"{name}@{eps}", Problem.around(network(data, name), 0.5, eps)


def ours(problem: Problem, seconds: float, option: str) -> Answer:
    """What this package says, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problem.npz"
        write(problem, path)
        command = [sys.executable, "-W", "ignore", "-m", "experiments.peers.ours"]
        return start(command, [str(ROOT), str(PACKAGE)], ROOT, path, seconds, option)


def measured(pair: Pair, name: str, problem: Problem, repeats: int, seconds: float) -> dict[str, object]:
    """A row: both programs in turn, ``repeats`` times."""
    row: dict[str, object] = {"program": pair.name, "ours": pair.ours, "problem": name, "remark": ""}
    theirs, here = [], []
    for _ in range(repeats):
        here.append(ours(problem, seconds, pair.ours))
        try:
            theirs.append(ask(pair.program, problem, seconds, pair.choice))
        except NotInstalled as error:
            row["remark"] = f"not installed: {error}"
        except Failed as error:
            row["remark"] = f"failed: {error}"
        except OutOfTime:
            row["remark"] = "out of time"
        if row["remark"]:
            break
    for who, answers in (("their", theirs), ("our", here)):
        if answers:
            row[f"{who} value"] = float(np.max(answers[0].values))
            row[f"{who} preparing"] = statistics.median(a.preparing for a in answers)
            row[f"{who} seconds"] = statistics.median(a.seconds for a in answers)
            row[f"{who} MiB"] = max(a.memory for a in answers) >> 20
            row[f"{who} version"] = answers[0].version
    if theirs:
        row["times faster"] = statistics.median(t.seconds / h.seconds for t, h in zip(theirs, here, strict=True))
    return row


def shown(rows: list[dict[str, object]]) -> Table:
    """The rows as a person reads them."""
    table = Table("program", "ours", "problem", box=None)
    for heading in ("their value", "our value", "their s", "our s", "times faster", "their MiB", "our MiB"):
        table.add_column(heading, justify="right")
    table.add_column("remark")
    for row in rows:
        numbers = [
            f"{row[key]:.{digits}g}" if key in row else "-"
            for key, digits in (("their value", 6), ("our value", 6), ("their seconds", 3), ("our seconds", 3),
                                ("times faster", 3), ("their MiB", 4), ("our MiB", 4))
        ]  # fmt: skip
        table.add_row(str(row["program"]), str(row["ours"]), str(row["problem"]), *numbers, str(row["remark"]))
    return table


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", metavar="NAME", help="programs whose names begin so (default: all)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each program on each problem")
    parser.add_argument("--seconds", type=float, default=60.0, help="limit of a run")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the reference networks")
    parser.add_argument("--csv", type=Path, help="write the rows to this file too")
    given = parser.parse_args(arguments)
    console = Console()
    if not console.is_terminal:
        console.width = 180  # of a file, which has no width
    rows = []
    for pair in PAIRS:
        if given.pairs and not pair.name.startswith(tuple(given.pairs)):
            continue
        for name, problem in problems(pair.kind, given.data):
            rows.append(measured(pair, name, problem, given.repeats, given.seconds))
            console.print(shown(rows[-1:]))
            if given.csv:
                pd.DataFrame(rows).to_csv(given.csv, index=False)
    if not rows:
        parser.error(f"no program is called so; known: {', '.join(sorted({pair.name for pair in PAIRS}))}")
    console.print(shown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
