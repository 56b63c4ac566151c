"""The linear program over a region: deep points, proofs of emptiness, and no region that is empty without one."""

from __future__ import annotations

import dataclasses
import itertools
from fractions import Fraction

import nets
import numpy as np
import pytest
import torch

import lipcompare
import solvers
from lipcompare import Box, Network, Problem, Status
from lipcompare.network import Activate, Affine, Input, Interval, LeakyReLU
from lipcompare.network.linear_maps import Dense
from lipcompare.regions import program
from lipcompare.regions.pieces import piece_errors
from lipcompare.regions.program import Deepest, Regions, _Scaled, contradictory, fitting_regions, regions_of
from solvers import SolveStatus


def region(matrix, offset, lower=-1.0, upper=1.0, error=0.0) -> Regions:
    """One region; its gates are numbered from 10 on."""
    matrix, offset = np.array(matrix, float), np.array(offset, float)
    inputs = matrix.shape[1]
    return stated(matrix, offset, np.full(len(offset), error), np.full(inputs, lower), np.full(inputs, upper), first=10)


def stated(matrix, offset, error, lower, upper, first=0) -> Regions:
    """One region from arrays."""
    parts = (torch.from_numpy(np.array(v, float)).unsqueeze(0) for v in (matrix, offset, error, lower, upper))
    matrix, offset, error, lower, upper = parts
    return Regions(matrix, offset, error, torch.arange(offset.shape[1]).unsqueeze(0) + first, lower, upper)


def deepest(regions: Regions, **kwargs: float) -> Deepest:
    """Of one region."""
    (found,) = program.deepest(regions, **kwargs)
    return found


def one_region(network, box, slopes, active, rows) -> Regions:
    """Of one pattern in one box (inputs,)."""
    one = ({k: v.unsqueeze(0) for k, v in some.items()} for some in (slopes, active))
    return regions_of(network, Interval(*(v.unsqueeze(0) for v in box)), *one, rows)


def test_the_deepest_point() -> None:
    found = deepest(region([[1, 0], [-1, 0], [0, 1]], [-0.2, 0.6, 0.5]))  # 0.2 <= x <= 0.6, y >= -0.5
    assert not found.empty and found.point is not None
    assert found.point[0] == pytest.approx(0.4) and found.depth == pytest.approx(0.2)
    np.testing.assert_array_equal(found.inside, found.point)


def test_a_region_that_only_touches_is_not_empty() -> None:
    found = deepest(region([[1.0], [-1.0]], [-0.3, 0.3]))
    assert not found.empty and found.inside is None
    assert found.point == pytest.approx(0.3) and found.depth == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("gap", [1e-3, 1e-9, 1e-12])
def test_contradictions_are_named(gap: float) -> None:
    """``x + y >= 1``, ``x - y >= 1`` and ``x <= 1 - gap``; the row about y alone has no part in it."""
    found = deepest(region([[1, 1], [0, 1], [1, -1], [-1, 0]], [-1, 0.9, -1, 1 - gap]))
    assert found.empty and found.point is None and found.inside is None
    assert found.conflict == (10, 12, 13)


def test_the_weights_prove_a_contradiction_of_the_rows_as_they_are_stated() -> None:
    """Rows of any size: their sum with these weights is negative in the whole box."""
    given = region([[1000, 1000], [1, -1], [-0.01, 0]], [-1000, -1, 0.01 * (1 - 1e-3)], -2.0, 2.0)
    found = deepest(given)
    weights, rows = np.array(found.weights), np.array(found.conflict) - 10
    assert found.empty and (weights > 0).all()
    assert weights @ given.offset[0, rows].numpy() + 2 * np.abs(weights @ given.matrix[0, rows].numpy()).sum() < 0


def test_of_rows_out_of_range_nothing_is_known() -> None:
    """The others contradict each other all the same; and a box out of range has no middle."""
    given = region([[np.inf], [1.0], [1.0], [-1.0]], [0.0, 0.0, -0.5, 0.4])
    error = torch.tensor([[0.0, np.inf, 0.0, 0.0]], dtype=torch.float64)
    found = deepest(dataclasses.replace(given, error=error))
    assert found.empty and found.conflict == (12, 13)
    large = deepest(region([[1.0]], [0.0], 1.0e308, 1.7e308))
    assert not large.empty and large.point is None and large.inside is None


def test_a_constant_row_that_may_hold_keeps_no_point_away() -> None:
    """``-1e-17 >= 0`` but for an error of 1e-16, beside ``0.2 <= x <= 0.6``."""
    given = region([[0.0], [1.0], [-1.0]], [-1e-17, -0.2, 0.6])
    found = deepest(dataclasses.replace(given, error=torch.tensor([[1e-16, 0.0, 0.0]], dtype=torch.float64)))
    assert not found.empty and found.inside is None
    assert found.point is not None and found.point[0] == pytest.approx(0.4, abs=0.201)


def test_a_row_that_no_point_satisfies() -> None:
    found = deepest(region([[1, 1], [1, 0]], [-2.1, 0.0]))
    assert found.empty and found.conflict == (10,)


@pytest.mark.parametrize("gap", [1e-9, 1e-12])
def test_what_the_rows_may_be_off_by_is_allowed_for(gap: float) -> None:
    """Rows that exclude each other by less than their errors prove nothing; by more they do."""
    rows = [[1.0], [-1.0]], [-0.5, 0.5 - gap]
    assert deepest(region(*rows, error=gap / 3)).empty
    assert not deepest(region(*rows, error=gap)).empty
    single = [[1.0]], [-1 - gap]
    assert deepest(region(*single, error=gap / 3)).empty
    assert not deepest(region(*single, error=2 * gap)).empty


def test_a_row_that_holds_everywhere_but_for_its_error_is_attended_to() -> None:
    """``x + 1.0005`` is positive on the box, but what it stands for may not be."""
    row = [[1.0]], [1.0005]
    assert deepest(region(*row)).depth == np.inf
    near = deepest(region(*row, error=1e-3))
    assert not near.empty and near.depth < 3


def test_no_rows_and_rows_that_hold_everywhere() -> None:
    for trivial in (region(np.zeros((0, 2)), []), region([[1.0, 0.0]], [5.0])):
        found = deepest(trivial)
        assert not found.empty and found.inside is not None and np.isinf(found.depth)


def proposing(monkeypatch: pytest.MonkeyPatch, point: float, multiplier: float) -> None:
    """The interior point method finds these numbers, whatever it is asked, and is asked about single regions too."""
    monkeypatch.setattr(program, "_ALONE", 0)
    monkeypatch.setattr(
        program, "deepest_points", lambda A, b: (torch.full_like(A[:, 0], point), torch.full_like(b, multiplier))
    )


class Liar:
    """A solver that says what it is told, and is always asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **claims: object) -> None:
        proposing(monkeypatch, np.nan, np.nan)
        honest = solvers.get("highs")
        self.claims = claims
        monkeypatch.setattr(solvers, "get", lambda name: self)
        self.honest = honest

    def solve(self, *args: object, **kwargs: object) -> solvers.Solution:
        return dataclasses.replace(self.honest.solve(*args, **kwargs), **self.claims)


@pytest.mark.parametrize("bound", [np.inf, 1e300, np.nan, 5.0])
@pytest.mark.parametrize("status", [SolveStatus.INFEASIBLE, SolveStatus.UNBOUNDED, SolveStatus.OPTIMAL])
@pytest.mark.parametrize(
    "multipliers",
    [None, np.array([1.0, 1.0]), np.array([np.nan, np.inf]), np.array([-1.0, 3.0]), np.array([-1.0, -1.0])],
)
def test_a_solvers_word_makes_no_region_empty(monkeypatch, bound, status, multipliers) -> None:
    Liar(monkeypatch, x=None, objective=None, status=status, dual_bound=bound, multipliers=multipliers)
    found = deepest(region([[1.0], [-1.0]], [-0.2, 0.6]))
    assert not found.empty and found.point is None and found.inside is None


@pytest.mark.parametrize("multiplier", [np.nan, np.inf, -np.inf, 1e300, 0.0, 1.0, -1.0])
@pytest.mark.parametrize("point", [np.nan, np.inf, -np.inf, 1e300, 0.0, 1.0])
def test_what_the_interior_point_method_says_makes_no_region_empty(monkeypatch, point, multiplier) -> None:
    """Nor does it say where a region is: it is looked at, and a solver is asked instead."""
    proposing(monkeypatch, point, multiplier)
    given = region([[1.0], [-1.0]], [-0.2, 0.6])
    found = deepest(given)
    assert not found.empty and found.depth == pytest.approx(0.2) and found.point == pytest.approx(0.4)
    assert not contradictory(given).any()
    apart = region([[1.0], [-1.0]], [-0.6, 0.2])
    assert deepest(apart).empty and bool(contradictory(apart)) is (multiplier in (1.0, 1e300))


def test_regions_that_the_interior_point_method_tells_apart_need_no_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many at once: with room, without, at the box's edge, and with more inputs than rows."""
    random = np.random.default_rng(0)
    for rows, inputs in ((5, 3), (40, 6), (9, 80)):
        points = random.uniform(-1, 1, (6, inputs))
        matrix = random.normal(size=(6, rows, inputs))
        offset = random.uniform(0.1, 1, (6, rows)) - np.einsum("sri,si->sr", matrix, points)
        offset[3:, 0] = -np.abs(matrix[3:, 0]).sum(-1) + 1e-3  # in a corner alone
        offset[3:, 1], matrix[3:, 1] = 0.99 * np.abs(matrix[3:, 0]).sum(-1), -matrix[3:, 0]
        offset[4] = 1.0  # holds
        offset[4, 0], matrix[4] = -0.5, 0.1 * matrix[4] / np.abs(matrix[4]).sum(-1, keepdims=True)
        batch = [stated(a, b, 0 * b, -np.ones(inputs), np.ones(inputs)) for a, b in zip(matrix, offset, strict=True)]
        together = Regions(*(torch.cat([getattr(r, f.name) for r in batch]) for f in dataclasses.fields(Regions)))
        expected = [deepest(each) for each in batch]
        with monkeypatch.context() as alone:
            alone.setattr(solvers, "get", lambda name: pytest.fail("a solver was asked"))
            found = program.deepest(together)
        assert [f.empty for f in found] == [f.empty for f in expected] == [False] * 3 + [True] * 3
        for each, known, one in zip(found, expected, batch, strict=True):
            if each.empty:
                weights = np.array(each.weights) @ one.matrix[0, list(each.conflict)].numpy()
                assert np.array(each.weights) @ one.offset[0, list(each.conflict)].numpy() + np.abs(weights).sum() < 0
            else:
                assert each.point is not None
                row = one.matrix[0].numpy() @ each.point + one.offset[0].numpy()
                assert (row / np.abs(one.matrix[0].numpy()).sum(-1)).min() == pytest.approx(each.depth, rel=1e-9)
                assert each.depth == pytest.approx(known.depth, rel=1e-3)
        assert contradictory(together).tolist() == [f.empty for f in found]


def test_enumerate_believes_no_region_infeasible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neurons that are nearly parallel: most patterns hold nowhere, and they have the largest norms."""
    random = torch.Generator().manual_seed(0)
    base = torch.randn(1, 2, generator=random, dtype=torch.float64)
    first = (base + 0.05 * torch.randn(4, 2, generator=random, dtype=torch.float64)) * torch.tensor([[1], [-1]] * 2)
    b = nets.Builder(2, 1)
    b.affine((0, Dense(first)))
    b.activate()
    b.dense(2)
    problem = Problem.around(b.build(), 0.0, 0.5)
    truth = lipcompare.bound(problem, "enumerate")
    assert truth.status is Status.EXACT
    Liar(monkeypatch, x=None, objective=None, status=SolveStatus.INFEASIBLE, dual_bound=np.inf, multipliers=None)
    result = lipcompare.bound(problem, "enumerate")
    assert (result.upper >= truth.upper * (1 - 1e-12)).all() and (result.lower <= truth.upper).all()
    assert result.status is Status.COMPLETE


def test_an_interrupted_solve_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    Liar(monkeypatch, status=SolveStatus.INTERRUPTED)
    with pytest.raises(KeyboardInterrupt):
        deepest(region([[1.0], [-1.0]], [-0.2, 0.6]))


def test_a_program_gets_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []
    liar = Liar(monkeypatch)
    solve = liar.solve
    monkeypatch.setattr(
        liar, "solve", lambda p, given: limits.append(given.time_limit) or solve(p, given), raising=False
    )
    for seconds in (np.inf, 2.0, -1.0):
        deepest(region([[1.0], [-1.0]], [-0.2, 0.6]), time_limit=seconds)
    assert limits == [10.0, 2.0, 0.01]


@pytest.mark.parametrize("seed", range(4))
def test_regions_of_patterns(seed: int) -> None:
    """Every pattern of a small network: a deep point has it, and a pattern proved empty is met by no sample."""
    network = nets.dense(seed, (2, 3, 2, 2))
    problem = nets.problem(network, 0.8, seed)
    box = Interval(problem.box.lower[0].cpu(), problem.box.upper[0].cpu())
    random = torch.Generator().manual_seed(seed)
    x = box.lower + torch.rand(4000, 2, generator=random, dtype=torch.float64) * (box.upper - box.lower)
    seen = torch.cat(list(network.slopes(network.values(x)).values()), -1) > 0
    first, second = network.activations
    everything = {k: torch.ones(network.nodes[k].size, dtype=torch.bool) for k in network.activations}
    empty = 0
    for bits in itertools.product((False, True), repeat=5):
        active = {first: torch.tensor(bits[:3]), second: torch.tensor(bits[3:])}
        found = deepest(one_region(network, box, {k: v.double() for k, v in active.items()}, active, everything))
        met = bool((seen == torch.tensor(bits)).all(-1).any())
        assert not (found.empty and met)
        assert found.empty or found.inside is not None or abs(found.depth) < 1e-9
        if found.inside is not None:
            there = network.slopes(network.values(torch.as_tensor(found.inside)))
            assert torch.cat([there[first], there[second]]).bool().tolist() == list(bits)
            assert problem.box.contains(torch.as_tensor(found.inside).reshape(1, 1, -1)).all()
        if found.empty:
            empty += 1
            assert set(found.conflict) <= set(range(5)) and found.conflict
            # What is named contradicts already.
            named = {k: torch.zeros_like(v) for k, v in everything.items()}
            for gate in found.conflict:
                k = first if gate < 3 else second
                named[k][gate - (0 if gate < 3 else 3)] = True
            alone = deepest(one_region(network, box, {k: v.double() for k, v in active.items()}, active, named))
            assert alone.empty
    assert empty > 4


def test_rows_are_numbered_through_all_gates_and_point_to_the_side_of_the_pattern() -> None:
    """Also where some of a layer's neurons describe the region alone; errors are those of the largest inputs."""
    network = nets.dense(1, (2, 3, 2, 2))
    first, second = network.activations
    x = torch.tensor([0.3, -0.2], dtype=torch.float64)
    values = network.values(x)
    slopes = network.slopes(values)
    active = {k: v > 0 for k, v in slopes.items()}
    rows = {first: torch.tensor([False, True, False]), second: torch.tensor([True, True])}
    found = one_region(network, Interval(x - 3, x + 1), slopes, active, rows)
    assert found.gate.tolist() == [[1, 3, 4]]
    z = torch.cat([values[network.nodes[k].parents[0]][rows[k]] for k in (first, second)])
    assert bool((z > 0).any()) and bool((z < 0).any())
    torch.testing.assert_close(found.matrix[0] @ x + found.offset[0], z.abs())
    errors = piece_errors(network, slopes, torch.tensor([2.7, 3.2], dtype=torch.float64))
    torch.testing.assert_close(found.error[0], torch.cat([errors[k][rows[k]] for k in (first, second)]))


def rounded_up(value: Fraction) -> float:
    """The smallest double that is not under it."""
    near = float(value)
    return near if Fraction(near) >= value else float(np.nextafter(near, np.inf))


def exactly(a: np.ndarray, x: np.ndarray) -> Fraction:
    return sum((Fraction(float(p)) * Fraction(float(q)) for p, q in zip(a, x, strict=True)), Fraction(0))


def test_a_corner_is_in_no_empty_region() -> None:
    """A row that one corner alone satisfies, in rational arithmetic and with less than a roundoff to spare."""
    random = np.random.default_rng(0)
    for _ in range(300):
        lower = random.normal(size=5)
        upper = lower + random.uniform(0, 1, 5)
        normal = random.normal(size=5)
        corner = np.where(normal > 0, upper, lower)
        touching = stated(normal[None], np.array([rounded_up(-exactly(normal, corner))]), np.zeros(1), lower, upper)
        assert not deepest(touching).empty


def test_a_corner_near_the_origin_of_a_large_box_is_in_no_empty_region() -> None:
    """The same where centre and half range, which cancel there, are a thousand times as large as what is left."""
    random = np.random.default_rng(2)
    for _ in range(100):
        corner, normal = 1e-3 * random.uniform(size=5), -random.uniform(1, 2, 5)
        touching = stated(
            normal[None],
            np.array([rounded_up(-exactly(normal, corner))]),
            np.zeros(1),
            corner,
            random.uniform(1, 2, 5),
        )
        assert not deepest(touching).empty


def scaled(A: np.ndarray, b: np.ndarray) -> _Scaled:
    """One region's rows, as they are measured."""
    return _Scaled(*(torch.from_numpy(v).unsqueeze(0) for v in (A, b, np.zeros(len(b)))))


def test_multipliers_that_prove_nothing_by_a_roundoff_of_rows_that_cancel() -> None:
    """As below, with rows that add up to next to nothing, and so to less than the rounding of their sum."""
    random = np.random.default_rng(3)
    for _ in range(100):
        A, b, y = random.normal(size=(4, 3)), np.zeros(4), random.uniform(0.5, 2, 4)
        A[3] = -(y[:3] @ A[:3]) / y[3]
        reach = sum((abs(exactly(column, y)) for column in A.T), Fraction(0))
        b[3] = rounded_up(-reach / Fraction(y[3]))
        assert not scaled(A, b).contradictory(torch.from_numpy(y)[None])
        assert scaled(A, b - 1e-13).contradictory(torch.from_numpy(y)[None])


def test_multipliers_that_prove_nothing_by_a_roundoff() -> None:
    """The sum over the rows is not negative, in rational arithmetic and with less than a roundoff to spare."""
    random = np.random.default_rng(1)
    for _ in range(300):
        A, b, y = random.normal(size=(4, 3)), random.normal(size=4), random.uniform(0.5, 2, 4)
        reach = sum((abs(exactly(column, y)) for column in A.T), Fraction(0))
        b[3] = rounded_up(-(reach + exactly(b[:3], y[:3])) / Fraction(y[3]))
        assert not scaled(A, b).contradictory(torch.from_numpy(y)[None])
        assert scaled(A, b - 1e-13).contradictory(torch.from_numpy(y)[None])


def test_large_programs_do_not_fit() -> None:
    network = nets.dense(0, (3, 5, 5, 2))
    assert fitting_regions(network, 10, 12 * 8 * 10 * 3) == 1
    assert fitting_regions(network, 10, 12 * 8 * 10 * 3 - 1) == 0
    assert fitting_regions(network, 10, 7 * 12 * 8 * 10 * 3) == 7
    assert fitting_regions(network, 1, 12 * 8 * 5 * 3 - 1) == 0  # the widest node counts too


def test_cancelling_biases_do_not_empty_a_region() -> None:
    """Biases of 1e6 that cancel: the box meets the kink of a neuron, whatever rounding makes of it."""
    one = torch.ones(1, 1, dtype=torch.float64)
    b = nets.Builder(1, 0)
    b.nodes.append(Affine((0,), (Dense(one),), torch.tensor([1e6], dtype=torch.float64)))
    b.activate()
    b.nodes.append(Affine((2,), (Dense(one),), torch.tensor([-1e6], dtype=torch.float64)))
    b.activate()
    b.nodes.append(Affine((4,), (Dense(one),), None))
    box = Box(torch.tensor([[-1e-12]], dtype=torch.float64), torch.tensor([[1e-12]], dtype=torch.float64))
    for method in ("enumerate", "bab", "lipbab", "exact"):
        result = lipcompare.bound(Problem(b.build(), box), method)
        assert result.upper[0, 0] >= 1 and result.lower[0, 0] <= 1


def test_a_region_of_numbers_that_underflow_is_not_empty() -> None:
    """Two neurons with one hyperplane, the second's through a product of 2e-311: what it loses is no contradiction."""

    def affine(parent: int, weight: float, bias: float) -> Affine:
        tensors = torch.tensor([[weight], [bias]], dtype=torch.float64)
        return Affine((parent,), (Dense(tensors[:1]),), tensors[1])

    first = (Input(1), affine(0, 3.96004260739354e-151, 1.0280149445475588e-151), Activate(1, LeakyReLU(), 1))
    second = (affine(2, 4.8923769e-161, 0.0), Activate(3, LeakyReLU(), 1), affine(4, 1.0, 0.0))
    network = Network((*first, *second), (1,), (1,))
    # The point of the common hyperplane is in the region of either side of both.
    one = torch.ones(1, dtype=torch.float64)
    for on, other in itertools.product((True, False), repeat=2):
        slopes = {2: one, 4: one * float(other)}
        active = {2: torch.tensor([on]), 4: torch.tensor([other])}
        rows = {k: torch.tensor([True]) for k in (2, 4)}
        assert not deepest(one_region(network, Interval(-one, one), slopes, active, rows)).empty
