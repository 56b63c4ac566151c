"""Input splitting on smooth networks: against dense sampling, at jumps of derivatives, and when it is stopped."""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import sys
from pathlib import Path

import nets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lipcompare
from lipcompare import Box, InvalidInput, Problem, Status
from lipcompare.branching.boxes import BoxEvaluator
from lipcompare.branching.tree import Subdomain
from lipcompare.methods.bab import Bab, Schedule
from lipcompare.network.activations import smooth
from lipcompare.propagation import propagate

QUICK = Bab(attack_seconds=0.1)
SMOOTH = ("sigmoid", "tanh", "softplus", "elu", "silu", "gelu", "mish", "softsign", "arctan")


def tiny(kind: str, seed: int, sizes: tuple[int, ...] = (2, 5, 4, 2)) -> Problem:
    return nets.problem(nets.dense(seed, sizes, smooth.TABLE[kind]()), 0.5, seed)


def grid(problem: Problem, points: int = 60) -> np.ndarray:
    """Largest norm (rows,) of the first example over a grid with the corners, by the chain rule."""
    lower, upper = problem.box.lower[0], problem.box.upper[0]
    axes = [torch.linspace(float(a), float(b), points, dtype=torch.float64) for a, b in zip(lower, upper, strict=True)]
    x = torch.cartesian_prod(*axes)
    slopes = {k: v.unsqueeze(1) for k, v in problem.network.slopes(problem.network.values(x)).items()}
    rows = problem.functionals.expand(len(x), -1, -1)
    values: np.ndarray = problem.norm.dual.of(problem.network.pull_back(slopes, rows)).amax(0).numpy()
    return values


@settings(max_examples=3, deadline=None)
@given(st.sampled_from(SMOOTH), st.integers(0, 10**6), st.sampled_from(["inf", "2", "1"]))
def test_reaches_the_gap_around_what_a_grid_sees(kind, seed, norm):
    problem = dataclasses.replace(tiny(kind, seed, (2, 4, 3, 2)), norm=lipcompare.Norm(norm))
    result = lipcompare.bound(problem, QUICK, gap=5e-2, time_limit=120)
    seen = grid(problem)
    assert result.status is Status.EXACT, result
    assert (result.upper[0] >= seen * (1 - 1e-9)).all()
    assert result.overall_lower[0] >= seen.max() * 0.94
    for before, after in itertools.pairwise(result.trace):
        assert after.lower >= before.lower and after.upper <= before.upper


@settings(max_examples=8, deadline=None)
@given(st.sampled_from([*SMOOTH, "hardswish"]), st.integers(0, 10**6), st.data())
def test_the_bound_of_every_part_holds(kind, seed, data):
    problem = tiny(kind, seed)
    evaluator = BoxEvaluator(problem)
    first = 2 * evaluator.numbering.count
    decisions = tuple(first + data.draw(st.integers(0, 3)) for _ in range(data.draw(st.integers(0, 6))))
    nodes = [Subdomain(np.inf, row, decisions) for row in range(problem.rows)]
    box = evaluator.numbering.boxes([np.array(decisions, dtype=np.int64)], evaluator.box)
    seen = grid(dataclasses.replace(problem, box=Box(*box)), 25)
    for node, result in zip(nodes, evaluator.evaluate(nodes, 0.0, 0.0), strict=True):
        assert result.upper >= seen[node.row] * (1 - 1e-9)
        (found,) = result.witnesses
        inside = torch.as_tensor(found.point)
        assert bool(((inside >= box.lower[0]) & (inside <= box.upper[0])).all())
        assert found.value <= result.upper * (1 + 1e-9)


def test_it_is_far_tighter_than_the_bound_on_the_whole_box():
    problem = tiny("tanh", 3, (3, 8, 8, 2))
    whole = lipcompare.bound(problem, "lbp").overall_upper[0]
    result = lipcompare.bound(problem, QUICK, gap=1e-2, time_limit=30)
    assert result.status is Status.EXACT
    assert result.overall_upper[0] < 0.8 * whole


@pytest.mark.parametrize("kind", ["hardswish", "mixed"])
def test_jumps_of_derivatives(kind):
    problem = nets.problem(nets.mixed(2), 0.4) if kind == "mixed" else tiny("hardswish", 1)
    result = lipcompare.bound(problem, QUICK, gap=1e-2, time_limit=3)
    assert (result.upper[0] >= nets.sampled_norms(problem, 2000)[0].numpy() * (1 - 1e-9)).all()
    assert result.overall_lower[0] > 0


def test_a_jump_in_a_corner_ends_the_search():
    """HardSwish jumps at -3: boxes that touch it shrink without end, but they are not halved for ever."""
    network = nets.dense(0, (1, 1, 1), smooth.hardswish())
    weight, bias = float(network.nodes[1].maps[0].weight), float(network.nodes[1].bias)
    problem = Problem.around(network, (-3 - bias) / weight, 0.1)
    result = lipcompare.bound(problem, QUICK, gap=0.0)
    assert result.status in (Status.COMPLETE, Status.EXACT)
    slope = abs(weight * float(network.nodes[3].maps[0].weight))
    assert result.overall_upper[0] >= 0.5 * slope * (1 - 1e-9)


def test_limits_leave_a_valid_interval():
    problem = tiny("gelu", 5, (3, 5, 4, 2))
    seen = nets.sampled_norms(problem, 2000)[0].numpy()
    for result in (
        lipcompare.bound(problem, dataclasses.replace(QUICK, node_limit=10), gap=1e-6),
        lipcompare.bound(problem, QUICK, gap=1e-6, time_limit=0.5),
        lipcompare.bound(problem, QUICK, gap=1e-6, memory=1_000),
    ):
        assert result.status in (Status.NODE_LIMIT, Status.TIME_LIMIT, Status.MEMORY_LIMIT)
        assert (result.upper[0] >= seen * (1 - 1e-9)).all() and np.isfinite(result.upper).all()


def test_ctrl_c_leaves_a_valid_interval():
    seen = []

    def interrupt(point):
        seen.append(point)
        if len(seen) == 3:
            raise KeyboardInterrupt

    problem = tiny("tanh", 3, (3, 8, 8, 2))
    result = lipcompare.bound(problem, QUICK, gap=1e-6, on_progress=interrupt)
    assert result.status is Status.INTERRUPTED
    assert result.overall_lower[0] <= result.overall_upper[0] <= seen[0].upper


def test_a_search_resumes_where_it_stopped(tmp_path):
    problem, state = tiny("tanh", 3, (3, 8, 8, 2)), str(tmp_path / "search.npz")
    part = dataclasses.replace(QUICK, state=state, node_limit=20, batch=16)
    uppers = []
    for _ in range(60):
        result = lipcompare.bound(problem, part, gap=1e-2)
        uppers.append(result.overall_upper[0])
        if result.status is Status.EXACT:
            break
        assert result.status is Status.NODE_LIMIT
    assert len(uppers) > 2 and result.status is Status.EXACT
    assert uppers == sorted(uppers, reverse=True)
    with pytest.raises(InvalidInput, match="another problem"):
        lipcompare.bound(tiny("tanh", 4, (3, 8, 8, 2)), part)


def test_one_row_after_another():
    problem = tiny("sigmoid", 6)
    apart = lipcompare.bound(problem, dataclasses.replace(QUICK, schedule=Schedule.CLASSES), gap=1e-2)
    assert apart.status is Status.EXACT
    assert (apart.upper[0] >= grid(problem) * (1 - 1e-9)).all()


def test_a_batch_and_single_precision():
    network = nets.dense(2, (2, 5, 4, 2), smooth.tanh())
    problem = nets.problem(network, 0.3, batch=2)
    together = lipcompare.bound(problem, QUICK, gap=3e-2)
    assert together.status is Status.EXACT
    box = Box(problem.box.lower.float(), problem.box.upper.float())
    single = lipcompare.bound(Problem(network, box), QUICK, gap=3e-2)
    np.testing.assert_allclose(single.overall_upper, together.overall_upper, rtol=4e-2)


def test_heuristics_are_for_gates():
    result = lipcompare.bound(tiny("tanh", 0), Bab(heuristic="area"))
    assert result.status is Status.UNSUPPORTED and "leave the heuristic out" in result.detail


ELSEWHERE = """
import dataclasses, sys
import numpy as np
import lipcompare, nets
from branching.test_boxes import QUICK, tiny
part = dataclasses.replace(QUICK, state=sys.argv[1], node_limit=20, batch=16)
result = lipcompare.bound(tiny(sys.argv[2], 3), part, gap=1e-6)
assert result.status is lipcompare.Status.NODE_LIMIT, result
print(repr(float(result.overall_upper[0])))
"""


def test_a_search_resumes_in_another_process(tmp_path):
    """What a problem is does not depend on where its functions lie in memory."""
    state, tests = tmp_path / "search.npz", Path(__file__).parents[1]
    path = {"PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])}
    script = [sys.executable, "-c", ELSEWHERE, str(state), "gelu"]
    done = subprocess.run(script, capture_output=True, text=True, env={**os.environ, **path}, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(np.load(state)["nodes"]) == 20
    part = dataclasses.replace(QUICK, state=str(state), node_limit=20, batch=16)
    result = lipcompare.bound(tiny("gelu", 3), part, gap=1e-6)
    assert int(np.load(state)["nodes"]) == 40  # it went on, and did not start over
    assert result.overall_upper[0] <= float(done.stdout)


def test_a_bound_that_is_not_a_number_is_none(monkeypatch):
    def broken(*arguments, **options):
        found = propagate(*arguments, **options)
        return dataclasses.replace(found, upper=torch.full_like(found.upper, torch.nan))

    monkeypatch.setattr("lipcompare.branching.boxes.propagate", broken)
    (said,) = BoxEvaluator(tiny("tanh", 3), lifted=False).evaluate([Subdomain(float("inf"), 0)], 0.0, 0.0)
    assert said.upper == float("inf") and said.chain


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_the_whole_box_has_the_program(norm):
    problem = dataclasses.replace(tiny("tanh", 3, (2, 6, 6, 6, 2)), norm=lipcompare.Norm(norm))
    roots = [Subdomain(float("inf"), row) for row in range(2)]
    lifted = [part.upper for part in BoxEvaluator(problem).evaluate(roots, 0.0, 0.0)]
    plain = [part.upper for part in BoxEvaluator(problem, lifted=False).evaluate(roots, 0.0, 0.0)]
    program = lipcompare.bound(problem, lipcompare.methods.Sdp(tightening="crown", all_rows=True)).upper[0]
    assert (np.array(lifted) >= grid(problem, 30) * (1 - 1e-9)).all()
    assert max(lifted) <= program.max() * (1 + 1e-2) and max(lifted) <= max(plain)
    if norm == "inf":
        assert max(lifted) < 0.95 * max(plain)
    halves = [Subdomain(float("inf"), 0, (2 * 18 + side,)) for side in (0, 1)]
    for one, other in zip(
        *(BoxEvaluator(problem, lifted=way).evaluate(halves, 0.0, 0.0) for way in (True, False)), strict=True
    ):
        assert one.upper == other.upper
