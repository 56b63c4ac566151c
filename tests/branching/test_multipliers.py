"""Children start from what their parents left: it is feasible, keeps the value, and saves iterations."""

from __future__ import annotations

import dataclasses

import nets
import pytest
import torch
from torch import Tensor

from lipcompare.branching import multipliers
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.multipliers import recall, remember
from lipcompare.gates import Gates
from lipcompare.jacobian import gradient_intervals, norm_bound
from lipcompare.network.interval import Interval
from lipcompare.preactivation import interval_bounds
from lipcompare.quadratic.program import SdpData, gate_maps, l1_data
from lipcompare.quadratic.solver.dual import Dual, dual_value, slack_matrix
from lipcompare.quadratic.solver.interior_point import solve
from lipcompare.quadratic.solver.start import default_start

PROBLEM = nets.problem(nets.dense(12, (4, 8, 8, 2)), 0.4)
NUMBERING = Numbering(PROBLEM.network)


def data_of(gates: Gates) -> SdpData:
    gradients = gradient_intervals(PROBLEM.network, gates, PROBLEM.functionals)
    linear = norm_bound(PROBLEM.network, PROBLEM.functionals, gradients, PROBLEM.norm)
    maps = gate_maps(PROBLEM.network, gates, PROBLEM.functionals, gradients)
    rows = torch.arange(PROBLEM.rows)
    return l1_data(maps, gradients, linear[0], torch.zeros_like(rows), rows)


def root() -> Gates:
    return Gates.from_preactivations(PROBLEM.network, interval_bounds(PROBLEM.network, PROBLEM.box.interval))


def narrowed(every: int, high: bool) -> Gates:
    """Every so many gates decided."""
    slopes = {}
    for k, slope in root().slopes.items():
        chosen = (slope.upper > slope.lower) & (torch.arange(slope.lower.shape[-1]) % every == 0)
        slopes[k] = (
            Interval(torch.where(chosen, slope.upper, slope.lower), slope.upper)
            if high
            else Interval(slope.lower, torch.where(chosen, slope.lower, slope.upper))
        )
    return Gates(slopes)


def lowest(data: SdpData, dual: Dual) -> Tensor:
    return torch.linalg.eigvalsh(slack_matrix(data, dual))[:, 0]


@pytest.mark.parametrize("high", [False, True])
def test_what_is_inherited_is_feasible_and_keeps_the_value(high: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipliers, "_SHARE", 1.0)
    data = data_of(root())
    dual = solve(data, tolerance=1e-6).dual
    dual = dataclasses.replace(dual, theta=dual.theta * (1 + 1e-3) + 1e-6 * data.mask, d=torch.zeros_like(dual.d))
    assert bool((lowest(data, dual) > 0).all())
    child = data_of(narrowed(3, high))
    start = recall(child, remember(data, dual, NUMBERING), NUMBERING)
    start = dataclasses.replace(start, d=torch.zeros_like(start.d))
    assert bool((lowest(child, start) > -1e-6).all())
    before = dual_value(data, dual) * data.scale
    assert bool((dual_value(child, start) * child.scale <= before * (1 + 1e-5)).all())


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_decided_sign_leaves_its_share_to_the_constant(sign: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """``1 / (4 lam_j)`` moves to ``theta_0``: the value stays, and ``S`` grows by a square."""
    monkeypatch.setattr(multipliers, "_SHARE", 1.0)
    data = data_of(root())
    dual = solve(data, tolerance=1e-6).dual
    dual = dataclasses.replace(dual, theta=dual.theta * (1 + 1e-3) + 1e-6 * data.mask, d=torch.zeros_like(dual.d))
    column = int(data.entry_mask.all(0).nonzero()[0])
    half = 0.5 * sign * data.entries[:, :, column]
    cost, entry_mask = data.cost.clone(), data.entry_mask.clone()
    cost[:, 0] += half
    cost[:, :, 0] += half
    entry_mask[:, column] = False
    entries = data.entries * entry_mask.unsqueeze(1)
    child = dataclasses.replace(data, cost=cost, entries=entries, entry_mask=entry_mask)
    start = recall(child, remember(data, dual, NUMBERING), NUMBERING)
    start = dataclasses.replace(start, d=torch.zeros_like(start.d))
    assert bool((lowest(child, start) > -1e-6).all())
    torch.testing.assert_close(dual_value(child, start), dual_value(data, dual), rtol=1e-5, atol=0)


def test_nothing_known_is_the_cold_start() -> None:
    data = data_of(root())
    kept = torch.zeros(data.problems, 1 + NUMBERING.gates + PROBLEM.network.in_size)
    for ours, cold in zip(
        dataclasses.astuple(recall(data, kept, NUMBERING)), dataclasses.astuple(default_start(data)), strict=True
    ):
        torch.testing.assert_close(ours, cold)


def test_children_take_fewer_iterations() -> None:
    data = data_of(root())
    kept = remember(data, solve(data, tolerance=3e-3).dual, NUMBERING)
    warm = cold = 0
    for every in (2, 3, 5):
        for high in (False, True):
            child = data_of(narrowed(every, high))
            warm += int(solve(child, tolerance=3e-3, start=recall(child, kept, NUMBERING)).iterations.sum())
            cold += int(solve(child, tolerance=3e-3).iterations.sum())
    assert warm < cold
