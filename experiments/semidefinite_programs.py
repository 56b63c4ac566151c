"""The semidefinite programs of a problem's rows, for the studies that look at them one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

import lipcompare
from experiments.reference import Case, cases
from experiments.train import CACHE, trained
from lipcompare import Problem
from lipcompare.gates import Coupling
from lipcompare.jacobian import RELAXATIONS
from lipcompare.preactivation import Tightening
from lipcompare.propagation import Propagated, coupled, propagate
from lipcompare.quadratic.patterns import explore
from lipcompare.quadratic.program import GateMaps, SdpData, gate_maps, l1_data
from lipcompare.quadratic.scaling import rescaled


@dataclasses.dataclass(frozen=True, eq=False)
class Programs:
    """Programs of the rows with the largest linear bounds, and the maps that they were made from.

    Attributes:
        place, row: (problems,) example and row of each.
        coupling: what the inputs allow, if that was asked for.
    """

    data: SdpData
    maps: GateMaps
    place: Tensor
    row: Tensor
    coupling: Coupling | None = None


def programs(problem: Problem, most: int, tightening: Tightening = Tightening.CROWN) -> Programs:
    """The programs of the ``most`` rows with the largest linear bounds, for p = inf."""
    found = propagate(problem, tightening, RELAXATIONS["lbp"], joint=False, memory=2**30)
    return _of_rows(problem, found, most, None)


def coupled_programs(problem: Problem, most: int) -> Programs:
    """The same after probing, with what cuts need to know of the inputs."""
    found = propagate(problem, Tightening.CROWN, RELAXATIONS["lbp"], joint=False, memory=2**30)
    probed, coupling = coupled(problem, found, memory=2**30)
    return _of_rows(problem, probed, most, coupling)


def _of_rows(problem: Problem, found: Propagated, most: int, coupling: Coupling | None) -> Programs:
    network, functionals = problem.network, problem.functionals
    maps = gate_maps(network, found.gates, functionals, found.gradients)
    example, row = (found.upper > 0).nonzero(as_tuple=True)
    first = found.upper[example, row].argsort(descending=True)[:most]
    example, row = example[first], row[first]
    data = l1_data(maps, found.gradients, found.upper[example, row], example, row)
    return Programs(rescaled(data, explore(data)), maps, example, row, coupling)


def problems(folder: Path, pattern: str, cache: Path = CACHE) -> Iterator[tuple[str, Problem, float | None]]:
    """Names, problems and, where it is known, the exact constant: reference networks, or one trained on the digits."""
    if (folder / "reference.json").is_file():
        found: Iterator[Case] = cases(folder, pattern)
        for case in found:
            yield case.key, case.problem, case.known.get("exact")
        return
    model = trained("digits_mlp", cache=cache)
    network = lipcompare.load(model.module, input_shape=model.model.input_shape)
    middle = torch.full((1, network.in_size), 0.5, dtype=torch.float64)
    for eps in (0.02, 0.1):
        yield f"digits_mlp@{eps}", Problem.around(network, middle, eps), None
