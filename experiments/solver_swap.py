"""The same mixed-integer programs through every solver and every tightening of the pre-activations.

python -m experiments.solver_swap
python -m experiments.solver_swap --reference ../shared/reference --time-limit 60

Each network contributes one program per tightening: its hardest row (the largest linear bound), without start, cutoff
or any other help, so that only the solver and the big-Ms differ. By default the networks are small random ones of
growing width, made here; --reference takes trained ones. What a solver says of a program is no proved bound on a
network: value, bound, nodes and sizes are labels of the rows in the results store. Ends with 1 if two solvers
contradict each other. Then: python -m figures.solver_swap
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console

import lipcompare
import solvers
from experiments import measured
from experiments.measured import Measured, Outcome
from experiments.study import Choices
from lipcompare import Problem
from lipcompare.network.activations import relu
from lipcompare.network.graph import Activate, Affine, Input, Network, Node
from lipcompare.network.linear_maps import Dense
from lipcompare.programs.preactivation import Refinement, refined_bounds
from lipcompare.programs.prepared import encode_rows, prepare
from lipcompare.store.database import Label, Store
from lipcompare.study.run import Setting, Study, Task
from solvers.program import Program

NAME = "solver_swap"
WIDTHS = (4, 6, 8, 12, 16)
INPUTS, OUTPUTS, EPS = 8, 4, 0.3
TRAINED = (("mlp3_w16", 0.1), ("mlp3_w16", 0.3), ("mlp3_w32", 0.1), ("mlp_d3_w32", 0.1), ("mlp_d5_w32", 0.02))


def random_network(width: int, seed: int = 0) -> Network:
    """A ReLU network 8-w-w-4 with Gaussian weights of variance 2 / fan-in."""
    random = torch.Generator().manual_seed(1000 * seed + width)
    nodes: list[Node] = [Input(INPUTS)]
    sizes = (INPUTS, width, width, OUTPUTS)
    for k in range(3):
        shape = (sizes[k + 1], sizes[k])
        weight = torch.randn(*shape, generator=random, dtype=torch.float64) * (2.0 / sizes[k]) ** 0.5
        bias = 0.3 * torch.randn(sizes[k + 1], generator=random, dtype=torch.float64)
        nodes.append(Affine((len(nodes) - 1,), (Dense(weight),), bias))
        if k < 2:
            nodes.append(Activate(len(nodes) - 1, relu(), sizes[k + 1]))
    return Network(tuple(nodes), (INPUTS,), (OUTPUTS,), f"random_w{width}")


def problems(reference: Path | None) -> Iterator[tuple[str, Problem]]:
    """Labelled problems, from the easiest to the hardest."""
    if reference is None:
        yield from ((f"random_w{w}@{EPS:g}", Problem.around(random_network(w), 0.0, EPS)) for w in WIDTHS)
        return
    yield from ((f"{n}@{e:g}", Problem.around(lipcompare.load(reference / f"{n}.npz"), 0.5, e)) for n, e in TRAINED)


def mip_solvers() -> list[solvers.Solver]:
    """Every one here that solves mixed-integer programs."""
    known = [solvers.get(name) for name in solvers.names()]
    return [solver for solver in known if solver.is_available() and solver.capabilities.mip]


@functools.lru_cache(maxsize=1)  # one after another every solver has the same program
def encoded(problem: Problem, tightening: Refinement) -> tuple[Program, dict[str, Label]]:
    """The program of the hardest row, and what it is like."""
    began = time.perf_counter()
    bounds = refined_bounds(problem.network, problem.box.interval, tightening, solvers.get("highs"))
    prepared = prepare(problem, bounds)
    row = int(prepared.upper.argmax())
    program = encode_rows(prepared, [row]).program
    return program, {
        "tightening_seconds": time.perf_counter() - began,
        "row": row,
        "columns": program.num_variables,
        "constraints": program.num_rows,
        "nonzeros": int(program.A.nnz),
        "binaries": int(np.sum(program.integrality)),
        "linear_bound": float(prepared.upper[row]),
    }


def solve(problem: Problem, solver: str, tightening: str, time_limit: float) -> Outcome:
    """One program through one solver."""
    program, facts = encoded(problem, Refinement(tightening))
    solution = solvers.get(solver).solve(program, solvers.Limits(time_limit=time_limit))
    said: dict[str, Label | None] = {
        "solver": solver,
        "tightening": tightening,
        "value": None if solution.objective is None else -solution.objective,
        "bound": -solution.dual_bound,
        "nodes": solution.nodes,
        "ended": solution.status.name.lower(),
    }
    return Outcome(solution.seconds or 0.0, {**facts, **said})


def build(chosen: Choices, console: Console) -> Measured:
    """Every program through every solver, with every kind of big-Ms."""
    tasks = [Task(problem, {"problem": label}) for label, problem in problems(chosen.reference)]
    limits = chosen.limits(2.0)
    versions = {info.name: info.version or "" for info in solvers.all_solvers()}
    settings = [
        Setting(
            NAME,
            {"solver": solver.name, "version": versions[solver.name], "tightening": level.value},
            series=f"{solver.name}, {level.value} bounds",
        )
        for level in Refinement
        for solver in mip_solvers()
    ]

    def work(some: Sequence[Task], setting: Setting) -> list[Outcome]:
        solver, tightening = str(setting.options["solver"]), str(setting.options["tightening"])
        return [solve(task.problem, solver, tightening, limits.time) for task in some]

    return Measured(Study(NAME, tasks, chosen.settings(settings), limits), work)


def agreement(frame: pd.DataFrame) -> list[str]:
    """Problems on which two solvers prove values that exclude each other; it should be empty."""
    wrong = []
    for label, group in frame.groupby("label.problem"):
        best = group["label.value"].astype(float).max()
        short = group[group["label.bound"] < best * (1 - 1e-4) - 1e-4]
        wrong += [
            f"{label}: {series} proves {bound:.6g}, a point has {best:.6g}"
            for series, bound in zip(short["series"], short["label.bound"], strict=True)
        ]
    return wrong


def check(chosen: Choices, console: Console) -> int:
    """1 if two solvers in the store contradict each other, else 0."""
    with Store(chosen.store, read_only=True) as store:
        wrong = agreement(store.frame(NAME))
    for line in wrong:
        console.print(f"CONTRADICTION {line}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(measured.main(build, __doc__, check=check))
