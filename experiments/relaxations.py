"""How tight each relaxation is, and what it costs, as networks get deeper, wider, and boxes larger.

python -m experiments.relaxations
python -m experiments.relaxations --reference ../shared/reference --time-limit 60

With the reference networks it sweeps depth (2 to 8 layers of 32), width (16 to 128 in two hidden layers) and radius;
without them it makes small random networks. Branch and bound proves exact values where the time is enough, beside those
that the reference data know. Then: python -m figures.relaxation_sweeps
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console

import lipcompare
from experiments.study import Choices, main
from lipcompare import Network, Problem
from lipcompare.network import Activate, Affine, Input, Node, relu
from lipcompare.network.linear_maps import Dense
from lipcompare.store.database import Label
from lipcompare.study.run import Setting, Study, Task

NAME = "relaxations"
RADII = (0.02, 0.1, 0.3)
EXACT = "exact"
"""The series whose cells are there for the exact values."""


def settings(cuts: int) -> list[Setting]:
    """What is compared, and what proves exact values."""
    plain = [Setting(name, series=name) for name in ("naive", "ibp", "recurjac", "lbp", "lp", "lipsdp", "sdp")]
    return [*plain, Setting("sdp", {"cuts": cuts}, series="sdp+cuts"), Setting("bab", series=EXACT)]


def reference_cases(folder: Path) -> Iterator[Task]:
    """The reference networks, with their exact values where those are known."""
    known = json.loads((folder / "reference.json").read_text())
    for key, values in sorted(known.items()):
        name, eps = key.split("@")
        facts = {"exact": float(values["exact"])} if values.get("exact") is not None else {}
        yield _case(name, lipcompare.load(folder / f"{name}.npz"), float(eps), facts)


def random_cases() -> Iterator[Task]:
    """Small random networks for a checkout without reference data."""
    shapes = [(depth, 12) for depth in (2, 3, 4, 5)] + [(3, width) for width in (8, 16, 24)]
    for depth, width in shapes:
        for eps in RADII:
            yield _case(f"random_d{depth}_w{width}", random_network(depth, width, seed=depth * width), eps)


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


def _case(name: str, network: Network, eps: float, facts: Mapping[str, Label] | None = None) -> Task:
    sizes = [network.nodes[k].size for k in network.activations]
    labels: dict[str, Label] = {"model": name, "depth": len(sizes) + 1, "width": max(sizes), "eps": eps}
    return Task(Problem.around(network, 0.5, eps), labels, facts or {})


def studies(chosen: Choices, console: Console) -> Sequence[Study]:
    """Every network at every radius by every relaxation; 200 cuts in a reduced run, 600 in a full one."""
    tasks = list(random_cases() if chosen.reference is None else reference_cases(chosen.reference))
    wanted = chosen.settings(settings(600 if chosen.full else 200))
    return [Study(NAME, tasks, wanted, chosen.limits(2.0), chosen.device)]


if __name__ == "__main__":
    sys.exit(main(studies, __doc__))
