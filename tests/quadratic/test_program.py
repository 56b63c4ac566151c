"""Problem data against the chain rule: at a pattern's point the objective is the norm, and the equations hold."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import nets
import pytest
import torch
from quadratic.programs import data_of, maps_of, propagated
from torch import Tensor

from lipcompare import Problem
from lipcompare.jacobian.norms import absolute_chord
from lipcompare.network import Interval
from lipcompare.quadratic import program
from lipcompare.quadratic.patterns import evaluate, random_patterns
from lipcompare.quadratic.program import Cuts, SdpData, l1_data
from lipcompare.rounding import allowance

NETWORK = nets.dense(7, (3, 7, 6, 2), 0.2)


def norms_at(problem: Problem, data: SdpData, high: Tensor) -> Tensor:
    """Gradient rows (problems, samples, inputs) under patterns (problems, samples, n), by the chain rule."""
    gates, _, _ = propagated(problem)
    names = data.coordinates
    slopes = {}
    for k, (low, top) in gates.slopes.items():
        slopes[k] = low[data.example].unsqueeze(1).expand(-1, high.shape[1], -1).clone()
        for c in (names.node == k).nonzero().squeeze(-1).tolist():
            for p in range(data.problems):
                if data.mask[p, c]:
                    i = names.neuron[data.example[p], c]
                    slopes[k][p, :, i] = torch.where(high[p, :, c], top[data.example[p], i], slopes[k][p, :, i])
    rows = problem.functionals[data.example, data.row].unsqueeze(1).expand(-1, high.shape[1], -1)
    return problem.network.pull_back(slopes, rows)


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_the_objective_at_a_pattern_is_the_norm(norm: str) -> None:
    problem = nets.problem(NETWORK, 0.4, batch=2, norm=norm)
    data = data_of(problem)
    patterns = evaluate(data, random_patterns(data, 20))
    gradient = norms_at(problem, data, patterns.high)
    said = (patterns.values + data.offset.unsqueeze(-1)) * data.scale.unsqueeze(-1)
    if norm == "inf":
        expected = gradient.abs().sum(-1)
    elif norm == "2":
        expected = gradient.square().sum(-1)
    else:
        expected = gradient[..., 0] * (1.0 - 2.0 * (data.row % 2)).unsqueeze(-1)
    torch.testing.assert_close(said, expected, rtol=1e-9, atol=1e-9)
    # And the equations: w_i (w_i - K_i) = 0, 1 for the constant; within the limits.
    own = 2 * (patterns.points @ data.columns) * patterns.points
    torch.testing.assert_close(own, data.right.unsqueeze(1).expand_as(own), atol=1e-9, rtol=0)
    assert bool((patterns.points.abs() <= data.limit.unsqueeze(1) * (1 + 1e-12)).all())


def test_signs_that_are_left_out_only_raise_the_objective() -> None:
    """``|J_j|`` is replaced by its chord, which lies above it and touches it at the interval's ends."""
    problem = nets.problem(NETWORK, 1.0, batch=2)
    whole, fewer = data_of(problem), data_of(problem, most_signs=1)
    assert whole.entry_mask.sum(-1).max() > 1 and fewer.entry_mask.sum(-1).max() == 1
    high = random_patterns(whole, 30)
    exact, chords = (evaluate(d, high).values + d.offset.unsqueeze(-1) for d in (whole, fewer))
    assert bool((chords >= exact - 1e-12).all()) and bool((chords > exact + 1e-3).any())
    # The sign that is kept is the one whose chord would cost most.
    _, gradients, _ = propagated(problem)
    lower, upper = (v[whole.example, whole.row] for v in gradients.intervals[0])
    room = torch.minimum(-lower, upper).clamp(min=0)
    assert fewer.entry[fewer.entry_mask].tolist() == room.argmax(-1)[fewer.entry_mask.any(-1)].tolist()


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_errors_of_the_entries_are_in_the_slack(norm: str) -> None:
    """Whatever the errors of the gradient's entries are, the objective moves by no more than the slack."""
    problem = nets.problem(NETWORK, 0.4, norm=norm)
    for error, drift in ((0.03, 0.0), (0.0, 0.05)):
        maps = maps_of(problem)
        moved = dataclasses.replace(
            maps,
            entry_constant=maps.entry_constant + (error + drift) * maps.entry_constant.new_tensor([1.0, -1.0, 1.0]),
            entry_error=torch.full_like(maps.entry_error, error),
            entry_drift=torch.full_like(maps.entry_drift, drift),
        )
        said = dataclasses.replace(moved, entry_constant=maps.entry_constant)
        data, wrong = (_data(problem, m) for m in (said, moved))
        high = random_patterns(data, 20)
        right = evaluate(data, high).values + data.offset.unsqueeze(-1)
        changed = evaluate(wrong, high).values + wrong.offset.unsqueeze(-1)
        change = (changed - right).abs().amax(-1)
        assert bool((change <= data.slack * (1 + 1e-9)).all()) and bool((change >= 0.01 * data.slack).all())


def _data(problem: Problem, maps: program.GateMaps) -> SdpData:
    _, gradients, linear = propagated(problem)
    example, row = (linear > 0).nonzero(as_tuple=True)
    scale = linear[example, row]
    if problem.norm.value == "2":
        return program.l2_data(maps, scale.square(), example, row)
    if problem.norm.value == "1":
        return program.entry_data(maps, scale, example, row, torch.zeros_like(row), torch.ones_like(scale))
    return l1_data(maps, gradients, scale, example, row)


def test_errors_of_gates_are_in_the_scaled_units() -> None:
    problem = nets.problem(NETWORK, 0.4, batch=2)
    maps = maps_of(problem)
    off = dataclasses.replace(maps, gate_error=0.1 * torch.rand_like(maps.gate_error))
    data = _data(problem, off)
    torch.testing.assert_close(data.gate_slack * data.radius, off.gate_error[data.example, data.row] * data.mask)


def test_rounding_of_a_squares_coefficients_is_in_the_slack() -> None:
    """``C0`` is a product of matrices: against rational arithmetic, at a corner in the worst direction.

    What :func:`squares_error` has for it is the part of the entries' error that is for their sums.
    """
    problem = nets.problem(NETWORK, 0.4, norm="2")
    maps = maps_of(problem)
    size = maps.entry_constant.abs() + maps.reach[:, :, 1:] @ maps.entry_linear[:, 1:].abs()
    sums = allowance(problem.network.in_size + 3, torch.float64) * size / 3
    assert bool((maps.entry_error > sums).all())
    exact_maps = dataclasses.replace(maps, entry_error=sums, entry_drift=torch.zeros_like(maps.entry_drift))
    zero = torch.zeros(1, dtype=torch.int64, device=problem.device)
    data = program.l2_data(exact_maps, torch.ones_like(zero, dtype=torch.float64), zero, zero)
    linear = maps.entry_linear[0].clone()
    linear[0] = maps.entry_constant[0, 0]
    entries = [[Fraction(v) * Fraction(float(r)) for v in line] for line, r in
               zip(linear.tolist(), maps.reach[0, 0].tolist(), strict=True)]  # fmt: skip
    off = sum(
        abs(Fraction(float(data.cost[0, i, j])) - sum((a * b for a, b in zip(f, g, strict=True)), Fraction(0)))
        for i, f in enumerate(entries)
        for j, g in enumerate(entries)
    )
    assert 0 < off <= Fraction(float(data.slack[0])) < 1e-11


def test_constants_of_chords_are_rounded_upward() -> None:
    below = 0
    for seed in range(20):
        problem = nets.problem(nets.dense(seed, (12, 6, 6, 1)), 0.8, seed)
        _, gradients, _ = propagated(problem)
        one = torch.ones(1, dtype=torch.float64, device=problem.device)  # no rounding in other units
        zero = torch.zeros_like(one, dtype=torch.int64)
        data = l1_data(maps_of(problem), gradients, one, zero, zero, most_signs=1)
        chord = absolute_chord(Interval(*(v[0, 0] for v in gradients.intervals[0])))
        intercepts = [Fraction(v) for j, v in enumerate(chord[1].tolist()) if j not in data.entry[0].tolist()]
        exact = sum(intercepts, Fraction(0))
        assert exact <= Fraction(float(data.offset[0])) <= exact * (1 + Fraction(1, 10**13))
        below += Fraction(float(torch.tensor([float(v) for v in intercepts], dtype=torch.float64).sum())) < exact
    assert below > 2  # plainly summed they would be too small


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_chunks_change_nothing(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = nets.problem(NETWORK, 0.4, batch=2, norm=norm)
    whole = data_of(problem)
    monkeypatch.setattr(program, "BLOCK_ENTRIES", 1)
    torch.testing.assert_close(data_of(problem).cost, whole.cost)
    torch.testing.assert_close(data_of(problem).entries, whole.entries)


def test_a_probe_depends_on_names_alone() -> None:
    problem = nets.problem(NETWORK, 0.4, batch=2)
    together = data_of(problem)
    for b in (0, 1):
        alone = data_of(problem.example(b))
        mine = (together.example == b).nonzero().squeeze(-1)
        for p, q in zip(mine.tolist(), range(alone.problems), strict=True):
            assert together.probe[p][together.mask[p]].tolist() == alone.probe[q][alone.mask[q]].tolist()
    assert bool((together.probe.abs() <= 0.5).all())


def cuts() -> Cuts:
    random = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 2, 4, 5, generator=random, dtype=torch.float64)
    mask = torch.tensor([[True, False, True, True, False], [False, True, True, False, False]])
    equal = torch.tensor([[True, False, False, True, False], [False, False, True, False, False]])
    exists = mask.unsqueeze(1)
    slack = torch.rand(2, 5, generator=random, dtype=torch.float64) * mask
    return Cuts(left * exists, right * exists, mask, equal, slack)


def test_cuts_that_are_chosen_move_to_the_front() -> None:
    some = cuts()
    kept = some.where(torch.tensor([[False, True, True, True, True], [True, True, True, True, True]]))
    assert kept.count == 2 and kept.mask.all()
    for p, chosen in enumerate(((2, 3), (1, 2))):
        for place, c in enumerate(chosen):
            assert kept.left[p, :, place].tolist() == some.left[p, :, c].tolist()
            assert kept.right[p, :, place].tolist() == some.right[p, :, c].tolist()
            assert kept.slack[p, place] == some.slack[p, c] and kept.equal[p, place] == some.equal[p, c]
    none = some.where(torch.zeros_like(some.mask))
    assert none.count == 0


def test_values_and_sums_of_cuts() -> None:
    some = cuts()
    moments = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    moments = moments + moments.mT
    value = some.value(moments)
    for p in range(2):
        for c in range(5):
            assert value[p, c] == pytest.approx(float(some.left[p, :, c] @ moments[p] @ some.right[p, :, c]))
    both = some + some.select(torch.tensor([1, 0]))
    assert both.count == 10
    torch.testing.assert_close(both.left[0, :, 5:], some.left[1])
    torch.testing.assert_close(some.grown(6).left[:, :4], some.left)
    assert (some.grown(6).right[:, 4:] == 0).all()


def test_selected_problems_are_those_problems() -> None:
    problem = nets.problem(NETWORK, 0.4, batch=2)
    data = data_of(problem)
    chosen = data.select(torch.tensor([2, 0]))
    for field in ("columns", "cost", "entries", "scale", "offset", "slack", "gate_slack", "radius", "limit", "row"):
        assert torch.equal(getattr(chosen, field), getattr(data, field)[[2, 0]]), field
    assert chosen.ranges == data.ranges
