"""One evaluation of subdomains against brute force: what it bounds, closes, splits and proposes."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import nets
import numpy as np
import pytest
import torch
from branching.brute import cancelling, exact_rows

from lipcompare import Box, Problem
from lipcompare.branching.bounds import Settings, tree_bound
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.evaluator import NetworkEvaluator, _with_signs, halving_threshold, whole_of
from lipcompare.branching.heuristics import HEURISTICS
from lipcompare.branching.roots import whole_box
from lipcompare.branching.tree import Subdomain
from lipcompare.budget import Deadline
from lipcompare.jacobian.gradients import Gradients
from lipcompare.jacobian.patches import Plan, _costs
from lipcompare.network import Affine
from lipcompare.network.interval import Interval
from lipcompare.network.linear_maps import Dense
from lipcompare.preactivation import Tightening, interval_bounds
from lipcompare.regions.program import Deepest
from lipcompare.witness import clarke


def evaluator_of(problem: Problem, bound: str = "sdp", **options: Any) -> NetworkEvaluator:
    chosen = tree_bound(bound)
    heuristic = HEURISTICS[chosen.default_heuristic(problem.norm)]
    return NetworkEvaluator(
        problem=problem,
        bounds=interval_bounds(problem.network, problem.box.interval),
        bound=chosen.on(Numbering(problem.network), problem.norm, heuristic, Settings()),
        **options,
    )


class Truth:
    """The largest norm in a subdomain, over many points of it."""

    def __init__(self, problem: Problem) -> None:
        network, self.numbering = problem.network, Numbering(problem.network)
        self.box = Interval(problem.box.lower[0], problem.box.upper[0])
        unit = torch.quasirandom.SobolEngine(network.in_size, seed=0).draw(4096, dtype=torch.float64)
        self.points = self.box.lower + unit.to(problem.device) * (self.box.upper - self.box.lower)
        slopes = network.slopes(network.values(self.points))
        self.active = self.numbering.join(slopes) == 1
        self.gradients = network.pull_back(slopes, problem.functionals[0].unsqueeze(1))  # (rows, points, inputs)
        self.norms = problem.norm.dual.of(self.gradients)

    def of(self, node: Subdomain) -> float:
        made = np.array(node.decisions, dtype=np.int64)
        gates, entries = self.numbering.signs([made])
        lower, upper = (end[0] for end in self.numbering.boxes([made], self.box))
        sides, entries = self.numbering.join(gates)[0].to(self.points.device), entries.to(self.points.device)
        inside = ((self.points >= lower) & (self.points <= upper)).all(-1)
        inside &= ((sides == 0) | ((sides > 0) == self.active)).all(-1)
        inside &= (entries[0] * self.gradients[node.row] >= 0).all(-1)
        return float(self.norms[node.row][inside].max()) if bool(inside.any()) else -np.inf


def random_nodes(problem: Problem, count: int, seed: int) -> list[Subdomain]:
    """Gates, entries and halvings decided at random."""
    random, numbering = np.random.default_rng(seed), Numbering(problem.network)
    nodes = []
    for _ in range(count):
        names = random.choice(numbering.count, random.integers(0, 5), replace=False)
        made = [2 * int(name) + int(random.integers(2)) for name in names]
        made += [2 * numbering.count + int(random.integers(2 * problem.network.in_size)) for _ in range(2)]
        nodes.append(
            Subdomain(np.inf, int(random.integers(problem.rows)), tuple(made[: len(made) - random.integers(3)]))
        )
    return nodes


@pytest.mark.parametrize("bound", ["sdp", "lbp"])
@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_bounds_hold_and_splits_are_new(norm: str, bound: str) -> None:
    problem = nets.problem(nets.dense(5, (2, 4, 3, 2), 0.2), 0.8, norm=norm)
    truth, evaluator, rows = Truth(problem), evaluator_of(problem, bound), exact_rows(problem)
    nodes = random_nodes(problem, 24, 0)
    nodes += [Subdomain(np.inf, row) for row in range(problem.rows)]
    empty = 0
    for node, said in zip(nodes, evaluator.evaluate(nodes, 0.0, 0.0), strict=True):
        value = truth.of(node)
        assert said.upper >= value * (1 - 1e-9)
        empty += said.upper == -np.inf
        for witness in said.witnesses:
            assert witness.value <= rows[witness.row] * (1 + 1e-9)
        gates = {d >> 1 for d in node.decisions if d < 2 * evaluator.numbering.count}
        assert not gates & {d >> 1 for d in said.chain}
        # What is covered by the children, or closed, is all of it.
        children = list(dataclasses.replace(node, chain=said.chain, closed=said.closed).children())
        assert not said.chain or max(truth.of(child) for child in children) == value
    assert empty > 2


@pytest.mark.parametrize("bound", ["sdp", "lbp"])
@pytest.mark.parametrize("seed", range(3))
def test_rows_that_share_subdomains_are_bounded_as_alone_and_split_alike(seed: int, bound: str) -> None:
    """All follow the row with the largest bound, but one that asks for a sign of its own gradient."""
    problem = nets.problem(nets.dense(seed, (2, 4, 3, 4), 0.2), 0.8)
    count = Numbering(problem.network).count
    made = list({node.decisions for node in random_nodes(problem, 12, seed)})
    nodes = [Subdomain(np.inf, row, decisions) for decisions in made for row in range(problem.rows)]
    alone = evaluator_of(problem, bound).evaluate(nodes, 0.0, 0.0)
    for node, said in zip(nodes, alone, strict=True):
        (single,) = evaluator_of(problem, bound).evaluate([node], 0.0, 0.0)
        assert said.upper == pytest.approx(single.upper, rel=1e-9)
    shared = evaluator_of(problem, bound, shares=True).evaluate(nodes, 0.0, 0.0)
    followers = 0
    for place in range(0, len(nodes), problem.rows):
        pairs = list(zip(alone[place : place + problem.rows], shared[place : place + problem.rows], strict=True))
        for one, other in pairs:
            assert other.upper == pytest.approx(one.upper, rel=1e-9)
            assert bool(other.chain) == bool(one.chain)
        own = [any(count - problem.network.in_size <= d >> 1 < count for d in one.chain) for one, _ in pairs]
        asked = [pair for pair, mine in zip(pairs, own, strict=True) if pair[0].chain and not mine]
        if asked:
            largest = max(one.upper for one, _ in asked) * (1 - 1e-9)
            (way,) = {(other.chain, other.closed) for _, other in asked}
            assert way in {(one.chain, one.closed) for one, _ in asked if one.upper >= largest}
            followers += sum(one.chain != way[0] for one, _ in asked)
        assert all(one.chain == other.chain for (one, other), mine in zip(pairs, own, strict=True) if mine)
    assert followers


def test_rows_that_share_a_subdomain_are_bounded_together_whatever_time_that_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only where they do not fit in memory they are not."""
    problem = nets.problem(nets.dense(0, (2, 4, 3, 4), 0.2), 0.8)
    nodes = [Subdomain(np.inf, row, (2 * gate + 1,)) for gate in range(3) for row in range(problem.rows)]
    bounded, evaluator = list[list[int]](), evaluator_of(problem, "lbp", shares=True)
    evaluate = evaluator._evaluate

    def counting(some: Any, *rest: float) -> Any:
        bounded.append([node.row for node in some])
        return evaluate(some, *rest)

    monkeypatch.setattr(evaluator, "_evaluate", counting)
    every = list(range(problem.rows))
    for together, room, expected in (
        (1, 100, [every] * 3),
        (2, 100, [every * 2, every]),
        (9, problem.rows + 1, [every] * 3),
        (9, 3, [[0, 1, 2], [3], [0, 1, 2], [3], [0, 1, 2], [3]]),
    ):
        bounded.clear()
        evaluator.together, evaluator.room = together, room
        assert len(evaluator.evaluate(nodes, 0.0, 0.0)) == len(nodes) and bounded == expected


def test_a_region_is_closed_at_its_value() -> None:
    """With every gate decided there is one gradient left: the bound is its norm, attained at a point inside."""
    problem = nets.problem(nets.dense(5, (2, 4, 3, 2)), 0.8)
    evaluator, truth = evaluator_of(problem), Truth(problem)
    box = problem.box.interval
    point = box.lower[0] + 0.3 * (box.upper - box.lower)[0]
    active = evaluator.gatewise.active(evaluator.numbering.join(problem.network.slopes(problem.network.values(point))))
    node = Subdomain(np.inf, 1, tuple(2 * g + int(on) for g, on in enumerate(active.tolist())))
    (said,) = evaluator.evaluate([node], 0.0, 0.0)
    assert said.upper == pytest.approx(truth.of(node), rel=1e-9) and said.upper >= truth.of(node)
    assert said.chain == ()
    (witness,) = said.witnesses
    assert witness.value == pytest.approx(said.upper, rel=1e-9)
    at = clarke(problem.network, torch.as_tensor(witness.point).unsqueeze(0))
    assert bool((evaluator.gatewise.active(evaluator.numbering.join(at.slopes))[0] == active).all())


def test_the_value_of_a_region_is_rounded_upward_where_paths_cancel() -> None:
    for problem, exact in cancelling():
        (said,) = evaluator_of(problem).evaluate([Subdomain(np.inf, 0)], 0.0, -1.0)
        assert said.chain == () and exact <= Fraction(said.upper) <= exact * (1 + Fraction(1, 10**6))


def test_what_is_good_enough_is_closed_without_a_program() -> None:
    problem = nets.problem(nets.dense(5, (2, 4, 3, 2)), 0.8)
    evaluator = evaluator_of(problem)
    (said,) = evaluator.evaluate([Subdomain(np.inf, 0)], 0.0, 1e6)
    assert said.chain == () and np.isfinite(said.upper) and evaluator.programs == 0


def test_contradictions_are_excluded_at_once() -> None:
    """Two parallel neurons: the pattern that the bound proposes holds nowhere, and one split leaves it out."""
    b = nets.Builder(2, 0)
    one = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    b.nodes.append(Affine((0,), (Dense(one),), torch.tensor([-0.3, -0.3], dtype=torch.float64)))
    b.activate()
    b.nodes.append(Affine((2,), (Dense(torch.tensor([[1.0, -1.0]], dtype=torch.float64)),), None))
    problem = Problem.around(b.build(), 0.0, 1.0)  # relu(x - 0.3) - relu(-x - 0.3): never both active, slope 1
    (said,) = evaluator_of(problem).evaluate([Subdomain(np.inf, 0)], 0.0, 1.5)
    assert said.upper == pytest.approx(2.0, rel=1e-3)
    assert sorted(said.chain) == [1, 3] and said.closed


def test_boxes_with_many_open_gates_are_halved_where_the_gradient_is_widest() -> None:
    problem = nets.problem(nets.dense(2, (2, 12, 10, 2)), 2.0)
    longer = torch.tensor([1.0, 30.0], dtype=torch.float64)
    wide = dataclasses.replace(problem, box=Box(problem.box.lower * longer, problem.box.upper * longer))
    evaluator = evaluator_of(wide, "lbp")
    (said,) = evaluator.evaluate([Subdomain(np.inf, 0)], 0.0, 0.0)
    assert said.chain == (2 * (evaluator.numbering.count + 1) + 1,)
    (witness,) = said.witnesses
    point = torch.as_tensor(witness.point)
    assert wide.box.contains(point.reshape(1, 1, -1)).all()
    slopes = wide.network.slopes(wide.network.values(point))
    norm = wide.norm.dual.of(wide.network.pull_back(slopes, wide.functionals[0, 0]))
    assert witness.value == pytest.approx(float(norm))
    # Where there is no width left, gates are decided.
    point_box = dataclasses.replace(problem, box=nets.problem(problem.network, 0.0).box)
    (said,) = evaluator_of(point_box, "lbp").evaluate([Subdomain(np.inf, 0)], 0.0, 0.0)
    assert all(d < 2 * evaluator.numbering.count for d in said.chain)


@pytest.mark.parametrize(("inputs", "gates"), [(1, 1), (3, 3), (5, 8), (8, 64), (16, 256), (5000, 80_000)])
def test_few_inputs_are_halved_sooner(inputs: int, gates: int) -> None:
    assert halving_threshold(inputs) == gates


def test_without_memory_for_a_program_nothing_is_found_out() -> None:
    problem = nets.problem(nets.dense(5, (2, 4, 3, 2)), 0.8)
    box = Interval(*(v.expand(3, -1) for v in problem.box.interval))
    one = 12 * 8 * 7 * 2  # of seven gates at most, over two inputs

    def located(memory: int, deadline: Deadline) -> tuple[list[Deepest], int]:
        evaluator = evaluator_of(problem, memory=memory)
        evaluator.deadline = deadline
        return evaluator.locate(evaluator.gatewise.steep.expand(3, -1), box), evaluator.programs

    for memory, deadline in ((100, Deadline()), (2**30, Deadline.after(-1))):
        found, programs = located(memory, deadline)
        assert [each.point is None and not each.empty for each in found] == [True] * 3 and programs == 0
    # One after another, or all at once.
    few, many = located(one, Deadline()), located(2**30, Deadline())
    assert few[1] == many[1] == 3
    for each, other in zip(few[0], many[0], strict=True):
        assert each.empty == other.empty and each.depth == pytest.approx(other.depth)


def gradients(lower: list[float], upper: list[float]) -> Gradients:
    ends = (torch.tensor(v, dtype=torch.float64).reshape(1, 1, -1) for v in (lower, upper))
    return Gradients({0: Interval(*ends)}, {}, torch.zeros(1, 1), {})


def test_decided_signs_cut_the_gradients_intervals() -> None:
    crossed, cut = _with_signs(gradients([-1.0, -2.0, 1.0], [3.0, 4.0, 5.0]), torch.tensor([[1, -1, 0]]))
    assert not crossed.any()
    assert [end.tolist() for end in cut.intervals[0]] == [[[[0.0, -2.0, 1.0]]], [[[3.0, 0.0, 5.0]]]]


@pytest.mark.parametrize(("beyond", "empty"), [(1e-300, True), (0.0, False)])
@pytest.mark.parametrize("sign", [1, -1])
def test_only_a_contradiction_of_signs_empties_a_subdomain(sign: int, beyond: float, empty: bool) -> None:
    """Intervals are rounded outward, and both signs hold at 0."""
    ends = ([-1.0, -4.0], [-beyond, 4.0]) if sign > 0 else ([beyond, -4.0], [1.0, 4.0])
    crossed, cut = _with_signs(gradients(*ends), torch.tensor([[sign, 0]]))
    assert bool(crossed[0]) is empty
    assert bool((cut.intervals[0].lower <= cut.intervals[0].upper).all())


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("bound", ["sdp", "lbp"])
def test_the_whole_box_is_not_propagated_again(bound: str, norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What propagation said of it serves as it is, and says the same as a subdomain without decisions."""
    problem = Problem.around(nets.dense(3), 0.1, 0.4, norm=norm)
    root = whole_box(problem, Tightening.CROWN, 2**30)
    roots = [Subdomain(np.inf, row) for row in reversed(range(problem.rows))]
    plain = evaluator_of(problem, bound)
    plain.bounds = root.bounds
    expected = plain.evaluate(roots, 0.0, 0.0)
    quick = evaluator_of(problem, bound, whole=whole_of(problem, root))
    quick.bounds = root.bounds

    def fails(*_: Any, **__: Any) -> None:
        raise AssertionError("it was propagated again")

    monkeypatch.setattr("lipcompare.branching.evaluator.split_bounds", fails)
    found = quick.evaluate(roots, 0.0, 0.0)
    np.testing.assert_allclose([a.upper for a in found], [a.upper for a in expected], rtol=2e-3)
    assert [bool(a.chain) for a in found] == [bool(a.chain) for a in expected]
    truth = exact_rows(problem)
    assert all(a.upper >= truth[node.row] for a, node in zip(found, roots, strict=True))


def test_subdomains_of_images_inherit_what_no_decision_touches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is touched is propagated again, and the bound is never looser than the whole box's."""
    problem = Problem.around(nets.conv(3), 0.1, 0.3)
    root = whole_box(problem, Tightening.CROWN, 2**30)
    monkeypatch.setattr(
        "lipcompare.branching.evaluator.plan", lambda network, k: Plan((1, 1), _costs(network, k, (1, 1)))
    )
    monkeypatch.setattr("lipcompare.branching.evaluator._MUCH", 0)
    truth = Truth(problem)
    evaluator = evaluator_of(problem, "lbp", whole=whole_of(problem, root))
    evaluator.bounds = root.bounds
    assert evaluator.inherits
    nodes = random_nodes(problem, 30, 0) + [Subdomain(np.inf, row) for row in range(problem.rows)]
    said = evaluator.evaluate(nodes, 0.0, 0.0)
    assert len(said) == len(nodes)
    tighter = 0
    for node, found in zip(nodes, said, strict=True):
        assert found.upper >= truth.of(node) * (1 - 1e-9)
        assert found.upper <= float(root.upper[0, node.row]) * (1 + 1e-9)
        tighter += found.upper < float(root.upper[0, node.row]) * (1 - 1e-6)
        assert all(witness.value <= root.upper[0, witness.row] for witness in found.witnesses)
    assert tighter > 5


def test_a_batch_ends_between_two_subdomains_when_time_does() -> None:
    problem = nets.problem(nets.dense(5, (2, 4, 3, 2)), 0.8)
    evaluator = evaluator_of(problem, "lbp", deadline=Deadline.after(-1.0))
    evaluator.together = 2
    nodes = random_nodes(problem, 7, 0)
    assert len(evaluator.evaluate(nodes, 0.0, 0.0)) == 2
    evaluator.deadline = Deadline()
    assert len(evaluator.evaluate(nodes, 0.0, 0.0)) == 7
