"""Bounds over subdomains hold at every input that satisfies the decisions, and empty subdomains have none."""

from __future__ import annotations

from fractions import Fraction

import nets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lipcompare.budget import Deadline
from lipcompare.gates import Gates
from lipcompare.network import Interval
from lipcompare.preactivation import Tightening, preactivation_bounds, split
from lipcompare.preactivation.simplex import multipliers
from lipcompare.preactivation.split import HalfSpaces, constrained_maximum, split_bounds, without_contradictions

COUNT = 6


def decided(problem, seed):
    """Random decisions for a few subdomains: signs (COUNT, neurons) by node, those of a random input among them."""
    network = problem.network
    random = torch.Generator().manual_seed(seed)
    x = problem.box.lower + torch.rand(COUNT, network.in_size, generator=random, dtype=torch.float64).to(
        problem.device
    ) * (problem.box.upper - problem.box.lower)
    values = network.values(x)
    signs = {}
    for k in network.activations:
        z = values[network.nodes[k].parents[0]]
        sign = torch.where(z > 0, 1, -1).to(torch.int8)
        flip = torch.rand(z.shape, generator=random).to(z) < 0.1
        flip[: COUNT // 2] = False  # these subdomains hold x
        keep = torch.rand(z.shape, generator=random).to(z) < 0.4
        signs[k] = torch.where(flip, -sign, sign) * keep
    return signs


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["dense", "leaky", "conv", "residual", "pooling", "concatenation"]),
    st.integers(0, 10**6),
    st.sampled_from([0, 1, 4, 8]),
    st.integers(1, 2),
)
def test_bounds_hold_where_the_decisions_do(family, seed, pivots, passes):
    problem = nets.problem(nets.FAMILIES[family](seed), 0.4, seed)
    network = problem.network
    signs = decided(problem, seed)
    start = preactivation_bounds(network, problem.box.interval, Tightening.CROWN)
    box = Interval(*(v.expand(COUNT, -1) for v in problem.box.interval))
    found = split_bounds(network, box, signs, start, pivots=pivots, passes=passes)
    assert not found.empty[: COUNT // 2].any()
    random = torch.Generator().manual_seed(seed + 1)
    x = problem.box.lower + torch.rand(400, network.in_size, generator=random, dtype=torch.float64).to(
        problem.device
    ) * (problem.box.upper - problem.box.lower)
    values = network.values(x)
    inside = torch.ones(COUNT, len(x), dtype=torch.bool, device=x.device)
    for k in network.activations:
        z = values[network.nodes[k].parents[0]]
        inside &= (signs[k].unsqueeze(1) * z >= 0).all(-1)
    assert not inside[found.empty].any()
    for k in network.activations:
        z = values[network.nodes[k].parents[0]]
        low, high = (v.unsqueeze(1) for v in found.bounds[k])
        assert ((z >= low) & (z <= high))[inside].all()
        slope = network.slopes(values)[k]
        low, high = (v.unsqueeze(1) for v in found.gates.slopes[k])
        assert ((slope >= low) & (slope <= high))[inside].all()
    reach = torch.einsum("sci,xi->sxc", found.halfspaces.normal, x) + found.halfspaces.offset.unsqueeze(1)
    assert (reach >= 0)[inside].all()


def test_decisions_tighten_earlier_and_later_neurons():
    problem = nets.problem(nets.dense(3, (4, 8, 8, 2)), 0.5)
    network = problem.network
    start = preactivation_bounds(network, problem.box.interval, Tightening.CROWN)
    first, second = network.activations
    open_ = Gates.from_preactivations(network, start).unstable(second)[0].nonzero().squeeze(-1)
    sizes = {k: network.nodes[k].size for k in network.activations}
    signs = {k: torch.zeros(len(open_), n, dtype=torch.int8, device=problem.device) for k, n in sizes.items()}
    shorter = torch.where(start[second].upper < -start[second].lower, 1, -1).to(torch.int8)[0, open_]
    signs[second][torch.arange(len(open_), device=problem.device), open_] = shorter
    box = Interval(*(v.expand(len(open_), -1) for v in problem.box.interval))
    plain = split_bounds(network, box, signs, start, pivots=0, passes=1)
    tight = split_bounds(network, box, signs, start, pivots=3, passes=2)
    width = lambda found: (found.bounds[first].upper - found.bounds[first].lower).sum(-1)  # noqa: E731
    assert (width(tight) <= width(plain)).all() and (width(tight) < 0.95 * width(plain)).any()


@pytest.mark.parametrize("seed", range(5))
def test_multipliers_reach_the_linear_program_for_one_halfspace(seed):
    import scipy.optimize

    random = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=random, dtype=torch.float64)  # noqa: E731
    box = Interval(
        -torch.rand(1, 5, generator=random, dtype=torch.float64),
        torch.rand(1, 5, generator=random, dtype=torch.float64),
    )
    normal, offset, targets = (
        draw(1, 1, 5),
        -0.3 * torch.rand(1, 1, generator=random, dtype=torch.float64),
        draw(1, 4, 5),
    )
    index = torch.zeros(1, 1, dtype=torch.int64)
    bound = constrained_maximum(
        targets, torch.zeros(1, 4, dtype=torch.float64), box, HalfSpaces(normal, offset, index, index), 1
    )
    for t in range(4):
        best = scipy.optimize.linprog(
            -targets[0, t].numpy(), A_ub=-normal[0].numpy(), b_ub=offset[0].numpy(),
            bounds=list(zip(box.lower[0].tolist(), box.upper[0].tolist(), strict=True)),
        )  # fmt: skip
        assert float(bound[0, t]) >= -best.fun - 1e-9
        assert float(bound[0, t]) == pytest.approx(-best.fun, rel=1e-5, abs=1e-5)


def test_chunks_of_planes_ask_the_clock(monkeypatch):
    # 9,475 chunks of one neuron each were refined after the deadline on a layer of 20,000.
    problem = nets.problem(nets.FAMILIES["dense"](0), 0.4, 0)
    network = problem.network
    signs = decided(problem, 0)
    start = preactivation_bounds(network, problem.box.interval, Tightening.CROWN)
    box = Interval(*(v.expand(COUNT, -1) for v in problem.box.interval))
    asked = []

    class Late(Deadline):
        def passed(self, ahead: float = 0.0) -> bool:
            asked.append(ahead)
            return len(asked) > 1

    refined = []
    maximum = split.constrained_maximum
    monkeypatch.setattr(split, "constrained_maximum", lambda *given: refined.append(1) or maximum(*given))
    hurried = split_bounds(network, box, signs, start, passes=1, memory=1, deadline=Late())
    assert not refined
    whole = split_bounds(network, box, signs, start, passes=1, memory=1)
    assert refined
    for k in network.activations:
        assert (hurried.bounds[k].lower <= whole.bounds[k].lower + 1e-12).all()
        assert (hurried.bounds[k].upper >= whole.bounds[k].upper - 1e-12).all()


def test_half_spaces_that_only_together_exclude_all_inputs_empty_a_subdomain():
    """What is left has a point that all half-spaces allow, by another solver."""
    import scipy.optimize

    missed = 0
    for seed in range(6):
        problem = nets.problem(nets.dense(seed, (5, 8, 8, 8, 2)), 0.6, seed)
        network = problem.network
        random = torch.Generator().manual_seed(seed)
        signs = {
            k: (torch.randint(-3, 4, (60, network.nodes[k].size), generator=random) / 3).to(torch.int8)
            for k in network.activations
        }
        start = preactivation_bounds(network, problem.box.interval, Tightening.CROWN)
        box = Interval(*(v.expand(60, -1) for v in problem.box.interval))
        before = split_bounds(network, box, signs, start, pivots=1)  # more of them see most contradictions
        found = without_contradictions(before, box)
        for i in range(60):
            spaces = (found.halfspaces.normal[i].numpy(), found.halfspaces.offset[i].numpy())
            program = scipy.optimize.linprog(
                [0.0] * 5 + [-1.0], A_ub=np.hstack([-spaces[0], np.ones((len(spaces[1]), 1))]), b_ub=spaces[1],
                bounds=[*zip(*(v[i].tolist() for v in box), strict=True), (None, 1.0)],
            )  # fmt: skip
            depth = -program.fun
            assert found.empty[i] or depth > -1e-7
            assert not found.empty[i] or before.empty[i] or depth < 1e-7
            missed += bool(found.empty[i] and not before.empty[i])
    assert missed > 5


@pytest.mark.parametrize(
    ("dtype", "radius", "wall", "target"),
    [(torch.float64, 1e-10, 1e-310, 1.0), (torch.float64, 1.0, 1e-312, 1e-20), (torch.float32, 1.0, 1e-42, 1e-10)],
)
def test_half_spaces_of_the_smallest_numbers_prove_nothing_false(dtype, radius, wall, target):
    box = Interval(torch.full((1, 2), -radius, dtype=dtype), torch.full((1, 2), radius, dtype=dtype))
    normal = torch.tensor([[[-wall, 0.37 * wall]]], dtype=dtype)
    wanted = torch.tensor([[[target, 0.21 * target]]], dtype=dtype)
    index, zero = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1, dtype=dtype)
    found = constrained_maximum(wanted, zero, box, HalfSpaces(normal, zero, index, index), 6)
    # The corner of box and half-space: x_0 = 0.37 x_1, x_1 = radius.
    second = Fraction(float(box.upper[0, 1]))
    first = second * Fraction(float(normal[0, 0, 1])) / -Fraction(float(normal[0, 0, 0]))
    assert Fraction(float(found)) >= sum(
        Fraction(float(w)) * x for w, x in zip(wanted[0, 0], (first, second), strict=True)
    )


def test_what_is_not_a_number_bounds_nothing():
    box = Interval(torch.tensor([[-1.0, -1.0]]).double(), torch.tensor([[1.0, 1.0]]).double())
    index, nothing = torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[[0.0, 0.0]]]).double()
    spaces = HalfSpaces(nothing, torch.tensor([[float("nan")]]).double(), index, index)
    assert float(constrained_maximum(nothing + 1, torch.zeros(1, 1).double(), box, spaces, 4)) == 2


def test_no_number_of_pivots_takes_more_memory_than_there_are_variables(monkeypatch):
    problem = nets.problem(nets.FAMILIES["dense"](0), 0.4, 0)
    network = problem.network
    start = preactivation_bounds(network, problem.box.interval, Tightening.CROWN)
    box = Interval(*(v.expand(COUNT, -1) for v in problem.box.interval))
    asked = []
    monkeypatch.setattr(
        split,
        "multipliers",
        lambda rest, walls, heights, most: asked.append(most) or multipliers(rest, walls, heights, most),
    )
    split_bounds(network, box, decided(problem, 0), start, pivots=10**9)
    assert asked and max(asked) == network.in_size + network.neurons


@pytest.mark.parametrize(("deadline", "count"), [(Deadline(0.0), 1), (Deadline(), 5)])
def test_further_passes_ask_the_clock(monkeypatch, deadline, count):
    problem = nets.problem(nets.FAMILIES["dense"](0), 0.4, 0)
    start = preactivation_bounds(problem.network, problem.box.interval, Tightening.CROWN)
    box = Interval(*(v.expand(COUNT, -1) for v in problem.box.interval))
    signs, passed, propagate = decided(problem, 0), [], split._propagate
    without = split_bounds(problem.network, box, signs, start, passes=1).halfspaces
    assert without.count

    def watched(*given):
        passed.append(1)
        return propagate(*given[:-1], Deadline())  # a pass in time, so that there are half-spaces

    monkeypatch.setattr(split, "_propagate", watched)
    split_bounds(problem.network, box, signs, start, passes=5, deadline=deadline)
    assert len(passed) == count
