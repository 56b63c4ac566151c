"""The quadratic-gate relaxation: against enumeration, against Clarabel, its certificate, its batches."""

from __future__ import annotations

import dataclasses
import json
import time
from fractions import Fraction
from pathlib import Path
from unittest import mock

import cvxpy as cp
import nets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lipcompare
from lipcompare import Box, Network, Problem
from lipcompare.budget import Deadline
from lipcompare.gates import Gates
from lipcompare.jacobian import gradient_intervals, norm_bound
from lipcompare.jacobian.gradients import Gradients
from lipcompare.network import Activate, Affine, Input, LeakyReLU
from lipcompare.network.interval import Interval
from lipcompare.network.linear_maps import Dense
from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.problem import Norm
from lipcompare.quadratic.bound import SdpBound, sdp_bound
from lipcompare.quadratic.memory import packs
from lipcompare.quadratic.patterns import explore
from lipcompare.quadratic.program import SdpData, gate_maps, l1_data
from lipcompare.quadratic.scaling import rescaled
from lipcompare.quadratic.solver.certificate import certify
from lipcompare.quadratic.solver.dual import Dual, dual_value, slack_matrix
from lipcompare.quadratic.solver.interior_point import solve
from lipcompare.quadratic.solver.start import default_start
from lipcompare.testing.exact import truth


def setting(problem: Problem, tightening: Tightening = Tightening.INTERVAL) -> tuple[Gates, Gradients]:
    bounds = preactivation_bounds(problem.network, problem.box.interval, tightening)
    gates = Gates.from_preactivations(problem.network, bounds)
    return gates, gradient_intervals(problem.network, gates, problem.functionals, norm=problem.norm)


def bound(problem: Problem, **options: object) -> SdpBound:
    gates, gradients = setting(problem)
    return sdp_bound(problem.network, gates, problem.functionals, gradients, problem.norm, **options)  # type: ignore[arg-type]


def data_of(problem: Problem) -> SdpData:
    """Data of every row of every example, p = inf."""
    gates, gradients = setting(problem)
    linear = norm_bound(problem.network, problem.functionals, gradients, problem.norm)
    maps = gate_maps(problem.network, gates, problem.functionals, gradients)
    example, row = (linear > 0).nonzero(as_tuple=True)
    data = l1_data(maps, gradients, linear[example, row], example, row)
    return rescaled(data, explore(data))


@settings(max_examples=25)
@given(network=nets.networks(), eps=st.sampled_from([0.05, 0.2, 0.6]), norm=st.sampled_from(["inf", "2", "1"]))
def test_lies_between_the_free_gate_maximum_and_the_linear_bound(network: Network, eps: float, norm: str) -> None:
    problem = nets.problem(network, eps, norm=norm)
    gates, _ = setting(problem)
    if int(gates.unstable_count.max()) > 12:
        return
    result = bound(problem, only_maximum=False)
    assert (result.upper >= nets.free_gate_maximum(problem) * (1 - 1e-12)).all()
    assert (result.upper <= result.linear).all()


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("family", sorted(nets.FAMILIES))
def test_holds_at_sampled_points(family: str, norm: str) -> None:
    problem = nets.problem(nets.FAMILIES[family](11), 0.3, batch=3, norm=norm)
    assert (bound(problem).upper.cpu() >= nets.sampled_norms(problem) * (1 - 1e-12)).all()


def test_is_much_tighter_than_the_linear_bound_on_deep_networks() -> None:
    problem = nets.problem(nets.dense(4, (6, 16, 16, 16, 3)), 0.8)
    result = bound(problem, only_maximum=False)
    assert bool((result.upper < 0.8 * result.linear).all())
    assert bool(result.converged.all()) and not bool(result.fell_back.any())


@pytest.mark.parametrize("family", sorted(nets.FAMILIES))
def test_a_point_gives_the_gradient(family: str) -> None:
    problem = nets.problem(nets.FAMILIES[family](5), 0.0)
    expected = nets.sampled_norms(problem, samples=1).to(problem.device)
    torch.testing.assert_close(bound(problem).upper, expected, rtol=1e-9, atol=1e-9)


def test_the_zero_function_has_bound_zero() -> None:
    zero = Affine((2,), (Dense(torch.zeros(2, 3, dtype=torch.float64)),), None)
    first = Affine((0,), (Dense(torch.ones(3, 2, dtype=torch.float64)),), None)
    network = Network((Input(2), first, Activate(1, LeakyReLU(0.0), 3), zero), (2,), (2,))
    assert bool((bound(nets.problem(network, 3.0)).upper <= 1e-12).all())


def test_a_network_without_gates_gives_its_matrix() -> None:
    weight = torch.tensor([[1.0, -2.0], [0.5, 0.0]], dtype=torch.float64)
    network = Network((Input(2), Affine((0,), (Dense(weight),), None)), (2,), (2,))
    torch.testing.assert_close(bound(nets.problem(network, 1.0)).upper, weight.abs().sum(-1).unsqueeze(0))


def clarabel(data: SdpData, b: int) -> float:
    """Optimum of the primal semidefinite program of problem ``b`` as it is written in the documentation."""
    n = int(data.mask[b].sum())
    at = data.mask[b].nonzero().squeeze(-1)
    columns = data.columns[b][at][:, at].numpy()
    entries = data.entries[b][at][:, data.entry_mask[b]].numpy()
    m = cp.Variable((n, n), PSD=True)
    objective = cp.trace(data.cost[b][at][:, at].numpy() @ m)
    for g in entries.T:
        objective += cp.sqrt(cp.trace(np.outer(g, g) @ m))
    constraints = [2 * cp.sum(cp.multiply(m, columns), axis=0) == data.right[b][at].numpy()]
    program = cp.Problem(cp.Maximize(objective), constraints)
    return float(program.solve(solver=cp.CLARABEL)) * float(data.scale[b])


@pytest.mark.parametrize(
    "network", [nets.dense(1, (4, 8, 8, 2)), nets.dense(2, (5, 7, 7, 7, 2), 0.2), nets.residual(3), nets.conv(4)]
)
def test_equals_clarabel(network: Network) -> None:
    problem = nets.problem(network, 0.5)
    data = data_of(problem)
    solution = solve(data)
    assert bool(solution.converged.all())
    certified = certify(data, solution.dual) * data.scale
    for b in range(data.problems):
        assert float(certified[b]) == pytest.approx(clarabel(data, b), rel=1e-4)


def test_rank_one_moments_of_patterns_are_feasible_and_below_the_bound() -> None:
    problem = nets.problem(nets.dense(6, (5, 10, 10, 3)), 0.5)
    data = data_of(problem)
    solution = solve(data)
    patterns = explore(data)
    m = patterns.points.unsqueeze(-1) * patterns.points.unsqueeze(-2)
    left = 2 * (m * data.columns.unsqueeze(1)).sum(-2)
    torch.testing.assert_close(left, data.right.unsqueeze(1).expand_as(left), atol=1e-12, rtol=0)
    assert bool((patterns.points.abs() <= data.limit.unsqueeze(1) * (1 + 1e-9)).all())
    assert bool((patterns.values <= certify(data, solution.dual).unsqueeze(1)).all())


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), size=st.floats(1e-3, 1e3))
def test_any_multipliers_give_a_valid_bound(seed: int, size: float) -> None:
    problem = nets.problem(nets.dense(3, (3, 4, 4, 2)), 0.5)
    data = data_of(problem)
    random = torch.Generator().manual_seed(seed)
    start = default_start(data)
    theta = size * torch.randn(data.problems, data.size, generator=random, dtype=torch.float64)
    dual = Dual(theta, size * start.lam, torch.zeros_like(start.d))
    certified = torch.zeros(problem.batch, problem.rows, dtype=torch.float64)
    certified[data.example, data.row] = certify(data, dual) * data.scale
    assert bool((certified >= nets.free_gate_maximum(problem)).all())


def test_the_certificate_rejects_what_is_not_feasible() -> None:
    data = data_of(nets.problem(nets.dense(3, (3, 4, 4, 2)), 0.5))
    solution = solve(data, tolerance=1e-6)
    short = Dual(0.99 * solution.dual.theta, solution.dual.lam, solution.dual.d)
    # The claimed value is below the optimum; what is certified must not be.
    assert bool((dual_value(data, short) < solution.value * 0.999).all())
    assert bool((certify(data, short) >= solution.value * (1 - 1e-5)).all())
    broken = Dual(torch.full_like(short.theta, torch.nan), short.lam, short.d)
    assert bool(torch.isinf(certify(data, broken)).all())


def test_every_iterate_is_dual_feasible_and_the_history_never_rises() -> None:
    data = data_of(nets.problem(nets.dense(8, (5, 12, 12, 3)), 0.5))
    for stop in (1, 3, 6, 40):
        solution = solve(data, max_iterations=stop)
        assert bool((torch.linalg.eigvalsh(slack_matrix(data, solution.dual))[:, 0] > 0).all())
        torch.testing.assert_close(dual_value(data, solution.dual), solution.value)
        assert bool((solution.history.diff(dim=0) <= 0).all())


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_a_batch_gives_what_its_examples_give(norm: str) -> None:
    network = nets.dense(9, (5, 9, 9, 3))
    together = nets.problem(network, 0.2, batch=6, norm=norm)
    gates, _ = setting(together)
    assert len(set(gates.unstable_count.tolist())) > 1
    for only_maximum in (True, False):
        result = bound(together, only_maximum=only_maximum).upper
        for b in range(together.batch):
            alone = bound(together.example(b), only_maximum=only_maximum).upper
            torch.testing.assert_close(result[b : b + 1], alone, rtol=1e-9, atol=0)


def test_pruning_changes_no_maximum() -> None:
    problem = nets.problem(nets.dense(9, (5, 14, 14, 6)), 0.5, batch=3)
    full, pruned = bound(problem, only_maximum=False), bound(problem)
    torch.testing.assert_close(pruned.upper.amax(1), full.upper.amax(1), rtol=2e-4, atol=0)
    assert bool((pruned.upper >= full.upper * (1 - 2e-4)).all()) and bool(pruned.pruned.any())
    best = full.upper.amax(1)
    known = bound(problem, only_maximum=False, prune_below=best * 0.999)
    torch.testing.assert_close(known.upper.amax(1), best, rtol=2e-4, atol=0)
    assert int(known.iterations.sum()) < int(full.iterations.sum())


def test_a_target_stops_early() -> None:
    problem = nets.problem(nets.dense(9, (5, 14, 14, 2)), 0.5)
    full = bound(problem, only_maximum=False)
    target = full.upper.amax(1) * 1.1
    early = bound(problem, only_maximum=False, target=target)
    assert bool((early.upper <= target * (1 + 1e-9)).all())
    assert int(early.iterations.sum()) < int(full.iterations.sum())


def test_without_any_room_the_linear_bound_is_announced() -> None:
    problem = nets.problem(nets.dense(9, (5, 9, 9, 3)), 0.5, batch=2)
    result = bound(problem, memory=1000)
    assert bool(result.no_memory.all()) and bool(result.fell_back.all())
    torch.testing.assert_close(result.upper, result.linear)


@pytest.mark.parametrize(("memory", "left"), [(2**30, 50.0), (150_000, 500.0)])
def test_a_program_that_takes_too_long_is_not_begun(memory: int, left: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs nothing and is said; a restricted one is begun only where all its iterations fit."""
    monkeypatch.setattr("lipcompare.quadratic.bound.first_seconds", lambda *_: 60.0)
    problem = Problem.around(nets.dense(4, (6, 16, 16, 16, 3)), 0.5, 0.8)
    late = bound(problem, memory=memory, deadline=time.perf_counter() + left)
    assert bool(late.too_long.all()) and late.no_time and not bool(late.restricted.any())
    torch.testing.assert_close(late.upper, late.linear)
    said = lipcompare.bound(problem, "sdp", time_limit=left, memory=memory)
    assert said.status is lipcompare.Status.TIME_LIMIT and "would have taken longer" in said.sentence
    assert not bool(bound(problem, memory=memory, deadline=time.perf_counter() + 20 * left).too_long.any())


@settings(max_examples=30)
@given(
    network=nets.networks(),
    eps=st.sampled_from([0.2, 0.6]),
    norm=st.sampled_from(["inf", "2", "1"]),
    memory=st.sampled_from([4_000, 8_000, 14_000, 24_000]),
)
def test_past_the_memory_budget_the_bound_holds(network: Network, eps: float, norm: str, memory: int) -> None:
    problem = nets.problem(network, eps, norm=norm, batch=2)
    gates, _ = setting(problem)
    if int(gates.unstable_count.max()) > 12:
        return
    result = bound(problem, only_maximum=False, memory=memory)
    assert (result.upper >= nets.free_gate_maximum(problem) * (1 - 1e-12)).all()
    assert (result.upper <= result.linear).all()


def test_past_the_memory_budget_more_memory_is_tighter() -> None:
    problem = nets.problem(nets.dense(4, (6, 16, 16, 16, 3)), 0.8)
    results = [bound(problem, only_maximum=False, memory=memory) for memory in (150_000, 300_000, 2**30)]
    assert [bool(r.restricted.any()) for r in results] == [True, True, False]
    assert not any(bool(r.no_memory.any()) for r in results)
    uppers = torch.stack([r.upper for r in results])
    assert bool((uppers.diff(dim=0) < 0).all()) and bool((uppers[1] < 0.95 * results[1].linear).all())


def test_the_widest_signs_are_kept_when_not_all_fit() -> None:
    problem = nets.problem(nets.dense(4, (24, 12, 12, 2)), 0.5)
    gates, gradients = setting(problem)
    linear = norm_bound(problem.network, problem.functionals, gradients, problem.norm)
    maps = gate_maps(problem.network, gates, problem.functionals, gradients)
    example, row = (linear > 0).nonzero(as_tuple=True)
    bounds = []
    for most in (0, 4, 12, 24):
        data = l1_data(maps, gradients, linear[example, row], example, row, most)
        assert data.entries.shape[-1] <= most
        data = rescaled(data, explore(data))
        bounds.append(certify(data, solve(data).dual) * data.scale)
    # A chord can only lose against the absolute value that it replaces.
    assert bool((torch.stack(bounds).diff(dim=0) <= 2e-4 * bounds[-1]).all())
    assert bool((bounds[0] > 1.01 * bounds[-1]).all())
    assert bool((torch.stack(bounds) >= nets.sampled_norms(problem).to(problem.device)[example, row]).all())


def test_kept_data_name_their_gates_in_every_pack() -> None:
    problem = nets.problem(nets.dense(9, (5, 24, 24, 3)), 0.15, batch=6)
    gates, gradients = setting(problem)
    assert len(packs(problem.network, gates, gradients, problem.rows, False, 300_000)) > 1
    result = bound(problem, keep=True, only_maximum=False, memory=300_000)
    assert len(result.solved) > 1 and not bool(result.restricted.any())
    for data, _ in result.solved:
        patterns = explore(data)
        slopes = {k: slope.lower[data.example] for k, slope in gates.slopes.items()}
        for start, stop in data.ranges:
            k = int(data.coordinates.node[start])
            neuron = data.coordinates.neuron[data.example, start:stop]
            high = patterns.high[:, 0, start:stop] & data.mask[:, start:stop]
            top = gates.slopes[k].upper[data.example].gather(-1, neuron)
            low = slopes[k].gather(-1, neuron)
            slopes[k] = slopes[k].scatter(-1, neuron, torch.where(high, top, low))
        gradient = problem.network.pull_back(slopes, problem.functionals[data.example, data.row])
        torch.testing.assert_close(
            gradient.abs().sum(-1), patterns.values[:, 0] * data.scale + data.offset * data.scale
        )


def test_a_deadline_ends_the_iterations_with_a_valid_bound() -> None:
    data = data_of(nets.problem(nets.dense(9, (5, 14, 14, 2)), 0.5))
    full, late = solve(data), Deadline(0.0)
    short = solve(data, deadline=late)
    assert late.missed and bool((short.iterations == 1).all()) and not bool(short.converged.any())
    assert bool((certify(data, short.dual) >= full.value * (1 - 1e-4)).all())
    assert bool(torch.isfinite(short.moments).all())


def test_past_the_deadline_nothing_is_started() -> None:
    problem = nets.problem(nets.dense(9, (5, 14, 14, 2)), 0.5)
    result = bound(problem, deadline=0.0)
    assert result.no_time and bool(result.fell_back.all()) and not bool(result.iterations.any())
    torch.testing.assert_close(result.upper, result.linear)


def test_float32_problems_are_bounded_in_float64() -> None:
    problem = nets.problem(nets.dense(9, (5, 9, 9, 3)), 0.5)
    box = Box(problem.box.lower.float(), problem.box.upper.float())
    single = Problem(problem.network, box)
    result = bound(single)
    assert result.upper.dtype == torch.float64
    torch.testing.assert_close(result.upper, bound(problem).upper, rtol=1e-4, atol=0)


def random_network(seed: int) -> Network:
    """Widths 4 to 24, depths 2 to 7."""
    random = np.random.default_rng(seed)
    width, depth = int(random.integers(4, 25)), int(random.integers(2, 8))
    return nets.dense(seed, (6, *[width] * (depth - 1), 4))


def test_random_networks_converge_in_25_iterations() -> None:
    for seed in range(25):
        result = bound(nets.problem(random_network(seed), float([0.02, 0.1, 0.5][seed % 3])))
        assert int(result.iterations.max()) <= 25
        assert not bool((result.fell_back & (result.upper > 1.01 * result.linear)).any())


def reference(folder: Path) -> tuple[dict[str, dict[str, float]], dict[str, Network]]:
    values: dict[str, dict[str, float]] = json.loads((folder / "reference" / "reference.json").read_text())
    networks = {}
    for name in {key.split("@")[0] for key in values}:
        arrays = np.load(folder / "reference" / f"{name}.npz")
        depth = sum(key.startswith("W") for key in arrays)
        nodes: list[Input | Affine | Activate] = [Input(arrays["W0"].shape[1])]
        for i in range(depth):
            weight, bias = torch.tensor(arrays[f"W{i}"]), torch.tensor(arrays[f"b{i}"])
            nodes.append(Affine((len(nodes) - 1,), (Dense(weight),), bias))
            if i + 1 < depth:
                nodes.append(Activate(len(nodes) - 1, LeakyReLU(0.0), nodes[-1].size))
        networks[name] = Network(tuple(nodes), (nodes[0].size,), (nodes[-1].size,))
    return values, networks


def test_reference_suite(shared: Path) -> None:
    values, networks = reference(shared)
    for key, value in values.items():
        name, eps = key.split("@")
        if (name == "mlp3_w128" or name in ("mlp_d7_w32", "mlp_d8_w32")) and eps != "0.02":
            continue
        problem = Problem.around(networks[name], 0.5, float(eps))
        gates, gradients = setting(problem, Tightening.CROWN)
        result = sdp_bound(problem.network, gates, problem.functionals, gradients, Norm.INF)
        upper = float(result.upper.max())
        assert value["lower"] * (1 - 1e-12) <= upper <= float(result.linear.max())
        assert upper <= value["quadratic_prototype"]["value"] * 1.001  # type: ignore[index]


@pytest.mark.parametrize("norm", list(Norm))
def test_nothing_is_proved_where_numbers_out_of_range_cancelled(norm: Norm) -> None:
    problem = nets.problem(nets.dense(0, (2, 3, 1)), 0.3)
    gates, gradients = setting(problem)
    unknown = torch.full_like(gradients.intervals[0].lower, torch.nan)
    gradients = dataclasses.replace(gradients, intervals={**gradients.intervals, 0: Interval(unknown, unknown)})
    found = sdp_bound(problem.network, gates, problem.functionals, gradients, norm)
    assert truth(problem).admits_upper(0, norm, float(found.upper))


@pytest.mark.parametrize("scale", [1e-160, 1e-170, 1e-200])
def test_squares_that_underflow_bound_no_root(scale: float) -> None:
    """For p = 2 programs bound squares: that of 1e-170 is 0, and says nothing."""
    problem = nets.problem(nets.dense(5, (3, 6, 6, 2)), 0.5, norm="2")
    small = dataclasses.replace(problem, functionals=problem.functionals * scale)
    upper = lipcompare.bound(small, "sdp").upper
    assert (nets.sampled_norms(small).numpy() <= upper).all() and (upper <= 10 * scale).all()


def test_squares_that_vanish_one_by_one_bound_no_root() -> None:
    """The square of the norm is not 0, as that of 1e-170 is, but those of all its entries are."""
    weight = torch.linspace(0.2, 0.4, 400, dtype=torch.float64).unsqueeze(0) * 1e-162
    network = Network((Input(400), Affine((0,), (Dense(weight),), None)), (400,), (1,))
    found = bound(nets.problem(network, 1.0, norm="2"))
    assert float(found.linear.square()) > 0 and not bool(weight.square().any())
    assert sum(Fraction(w) ** 2 for w in weight[0].tolist()) <= Fraction(float(found.upper)) ** 2


def test_the_root_of_a_certified_square_is_rounded_upward() -> None:
    """Of squares whose roots, and products with the scale, are rounded to either side, in rational arithmetic."""
    problem = nets.problem(nets.dense(9, (3, 5, 40)), 0.5, norm="2", batch=3)
    said: list[tuple[Fraction, Fraction]] = []

    def drawn(data: SdpData, dual: Dual) -> torch.Tensor:
        """What a certificate of squares might be, far below the linear bounds."""
        share = torch.rand(data.problems, generator=torch.Generator().manual_seed(len(said)), dtype=torch.float64) / 4
        said.extend((Fraction(a), Fraction(b)) for a, b in zip(share.tolist(), data.scale.tolist(), strict=True))
        return share

    with mock.patch("lipcompare.quadratic.bound.certify", drawn):
        found = bound(problem, only_maximum=False)
    assert len(said) == found.upper.numel() and bool((found.upper < 0.6 * found.linear).all())
    squares, roots = sorted(a * b for a, b in said), sorted(map(Fraction, found.upper.flatten().tolist()))
    # Roots in the order of their squares: rounding does not change it, but for ties that no draw has.
    assert all(
        square <= root**2 <= square * (1 + Fraction(1, 10**14)) for square, root in zip(squares, roots, strict=True)
    )
