"""Hot loops make no GPU wait: as many operations that wait in many steps, tiles or groups as in few."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import nets
import numpy as np
import pytest
import torch
from waits import Waits

from lipcompare import Problem
from lipcompare.attack.search import Effort, search
from lipcompare.branching.bounds import Settings, tree_bound
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.evaluator import NetworkEvaluator, whole_of
from lipcompare.branching.heuristics import HEURISTICS
from lipcompare.branching.roots import whole_box
from lipcompare.branching.tree import Subdomain
from lipcompare.budget import Deadline
from lipcompare.gates import Gates
from lipcompare.jacobian import gradient_intervals, linear, patches
from lipcompare.jacobian.shared import shared_gradients
from lipcompare.preactivation import deciding, forward, interval_bounds, simplex
from lipcompare.preactivation.deciding import decided
from lipcompare.preactivation.descent import Descent
from lipcompare.preactivation.forward import Tightening, preactivation_bounds
from lipcompare.regions.program import Deepest

PROBLEM = nets.problem(nets.conv(3), 0.3)
NETWORK, BOX = PROBLEM.network, PROBLEM.box.interval
GATES = Gates.from_preactivations(NETWORK, interval_bounds(NETWORK, BOX))


def count(work: Callable[..., Any], **options: Any) -> Counter[str]:
    work(**options)  # what is made once is there already
    with Waits() as waits:
        work(**options)
    return waits.count


@pytest.mark.parametrize("step", ["ascent_steps", "rounds"])
def test_attack(step: str) -> None:
    def attack(**steps: int) -> None:
        search(PROBLEM, Effort(samples=16, starts=2, regions=0, **{"ascent_steps": 2, "rounds": 2, **steps}))

    assert count(attack, **{step: 3}) == count(attack, **{step: 9})


@pytest.mark.parametrize("on_patches", [True, False])
def test_crown(on_patches: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "prefers_patches", lambda network, node: on_patches)

    def crown(memory: int) -> None:
        preactivation_bounds(NETWORK, BOX, Tightening.CROWN, memory=memory)

    assert count(crown, memory=2**12) == count(crown, memory=2**30)


def test_optimised_slopes() -> None:
    def descent(steps: int) -> None:
        preactivation_bounds(NETWORK, BOX, descent=Descent(steps=steps))

    assert count(descent, steps=3) == count(descent, steps=9)


def test_optimised_slopes_on_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deciding, "near_zero", lambda z: torch.ones_like(z.lower, dtype=torch.bool))
    bounds = interval_bounds(NETWORK, BOX)
    k = NETWORK.activations[1]
    before = {j: z for j, z in bounds.items() if j < k}
    lines = {j: NETWORK.activation(j).relaxation(z) for j, z in before.items()}

    def descent(steps: int, memory: int) -> None:
        node = NETWORK.nodes[k].parents[0]
        decided(NETWORK, BOX, before, lines, node, bounds[k], Descent(steps), memory=memory, deadline=Deadline())

    few = count(descent, steps=3, memory=2**30)
    assert few == count(descent, steps=9, memory=2**30) == count(descent, steps=3, memory=2**12)


def test_shared_pass() -> None:
    def shared(memory: int) -> None:
        shared_gradients(NETWORK, GATES, PROBLEM.functionals, memory=memory)

    assert count(shared, memory=2**12) == count(shared, memory=2**30)


@pytest.mark.parametrize("on_patches", [True, False])
def test_recursion(on_patches: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def how(network: Any, node: int) -> patches.Plan | None:
        grid = patches.grids(network)[node]
        period = (1,) * (len(grid) - 1)
        return patches.Plan(period, patches._costs(network, node, period)) if period and on_patches else None

    monkeypatch.setattr(linear, "plan", how)

    def recursion(memory: int) -> None:
        gradient_intervals(NETWORK, GATES, PROBLEM.functionals, memory=memory)

    assert count(recursion, memory=2**12) == count(recursion, memory=2**30)


def evaluator(problem: Problem, bound: str) -> NetworkEvaluator:
    root = whole_box(problem, Tightening.CROWN, 2**30)
    chosen, numbering = tree_bound(bound), Numbering(problem.network)
    heuristic = HEURISTICS[chosen.default_heuristic(problem.norm)]
    bounds = chosen.on(numbering, problem.norm, heuristic, Settings())
    return NetworkEvaluator(problem=problem, bounds=root.bounds, bound=bounds, whole=whole_of(problem, root))


@pytest.mark.parametrize("inherits", [True, False])
@pytest.mark.parametrize("bound", ["lbp", "sdp"])
@pytest.mark.parametrize("family", ["conv", "dense"])
def test_subdomains(family: str, bound: str, inherits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many in a batch of four as in one of sixteen, without the linear programs, which run on the host."""
    monkeypatch.setattr(simplex, "_ended", lambda moves: False)  # as on a GPU
    tree = evaluator(nets.problem(nets.FAMILIES[family](5), 0.6), bound)
    tree.inherits = inherits
    points = lambda slopes, box: [Deepest(x, 1.0) for x in box.center.numpy()]  # noqa: E731
    tree.locate = points  # type: ignore[method-assign]
    random, undecided = np.random.default_rng(0), tree.numbering.join(tree.open).nonzero().squeeze(-1).numpy()
    nodes = [
        Subdomain(np.inf, 0, tuple(int(2 * g + random.integers(2)) for g in random.choice(undecided, 2, replace=False)))
        for _ in range(16)
    ]

    def evaluate(some: int) -> None:
        tree.evaluate(nodes[:some], 0.0, 0.0)

    few, many = count(evaluate, some=4), count(evaluate, some=16)
    if bound == "sdp":  # programs that are done leave the batch, which waits for their numbers: once an iteration
        for each in (few, many):
            assert each.pop("nonzero", 0) < 40
    assert few == many
