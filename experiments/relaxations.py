"""How tight each relaxation is, and what it costs, as networks get deeper, wider, and boxes larger.

    python -m experiments.relaxations [--data ../shared/reference] [--out results/relaxations.csv]
                                      [--methods ibp,lbp] [--cuts 600] [--time-limit 60] [--lipsdp 96] [--random]

One line per network, radius and method: the certified upper bound (the largest over the rows), the seconds it took on
one thread, and the exact value where it is known. With the reference networks it sweeps depth (2 to 8 layers of 32),
width (16 to 128 in two hidden layers) and radius; without them, or with --random, it makes small random networks and
proves their exact values by branch and bound where --exact seconds are enough.
``python -m figures.relaxation_sweeps`` draws the table.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

import lipcompare
from lipcompare import Network, Problem, Status
from lipcompare.methods import METHODS, Method, get
from lipcompare.methods.bab import Bab
from lipcompare.methods.sdp import Sdp
from lipcompare.network import Activate, Affine, Input, Node, relu
from lipcompare.network.linear_maps import Dense

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "reference"
OUT = Path("results") / "relaxations.csv"
COLUMNS = ("network", "depth", "width", "eps", "method", "upper", "seconds", "exact", "status")
RADII = (0.02, 0.1, 0.3)


@dataclasses.dataclass(frozen=True)
class Case:
    """A problem of the sweep; ``exact`` is None where nobody has proved it."""

    name: str
    depth: int
    width: int
    eps: float
    problem: Problem
    exact: float | None


def reference_cases(folder: Path) -> Iterator[Case]:
    known = json.loads((folder / "reference.json").read_text())
    for key, values in sorted(known.items()):
        name, eps = key.split("@")
        network = lipcompare.load(folder / f"{name}.npz")
        yield _case(name, network, float(eps), values.get("exact"))


def random_cases() -> Iterator[Case]:
    """Small random networks for a checkout without reference data."""
    shapes = [(depth, 12) for depth in (2, 3, 4, 5)] + [(3, width) for width in (8, 16, 24)]
    for depth, width in shapes:
        for eps in RADII:
            yield _case(f"random_d{depth}_w{width}", random_network(depth, width, seed=depth * width), eps, None)


def random_network(depth: int, width: int, seed: int) -> Network:
    """``depth`` linear layers of He's scale, 8 inputs, 4 outputs."""
    random = torch.Generator().manual_seed(seed)
    sizes = [8, *[width] * (depth - 1), 4]
    nodes: list[Node] = [Input(sizes[0])]
    for i in range(depth):
        weight = torch.randn(sizes[i + 1], sizes[i], generator=random, dtype=torch.float64) * (2 / sizes[i]) ** 0.5
        bias = 0.1 * torch.randn(sizes[i + 1], generator=random, dtype=torch.float64)
        nodes.append(Affine((len(nodes) - 1,), (Dense(weight),), bias))
        if i + 1 < depth:
            nodes.append(Activate(len(nodes) - 1, relu(), sizes[i + 1]))
    return Network(tuple(nodes), (8,), (4,))


def _case(name: str, network: Network, eps: float, exact: float | None) -> Case:
    sizes = [network.nodes[k].size for k in network.activations]
    return Case(name, len(sizes) + 1, max(sizes), eps, Problem.around(network, 0.5, eps), exact)


def proved(case: Case, seconds: float) -> Case:
    """The case with its exact value, where that is known or branch and bound proves it in time."""
    if case.exact is not None or not seconds:
        return case
    result = lipcompare.bound(case.problem, Bab(), time_limit=seconds)
    done = result.status is Status.EXACT
    return dataclasses.replace(case, exact=float(result.overall_upper[0])) if done else case


def methods(names: str, cuts: int) -> dict[str, Method]:
    chosen = {name: get(name) for name in names.split(",") if name in METHODS and name != Sdp.name}
    chosen[Sdp.name] = Sdp()
    if cuts:
        chosen[f"{Sdp.name}+cuts"] = Sdp(cuts=cuts)
    return chosen


def measure(case: Case, name: str, method: Method, time_limit: float) -> list[object]:
    """One line of the table."""
    result = lipcompare.bound(case.problem, method, time_limit=time_limit)
    upper, status = float(result.overall_upper[0]), result.status.name
    return [case.name, case.depth, case.width, case.eps, name, upper, result.seconds, case.exact, status]


def _cell(value: object) -> str:
    return f"{value:12.5g}" if isinstance(value, float) else f"{'' if value is None else value:>12}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with reference.json and the networks")
    parser.add_argument("--out", type=Path, default=OUT, help="CSV file for the lines (default: %(default)s)")
    parser.add_argument("--methods", default="naive,ibp,recurjac,lbp,lp,lipsdp", help="what to compare with")
    parser.add_argument("--cuts", type=int, default=600, help="cuts per row of the tightened variant (0: leave it out)")
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds per problem and method")
    parser.add_argument("--lipsdp", type=int, default=96, help="most neurons for lipsdp: its solver keeps no limit")
    parser.add_argument("--random", action="store_true", help="random networks even where there are reference data")
    parser.add_argument(
        "--exact", type=float, default=10.0, help="seconds to prove an unknown exact value in (0: none)"
    )
    parser.add_argument("--cases", default="", help="only networks whose name contains this")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    known = not chosen.random and (chosen.data / "reference.json").is_file()
    cases = reference_cases(chosen.data) if known else random_cases()
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    print("  ".join(f"{c:>12}" for c in COLUMNS))
    with chosen.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for case in cases:
            if chosen.cases not in case.name:
                continue
            if not known:
                case = proved(case, chosen.exact)
            for name, method in methods(chosen.methods, chosen.cuts).items():
                if name == "lipsdp" and case.problem.network.neurons > chosen.lipsdp:
                    continue
                writer.writerow(line := measure(case, name, method, chosen.time_limit))
                file.flush()
                print("  ".join(_cell(value) for value in line), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
