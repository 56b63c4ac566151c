"""The quadratic-gate bound on an accelerator: many programs of middling size at once, and one large one.

    python -m experiments.semidefinite_device [--device cuda]

Networks with random weights, every gate undecided. Prints the time per iteration, the floating-point operations of an
iteration (dense products, factorisations, the Newton matrix) over that time, and the share of the rate at which the
device multiplies matrices of the same shape. Without CUDA it runs reduced sizes on the CPU, by processor
seconds, and says so.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from experiments.device import clock, seconds
from experiments.relaxations import random_network
from experiments.semidefinite_programs import programs
from lipcompare import Problem
from lipcompare.preactivation import Tightening
from lipcompare.quadratic.program import SdpData
from lipcompare.quadratic.solver.certificate import certify
from lipcompare.quadratic.solver.interior_point import solve

SIZES = {"cuda": ((1000, 100), (1, 4000)), "cpu": ((20, 100), (1, 500))}


def made(problems: int, coordinates: int, device: str) -> SdpData:
    """``problems`` programs of about so many coordinates: one row of one network in different boxes."""
    network = random_network(3, coordinates // 2, seed=0)
    random = torch.Generator().manual_seed(0)
    centers = torch.rand(problems, network.in_size, generator=random, dtype=torch.float64)
    # Wide boxes: (almost) all gates are undecided.
    problem = Problem.around(network.to(device, torch.float64), centers.to(device), 20.0)
    functionals = problem.functionals[:, :1]
    problem = Problem(problem.network, problem.box, problem.norm, functionals)
    return programs(problem, problems, Tightening.INTERVAL).data


def operations(n: int, signs: int) -> float:
    """Floating-point operations of one iteration: products (seven full, four half), an inverse and factorisations."""
    return (7 * 2 + 4 + 2) * n**3 + 2 / 3 * n**3 + (n + signs + 1) ** 3 / 3 + 8 * n * n * signs


def matrix_rate(data: SdpData, device: str) -> float:
    """Operations per second of a batched product of the same shape, the best of five."""
    a: Tensor = torch.ones_like(data.columns)
    best = min(seconds(lambda: a @ a, device) for _ in range(5))
    return 2 * data.problems * data.size**3 / best


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args(arguments)
    device: str = chosen.device
    if device == "cpu":
        print("No CUDA: reduced sizes on the CPU.")
    table = Table("programs", "coordinates", "signs", "iterations", "seconds", "ms/iteration", "certificate s",
                  "Gflop/s", "matrix Gflop/s", "share")  # fmt: skip
    for count, coordinates in SIZES[device]:
        data = made(count, coordinates, device)
        n, signs = data.size, data.entries.shape[-1]
        solve(data, max_iterations=1)  # first calls load libraries
        begun = clock(device)
        solution = solve(data, max_iterations=40)
        took = clock(device) - begun
        proof = seconds(partial(certify, data, solution.dual), device)
        # Programs leave the batch as they finish: count the iterations that were made.
        work = float(solution.iterations.sum()) * operations(n, signs)
        rate, peak = work / took, matrix_rate(data, device)
        table.add_row(str(data.problems), str(n), str(signs), str(int(solution.iterations.max())), f"{took:.3f}",
                      f"{1e3 * took / int(solution.iterations.max()):.1f}", f"{proof:.3f}", f"{rate / 1e9:.1f}",
                      f"{peak / 1e9:.1f}", f"{rate / peak:.0%}")  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 130).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
