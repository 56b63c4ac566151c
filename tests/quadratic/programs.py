"""Programs of small problems, for the tests of the semidefinite relaxation."""

from __future__ import annotations

import nets
import torch
from torch import Tensor

from lipcompare import Problem
from lipcompare.gates import Gates
from lipcompare.jacobian import gradient_intervals, norm_bound
from lipcompare.jacobian.gradients import Gradients
from lipcompare.preactivation import interval_bounds
from lipcompare.problem import Norm
from lipcompare.quadratic.coordinates import GateMaps, Lifted, gate_maps
from lipcompare.quadratic.patterns import explore
from lipcompare.quadratic.program import SdpData, entry_data, l1_data, l2_data
from lipcompare.quadratic.scaling import rescaled


def propagated(problem: Problem) -> tuple[Gates, Gradients, Tensor]:
    """Gates of interval arithmetic, the gradients' intervals, and the linear bound (batch, rows)."""
    network = problem.network
    gates = Gates.from_preactivations(network, interval_bounds(network, problem.box.interval))
    gradients = gradient_intervals(network, gates, problem.functionals, norm=problem.norm)
    return gates, gradients, norm_bound(network, problem.functionals, gradients, problem.norm)


def maps_of(problem: Problem, lifted: Lifted | None = None) -> GateMaps:
    gates, gradients, _ = propagated(problem)
    return gate_maps(problem.network, gates, problem.functionals, gradients, lifted)


def data_of(problem: Problem, most_signs: int | None = None) -> SdpData:
    """The program of every row that is not constant; for p = 1 of the first entry, with a sign that alternates."""
    gates, gradients, linear = propagated(problem)
    maps = gate_maps(problem.network, gates, problem.functionals, gradients)
    example, row = (linear > 0).nonzero(as_tuple=True)
    scale = linear[example, row]
    if problem.norm is Norm.TWO:
        return l2_data(maps, scale.square(), example, row)
    if problem.norm is Norm.ONE:
        return entry_data(maps, scale, example, row, torch.zeros_like(row), 1.0 - 2.0 * (row % 2))
    return l1_data(maps, gradients, scale, example, row, most_signs)


def scaled_data_of(problem: Problem) -> SdpData:
    """The same in the solver's units."""
    data = data_of(problem)
    return rescaled(data, explore(data))


def small(seed: int = 8, sizes: tuple[int, ...] = (5, 12, 12, 3), eps: float = 0.5) -> SdpData:
    """The programs of one dense network."""
    return scaled_data_of(nets.problem(nets.dense(seed, sizes), eps))


def patterns_of(problem: Problem, count: int, seed: int = 0) -> dict[int, Tensor]:
    """Random slopes (batch, count, neurons) per activation node, each at either end of its range."""
    gates, _, _ = propagated(problem)
    random = torch.Generator().manual_seed(seed)
    slopes = {}
    for k, (low, high) in gates.slopes.items():
        chosen = torch.rand(problem.batch, count, low.shape[-1], generator=random).to(low) < 0.5
        slopes[k] = torch.where(chosen, high.unsqueeze(1), low.unsqueeze(1))
    return slopes
