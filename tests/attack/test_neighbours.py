"""The search over neighbouring patterns: every flip once, better values only, and an end in time."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import nets
import pytest
import torch
from branching.brute import exact_rows

import lipcompare
from lipcompare import Problem
from lipcompare.attack import neighbours
from lipcompare.attack.neighbours import search_regions
from lipcompare.attack.search import Effort, search
from lipcompare.budget import Deadline
from lipcompare.witness import gradient_norms


@pytest.mark.parametrize("distance", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("most", [1, 5, 100, 4096])
def test_an_evenly_spread_choice_of_flips(count: int, distance: int, most: int) -> None:
    every = list(itertools.combinations(range(count), distance))
    assert [tuple(s) for s in neighbours._spread(count, distance, most).tolist()] == every[:: 1 + len(every) // most]


def centre(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """The box's centre as every row's only start."""
    points = problem.box.interval.center.unsqueeze(1).repeat(1, problem.rows, 1).unsqueeze(2)
    values = gradient_norms(problem.network, problem.functionals.unsqueeze(2), points, problem.norm)
    return points, values


@pytest.mark.parametrize("seed", range(4))
def test_from_the_centre_the_largest_region_is_found(seed: int) -> None:
    """At most eleven undecided neurons: every pattern is tried."""
    problem = nets.problem(nets.dense(seed, (3, 5, 4, 2)), 0.5, seed)
    points, values = centre(problem)
    before = values.clone()
    points, values = search_regions(problem, points, values, regions=200, deadline=Deadline(), memory=2**30)
    assert bool((values >= before).all()) and bool((values > before).any())
    again = gradient_norms(problem.network, problem.functionals.unsqueeze(2), points, problem.norm)
    torch.testing.assert_close(values, again)
    assert bool(problem.box.contains(points).all())
    assert float(values.max()) == pytest.approx(exact_rows(problem).max(), rel=1e-9)


def test_no_program_is_begun_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = nets.problem(nets.dense(1, (3, 20, 20, 2)), 0.5, batch=3)
    solved = []
    deepest = neighbours.deepest
    monkeypatch.setattr(neighbours, "deepest", lambda given, **kw: solved.extend(given.lower) or deepest(given, **kw))
    before = centre(problem)
    after = search_regions(
        problem, *(t.clone() for t in before), regions=200, deadline=Deadline.after(-1), memory=2**30
    )
    assert not solved and bool((after[0] == before[0]).all())
    search_regions(problem, *(t.clone() for t in before), regions=5, deadline=Deadline(), memory=2**30)
    assert 0 < len(solved) <= 15  # so many per example


def test_a_search_that_finds_nothing_better_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many programs in a row; where few neurons are open every pattern is tried all the same."""
    wide, few = (nets.problem(nets.dense(1, sizes), 0.5) for sizes in ((3, 20, 20, 2), (3, 4, 4, 2)))
    solved: list[int] = []
    deepest = neighbours.deepest
    monkeypatch.setattr(neighbours, "deepest", lambda given, **kw: solved.extend(given.lower) or deepest(given, **kw))

    def programs(problem: Problem, patience: int) -> int:
        monkeypatch.setattr(neighbours, "_PATIENCE", patience)
        solved.clear()
        search_regions(problem, *centre(problem), regions=60, deadline=Deadline(), memory=2**30)
        return len(solved)

    assert 0 < programs(wide, 1) < programs(wide, 60)
    assert 0 < programs(few, 1) == programs(few, 60)


def test_only_the_examples_that_are_asked_for_are_searched() -> None:
    problem = nets.problem(nets.dense(1, (3, 8, 8, 2)), 0.5, batch=2)
    before = centre(problem)
    asked = torch.tensor([False, True])
    _, values = search_regions(
        problem, *(t.clone() for t in before), regions=60, deadline=Deadline(), memory=2**30, examples=asked
    )
    assert bool((values[0] == before[1][0]).all()) and bool((values[1] > before[1][1]).any())


def test_regions_come_before_the_local_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """They gain most for their time, and a short search gets no further."""
    problem = nets.problem(nets.dense(1, (3, 12, 12, 2)), 0.5)
    order = []

    def noted(name: str) -> Callable[..., Any]:
        def called(*given: Any, **named: Any) -> Any:
            order.append(name)
            return given[2:4] if name == "local" else given[1:3]

        return called

    monkeypatch.setattr("lipcompare.attack.search._local_search", noted("local"))
    monkeypatch.setattr("lipcompare.attack.search.search_regions", noted("regions"))
    search(problem, Effort())
    assert order == ["regions", "local", "regions"]


def test_sampling_asks_the_clock_between_small_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much memory there is."""
    problem = nets.problem(nets.dense(1, (8, 64, 64, 20)), 0.5, batch=4)
    seen = []
    norms = gradient_norms
    monkeypatch.setattr(
        "lipcompare.attack.search.gradient_norms", lambda n, c, x, p: seen.append(x.shape[1]) or norms(n, c, x, p)
    )
    search(problem, Effort(ascent_steps=0, rounds=0, regions=0), memory=2**40)
    assert sum(seen) % Effort.samples == 0 and max(seen) < 600  # as often as rows come in parts


@pytest.mark.parametrize(("boxes", "classes"), [(300, 10), (1, 200)])
def test_the_time_limit_holds(boxes: int, classes: int) -> None:
    torch.manual_seed(0)
    network = nets.dense(0, (16, 64, 64, classes))
    problem = Problem.around(network, torch.rand(boxes, 16, dtype=torch.float64), 0.1)
    lipcompare.bound(problem.example(0), "attack", samples=8, rounds=1, regions=1)  # imports
    began = time.process_time()
    result = lipcompare.bound(problem, "attack", time_limit=1.0)
    assert time.process_time() - began < 1.1 * 1.0 + 0.5
    assert (result.lower > 0).all()


def test_wide_networks_are_not_written_out_flip_by_flip() -> None:
    """20,000 neurons: a choice of flips, not 200 million pairs."""
    network = nets.dense(0, (5, 20_000, 2))
    problem = nets.problem(network, 0.3)
    points, values = centre(problem)
    began = time.process_time()
    search_regions(problem, points, values, regions=2, deadline=Deadline.after(1.0), memory=2**30)
    assert time.process_time() - began < 8
