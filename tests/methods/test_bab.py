"""Branch and bound against brute force, and everything that may stop it."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import nets
import numpy as np
import pytest
import torch
from branching.brute import exact_rows
from hypothesis import given, settings
from hypothesis import strategies as st

import lipcompare
from lipcompare import InvalidInput, Network, Problem, Status
from lipcompare.branching import bounds, race
from lipcompare.branching.bounds import sdp
from lipcompare.branching.cuts import solve_with_cuts
from lipcompare.branching.driver import Search
from lipcompare.methods import bab
from lipcompare.methods.bab import Bab, Schedule, _Between
from lipcompare.network import Activate, Affine, Input, LeakyReLU
from lipcompare.network.linear_maps import Dense
from lipcompare.result import Witness

QUICK = {"attack_seconds": 0.2}
VARIANTS = [
    Bab(**QUICK),
    Bab(cuts=0, **QUICK),
    Bab(bound="sdp", **QUICK),
    Bab(bound="lbp", **QUICK),
    Bab(bound="lbp", heuristic="babsr", batch=3, **QUICK),
    Bab(bound="lbp", schedule=Schedule.CLASSES, pivots=0, **QUICK),
]


def correlated(seed: int, neurons: int = 6) -> Network:
    """First-layer neurons that are nearly parallel, so that almost all free-gate patterns hold nowhere."""
    random = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=random, dtype=torch.float64)  # noqa: E731
    base = draw(1, 2)
    first = base + 0.05 * draw(neurons, 2)
    first[::2] *= -1
    nodes = (
        Input(2),
        Affine((0,), (Dense(first),), 0.1 * draw(neurons)),
        Activate(1, LeakyReLU(0.0), neurons),
        Affine((2,), (Dense(draw(4, neurons)),), 0.1 * draw(4)),
        Activate(3, LeakyReLU(0.0), 4),
        Affine((4,), (Dense(draw(2, 4)),), None),
    )
    return Network(nodes, (2,), (2,))


def check(problem, method, gap=1e-4):
    result = lipcompare.bound(problem, method, gap=gap)
    truth = exact_rows(problem)
    assert (result.lower[0] <= truth * (1 + 1e-9) + 1e-12).all()
    assert (result.upper[0] >= truth * (1 - 1e-9)).all()
    assert result.status is Status.EXACT, result
    assert float(result.overall_upper[0]) <= truth.max() * (1 + 1.01 * gap) + 1e-9
    points = result.trace
    for before, after in itertools.pairwise(points):
        assert after.lower >= before.lower and after.upper <= before.upper
    for point in points:
        assert point.lower <= truth.max() * (1 + 1e-9) and point.upper >= truth.max() * (1 - 1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_brute_force_where_every_program_has_cuts(seed, monkeypatch):
    for name, value in {"_LARGE": 0, "_WORTH": 0.0, "_PAYS": -1e9, "_NEAR": 99, "_AGAIN": 2}.items():
        monkeypatch.setattr(sdp, name, value)
    begun = []
    monkeypatch.setattr(sdp, "solve_with_cuts", lambda *a, **k: begun.append(solve_with_cuts(*a, **k)) or begun[-1])
    check(nets.problem(nets.FAMILIES["dense"](seed), 0.6, seed), Bab(cuts=20, **QUICK))
    assert any(bool((found.cuts.nu > 0).any()) for found in begun)


def in_short_turns(monkeypatch):
    """The trees of searches from now on, once per turn."""
    monkeypatch.setattr(race, "_FIRST", 1e-3)
    ran, advance = [], race.Tree.advance
    monkeypatch.setattr(race.Tree, "advance", lambda tree, until: ran.append(tree) or advance(tree, until))
    return ran


@pytest.mark.parametrize("schedule", list(Schedule))
@pytest.mark.parametrize("norm", ["inf", "1"])
def test_agrees_with_brute_force_where_trees_race(schedule, norm, monkeypatch):
    """Turns are so short that both trees have some; the limit decides nothing."""
    ran = in_short_turns(monkeypatch)
    problem = nets.problem(nets.dense(3, (3, 8, 8, 2)), 0.6, norm=norm)
    check(problem, Bab(schedule=schedule, **QUICK))
    bounds = {type(tree.evaluator.bound).__name__ for tree in ran}
    assert bounds == {"QuadraticBound", "LinearBound"}


@pytest.mark.parametrize("alone", [{"node_limit": 10**6}, {"heuristic": "moment"}, {"bound": "sdp"}, {"bound": "lbp"}])
def test_one_tree_does_not_race(alone, monkeypatch):
    ran = in_short_turns(monkeypatch)
    check(nets.problem(nets.dense(3, (3, 8, 8, 2)), 0.6), Bab(**alone, **QUICK))
    assert len({id(tree) for tree in ran}) == 1


def test_points_are_looked_for_again_in_a_part_of_the_time(monkeypatch):
    """From other random numbers each time, where the time that is left allows it; what is found is kept."""
    now, tried = [0.0], []

    def look(problem, seed, deadline, memory):
        tried.append(seed)
        now[0] += 0.5
        return [Witness(0, float(seed), np.zeros(problem.network.in_size))]

    monkeypatch.setattr(bab.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(bab, "first_points", look)
    problem = nets.problem(nets.dense(0), 0.3)
    left, search = [2.0], Search.start([9.0] * problem.rows)
    between = _Between(problem, 7, lambda: left[0], 2**30, None)
    between(search)
    assert tried == []  # no time has passed
    for now[0], seeds in ((5.0, [8]), (15.0, [8]), (16.0, [8, 9])):
        between(search)
        assert tried == seeds and search.best == seeds[-1]
    now[0], left[0] = 100.0, 0.4
    between(search)
    assert tried == [8, 9]


def test_the_race_is_among_the_names_that_are_meant():
    with pytest.raises(InvalidInput, match="race"):
        Bab(bound="rase")


@settings(max_examples=4, deadline=None)
@given(
    st.sampled_from(["dense", "leaky", "residual", "pooling", "concatenation"]),
    st.integers(0, 10**6),
    st.sampled_from(VARIANTS),
)
def test_agrees_with_brute_force(family, seed, method):
    check(nets.problem(nets.FAMILIES[family](seed), 0.6, seed), method)


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(VARIANTS))
def test_patterns_that_hold_nowhere_are_ruled_out(seed, method):
    check(Problem.around(correlated(seed), 0.0, 0.5), method)


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("bound", bounds.names())
def test_every_norm(norm, bound):
    seed = bounds.names().index(bound)
    check(nets.problem(nets.dense(seed, (3, 4, 3, 2)), 0.5, seed, norm=norm), Bab(bound=bound, **QUICK))


def test_a_value_at_a_kink_counts():
    result = lipcompare.bound(Problem.around(nets.kinked(), 0.0, 0.5), Bab(**QUICK))
    assert result.status is Status.EXACT
    assert result.upper[0, 0] == pytest.approx(2) and result.lower[0, 0] == pytest.approx(2)


@pytest.mark.parametrize("bound", bounds.names())
def test_boxes_with_few_inputs_are_halved(bound):
    problem = nets.problem(nets.dense(2, (1, 12, 10, 2)), 2.0)
    check(problem, Bab(bound=bound, **QUICK))


def test_a_box_of_one_point():
    network = nets.dense(0)
    problem = nets.problem(network, 0.0)
    check(problem, Bab(**QUICK))


def hard() -> Problem:
    """Takes a few hundred subdomains with the linear bound."""
    return nets.problem(nets.dense(3, (4, 10, 8, 3)), 0.6)


HARD = Bab(bound="lbp", batch=8, **QUICK)


@functools.cache
def solved() -> lipcompare.Bound:
    """The hard problem to its end."""
    return lipcompare.bound(hard(), HARD)


def test_limits_leave_a_valid_interval():
    truth = solved()
    assert truth.status is Status.EXACT
    value = truth.overall_upper[0]
    few = lipcompare.bound(hard(), dataclasses.replace(HARD, node_limit=16))
    assert few.status is Status.NODE_LIMIT
    short = lipcompare.bound(hard(), HARD, time_limit=0.3)
    small = lipcompare.bound(hard(), HARD, memory=2000)
    assert small.status in (Status.MEMORY_LIMIT, Status.EXACT)
    for result in (few, short, small):
        assert result.overall_lower[0] <= value * (1 + 1e-9) and result.overall_upper[0] >= value * (1 - 1e-4)


@pytest.mark.parametrize("calls", [1, 3, 5])
def test_ctrl_c_leaves_a_valid_interval(calls):
    seen = []

    def interrupt(point):
        seen.append(point)
        if len(seen) >= calls:
            raise KeyboardInterrupt

    result = lipcompare.bound(hard(), HARD, on_progress=interrupt)
    assert result.status is Status.INTERRUPTED
    assert result.overall_lower[0] <= result.overall_upper[0] <= seen[0].upper
    assert np.isfinite(result.overall_upper[0])


def test_a_search_resumes_where_it_stopped(tmp_path):
    state = str(tmp_path / "search.npz")
    whole = solved()
    result = lipcompare.bound(hard(), dataclasses.replace(HARD, node_limit=40, state=state))
    assert result.status is Status.NODE_LIMIT
    uppers = [result.overall_upper[0]]
    for _ in range(100):
        result = lipcompare.bound(hard(), dataclasses.replace(HARD, node_limit=160, state=state))
        uppers.append(result.overall_upper[0])
        if result.status is Status.EXACT:
            break
    assert result.status is Status.EXACT
    assert uppers == sorted(uppers, reverse=True)
    assert result.overall_upper[0] == pytest.approx(whole.overall_upper[0], rel=2e-4)
    with pytest.raises(InvalidInput, match="another problem"):
        lipcompare.bound(nets.problem(nets.dense(2, (4, 10, 8, 3)), 0.6), dataclasses.replace(HARD, state=state))
    (tmp_path / "search.npz").write_bytes(b"nonsense")
    with pytest.raises(InvalidInput, match="not a saved search"):
        lipcompare.bound(hard(), dataclasses.replace(HARD, state=state))


def test_a_batch_is_its_examples():
    problem = nets.problem(nets.dense(5, (3, 6, 5, 2)), 0.6, batch=2)
    together = lipcompare.bound(problem, Bab(**QUICK))
    for b in range(2):
        alone = lipcompare.bound(problem.example(b), Bab(**QUICK))
        np.testing.assert_allclose(together.overall_upper[b], alone.overall_upper[0], rtol=2e-4)
        np.testing.assert_allclose(together.overall_lower[b], alone.overall_lower[0], rtol=2e-4)


def test_single_precision_problems_are_searched_in_double():
    problem = nets.problem(nets.dense(5, (3, 6, 5, 2)), 0.6)
    single = Problem(problem.network, lipcompare.Box(problem.box.lower.float(), problem.box.upper.float()))
    result = lipcompare.bound(single, Bab(**QUICK))
    assert result.status is Status.EXACT
    assert result.overall_upper[0] == pytest.approx(exact_rows(problem).max(), rel=1e-3)


def test_what_does_not_apply_says_so():
    from lipcompare.gates import has_patterns

    assert has_patterns(nets.dense(0))
    wrong = lipcompare.bound(nets.problem(nets.dense(0), 0.1), Bab(bound="lbp", heuristic="moment"))
    assert wrong.status is Status.UNSUPPORTED


@pytest.mark.parametrize("method", ["bab", "auto"])
def test_whoever_watches_hears_of_the_search(method):
    notes, points = [], []
    problem = hard()
    result = lipcompare.bound(problem, method, on_progress=points.append, on_note=notes.append)
    if "bab" in (method, result.detail.rpartition("Took ")[2].rstrip(".")):  # auto may take another exact method
        assert any("subdomains" in note and "open" in note for note in notes)
    assert notes and tuple(points) == result.trace
    for before, after in itertools.pairwise(points):
        assert after.lower >= before.lower and after.upper <= before.upper and after.seconds >= before.seconds


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_ends_the_bounds_over_the_whole_box_proves_nothing(error, monkeypatch):
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr("lipcompare.methods.linear.propagate", fail)
    result = lipcompare.bound(hard(), HARD)
    assert result.status in (Status.INTERRUPTED, Status.OUT_OF_MEMORY) and np.isinf(result.upper).all()


@pytest.mark.parametrize("method", ["bab", "lipbab", "enumerate", "exact", "auto"])
@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_a_network_without_an_activation_has_one_gradient(method, norm):
    network = lipcompare.load(torch.nn.Linear(5, 3).double())
    problem = Problem.around(network, 0.3, 0.1, norm=norm)
    result = lipcompare.bound(problem, method)
    truth = problem.norm.dual.of(network.pull_back({}, torch.eye(3, dtype=torch.float64))).numpy()
    assert result.status is Status.EXACT
    np.testing.assert_allclose(result.lower[0], truth, rtol=1e-9)
    np.testing.assert_allclose(result.upper[0], truth, rtol=1e-9)
    assert (result.upper[0] >= truth).all()
