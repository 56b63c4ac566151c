"""Batches that processes share: what they say is what one says, and whatever becomes of them no subdomain is lost."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import time
from collections.abc import Iterator, Sequence

import forked
import nets
import numpy as np
import pytest
from branching.test_evaluator import evaluator_of, random_nodes

import lipcompare
from lipcompare import Problem, Space, Status
from lipcompare.branching.bounds import Settings, tree_bound
from lipcompare.branching.boxes import BoxEvaluator
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.driver import Assessment
from lipcompare.branching.everywhere import EverywhereEvaluator
from lipcompare.branching.heuristics import HEURISTICS
from lipcompare.branching.tree import Subdomain
from lipcompare.branching.workers import pool
from lipcompare.branching.workers.pool import SideBySide, Worker, Workers, _in_order
from lipcompare.budget import Deadline
from lipcompare.network.activations import smooth

BOX = nets.problem(nets.dense(5, (4, 8, 8, 2), 0.2), 0.8)
OTHER = nets.problem(nets.dense(2, (3, 6, 6, 1)), 0.8)
SMOOTH = nets.problem(nets.dense(4, (3, 5, 5, 1), smooth.TABLE["tanh"]()), 0.5)
EVERYWHERE = Problem(nets.dense(5, (3, 4, 3, 2)), Space.of(3))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_AFTER", 0.0)


def started(workers: Workers, patience: float = 60.0) -> Workers:
    """The same, with all its processes at work."""
    until = time.monotonic() + patience
    while True:
        ready, coming = workers.ready(np.inf)
        if ready and not coming:
            return workers
        assert time.monotonic() < until, "they do not start"
        time.sleep(0.01)


@pytest.fixture
def two() -> Iterator[Workers]:
    with Workers(2) as workers:
        yield started(workers)


def processes(workers: Workers) -> list[int]:
    return [worker._process.pid for worker in workers._workers]


def same(found: Sequence[Assessment], truth: Sequence[Assessment]) -> None:
    assert len(found) == len(truth)
    for one, other in zip(found, truth, strict=True):
        assert one.upper == pytest.approx(other.upper, rel=1e-9)
        assert one.chain == other.chain and one.closed == other.closed


@pytest.mark.parametrize("count", [1, 2, 3, 17])
def test_a_batch_says_what_it_says_alone(two: Workers, count: int) -> None:
    nodes = random_nodes(BOX, count, seed=count)
    alone, shared = evaluator_of(BOX), two.beside(evaluator_of(BOX), 0)
    same(shared.evaluate(nodes, 0.0, 0.0), alone.evaluate(nodes, 0.0, 0.0))
    assert shared.programs == alone.programs
    assert len(processes(two)) == 2


def test_more_evaluators_and_examples_on_the_same_processes(two: Workers) -> None:
    nodes, others = random_nodes(BOX, 9, seed=3), random_nodes(OTHER, 9, seed=3)
    linear, relaxed = two.beside(evaluator_of(BOX, "lbp"), 0), two.beside(evaluator_of(BOX), 0)
    for _ in range(2):
        same(linear.evaluate(nodes, 0.0, 0.0), evaluator_of(BOX, "lbp").evaluate(nodes, 0.0, 0.0))
        same(relaxed.evaluate(nodes, 0.0, 0.0), evaluator_of(BOX).evaluate(nodes, 0.0, 0.0))
    same(two.beside(evaluator_of(OTHER), 1).evaluate(others, 0.0, 0.0), evaluator_of(OTHER).evaluate(others, 0.0, 0.0))
    # The processes have forgotten the first example; asked for it all the same they are sent it again.
    same(relaxed.evaluate(nodes, 0.0, 0.0), evaluator_of(BOX).evaluate(nodes, 0.0, 0.0))
    assert len(processes(two)) == 2


def test_evaluators_of_boxes_and_of_the_whole_space(two: Workers) -> None:
    halved = [Subdomain(np.inf, 0, (2 * (Numbering(SMOOTH.network).count + j) + 1,)) for j in range(3)]
    same(
        two.beside(BoxEvaluator(SMOOTH), 0).evaluate(halved, 0.0, 0.0), BoxEvaluator(SMOOTH).evaluate(halved, 0.0, 0.0)
    )
    gates = [Subdomain(np.inf, 0, (2 * i + side,)) for i in range(7) for side in (0, 1)]

    def fresh() -> EverywhereEvaluator:
        bound = tree_bound("sdp").on(Numbering(EVERYWHERE.network), EVERYWHERE.norm, HEURISTICS["moment"], Settings())
        return EverywhereEvaluator(EVERYWHERE, bound)

    same(two.beside(fresh(), 1).evaluate(gates, 0.0, 0.0), fresh().evaluate(gates, 0.0, 0.0))
    assert len(processes(two)) == 2


def test_a_process_that_is_killed_costs_nothing_but_time(two: Workers, caplog: pytest.LogCaptureFixture) -> None:
    nodes, shared = random_nodes(BOX, 12, seed=5), two.beside(evaluator_of(BOX), 0)
    os.killpg(processes(two)[0], signal.SIGKILL)
    with caplog.at_level(logging.WARNING, "lipcompare"):
        for _ in range(2):
            same(shared.evaluate(nodes, 0.0, 0.0), evaluator_of(BOX).evaluate(nodes, 0.0, 0.0))
    assert shared.programs == 2 * sum_of_programs(nodes)
    assert len(processes(two)) == 1
    assert [r.getMessage() for r in caplog.records] == [
        "A process beside the search has ended: without a word. It goes on with 1 process beside it."
    ]


def sum_of_programs(nodes: Sequence[Subdomain]) -> int:
    alone = evaluator_of(BOX)
    alone.evaluate(nodes, 0.0, 0.0)
    return alone.programs


def test_a_process_that_stands_still_is_not_waited_for(two: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_LATE", 0.1)
    nodes, evaluator = random_nodes(BOX, 12, seed=6), evaluator_of(BOX)
    evaluator.deadline = Deadline.after(0.4)
    shared = two.beside(evaluator, 0)
    os.killpg(processes(two)[1], signal.SIGSTOP)
    begun = time.perf_counter()
    found = shared.evaluate(nodes, 0.0, 0.0)
    # Nodes 0 and 1 are of this process and of the other one; the third has no answer.
    assert len(found) == 2 and time.perf_counter() - begun < 5.0
    same(found, evaluator_of(BOX).evaluate(nodes[:2], 0.0, 0.0))
    two.ready(np.inf)
    assert len(processes(two)) == 1


def test_an_evaluator_that_cannot_be_made_elsewhere(two: Workers, caplog: pytest.LogCaptureFixture) -> None:
    @dataclasses.dataclass(eq=False)
    class Mine:
        deadline: Deadline
        programs: int = 0
        shares: bool = False

        def evaluate(self, nodes: Sequence[Subdomain], floor: float, target: float) -> list[Assessment]:
            return [Assessment(float(node.row)) for node in nodes]

    # Importable here, but not in a process that was started before.
    Mine.__qualname__ = "Mine"
    globals()["Mine"] = Mine
    try:
        shared = two.beside(Mine(Deadline()), 0)
        nodes = [Subdomain(np.inf, row) for row in range(7)]
        with caplog.at_level(logging.WARNING, "lipcompare"):
            assert [a.upper for a in shared.evaluate(nodes, 0.0, 0.0)] == list(range(7))
            assert [a.upper for a in shared.evaluate(nodes, 0.0, 0.0)] == list(range(7))
    finally:
        del globals()["Mine"]
    assert not processes(two)
    assert "Can't get attribute 'Mine'" in caplog.text


def test_as_long_as_processes_are_about_to_start_a_batch_is_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    def asleep() -> None:
        time.sleep(60)

    monkeypatch.setattr(pool, "spawn", lambda module, threads, errors: forked.Forked(asleep, errors))
    nodes = random_nodes(BOX, 9, seed=7)
    with Workers(2) as workers:
        found = workers.beside(evaluator_of(BOX), 0).evaluate(nodes, 0.0, 0.0)
        assert workers.ready(np.inf) == ([], 2)
        ends = [worker._process for worker in workers._workers]
    same(found, evaluator_of(BOX).evaluate(nodes[:3], 0.0, 0.0))
    assert all(end.returncode is not None for end in ends)


@pytest.mark.parametrize(("after", "left"), [(60.0, 100.0), (0.0, 1.0)])
def test_no_process_for_a_search_that_may_end_sooner(
    monkeypatch: pytest.MonkeyPatch, after: float, left: float
) -> None:
    monkeypatch.setattr(pool, "_AFTER", after)
    with Workers(2) as workers:
        assert workers.ready(left) == ([], 0)


def test_processes_that_the_system_refuses(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refused(module: str, threads: int, errors: object) -> forked.Forked:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(pool, "spawn", refused)
    nodes = random_nodes(BOX, 4, seed=8)
    with Workers(3) as workers, caplog.at_level(logging.WARNING, "lipcompare"):
        same(
            workers.beside(evaluator_of(BOX), 0).evaluate(nodes, 0.0, 0.0), evaluator_of(BOX).evaluate(nodes, 0.0, 0.0)
        )
    assert [r.getMessage() for r in caplog.records] == [
        "The search has 0 processes beside it: Resource temporarily unavailable."
    ]


def test_what_was_dealt_out_comes_back_in_order_as_far_as_there_is_none_missing() -> None:
    a, b, c, d, e = (Assessment(float(k)) for k in range(5))
    assert _in_order([[a, d], [b, e], [c]], [1] * 5) == [a, b, c, d, e]
    assert _in_order([[a, d], [], [c]], [1] * 5) == [a]
    assert _in_order([[a, d], [b], [c]], [1] * 5) == [a, b, c, d]
    # Groups of two, one and two.
    assert _in_order([[a, b, d, e], [c]], [2, 1, 2]) == [a, b, c, d, e]
    assert _in_order([[a, b, d], [c]], [2, 1, 2]) == [a, b, c, d]
    assert _in_order([[a], [c]], [2, 1, 2]) == [a]


def test_rows_that_share_a_subdomain_are_dealt_out_together(two: Workers) -> None:
    made = [node.decisions for node in random_nodes(BOX, 5, seed=1)]
    assert len(set(made)) == 5
    nodes = [Subdomain(np.inf, row, decisions) for decisions in made for row in range(BOX.rows)]
    alone = evaluator_of(BOX, "lbp", shares=True).evaluate(nodes, 0.0, 0.0)
    same(two.beside(evaluator_of(BOX, "lbp", shares=True), 0).evaluate(nodes, 0.0, 0.0), alone)
    for place in range(0, len(nodes), BOX.rows):
        assert len({(said.chain, said.closed) for said in alone[place : place + BOX.rows] if said.chain}) <= 1


def test_the_processes_are_gone_with_the_search(two: Workers) -> None:
    ends: list[Worker] = list(two._workers)
    two.__exit__(None, None, None)
    assert all(worker._process.returncode is not None for worker in ends)
    two._workers.clear()


def solved(problem: Problem, threads: int) -> lipcompare.Bound:
    return lipcompare.bound(problem, "bab", threads=threads, bound="lbp", attack_seconds=0.1)


@pytest.mark.parametrize("what", ["regions", "smooth", "everywhere", "examples"])
def test_bab_proves_the_same_on_several_processes(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_LEAST", 0.0)
    used: list[Worker] = []
    ask = Worker.ask

    def counting(worker: Worker, *request: object) -> None:
        used.append(worker)
        ask(worker, *request)  # type: ignore[arg-type]

    monkeypatch.setattr(Worker, "ask", counting)
    problem = {
        "regions": nets.problem(nets.dense(5, (3, 6, 6, 2), 0.2), 0.8),
        "smooth": nets.problem(nets.dense(4, (2, 3, 3, 1), smooth.TABLE["tanh"]()), 0.3),
        "everywhere": EVERYWHERE,
        "examples": nets.problem(nets.dense(5, (3, 5, 5, 2), 0.2), 0.8, batch=2),
    }[what]
    alone, together = solved(problem, 1), solved(problem, 3)
    assert together.status is alone.status is Status.EXACT and used
    np.testing.assert_allclose(together.upper.max(), alone.upper.max(), rtol=2e-4)
    np.testing.assert_allclose(together.lower.max(), alone.lower.max(), rtol=2e-4)


@pytest.mark.processes
def test_processes_as_they_are_started_in_production() -> None:
    nodes = random_nodes(BOX, 6, seed=9)
    with Workers(1) as workers:
        started(workers)
        shared: SideBySide = workers.beside(evaluator_of(BOX), 0)
        same(shared.evaluate(nodes, 0.0, 0.0), evaluator_of(BOX).evaluate(nodes, 0.0, 0.0))
        assert len(processes(workers)) == 1
