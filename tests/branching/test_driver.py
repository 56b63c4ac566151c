"""The driver on a made-up problem: knapsack-like values of bit strings, no network in sight."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from lipcompare.branching.driver import Assessment, Search, SearchLimits, Stop, run, threshold
from lipcompare.branching.state import load, save
from lipcompare.result import Witness

BITS = 7


class Table:
    """Row r has a value for every string of bits; the bound of a subdomain is the best value in it plus some slack."""

    def __init__(self, seed: int, rows: int = 3) -> None:
        random = np.random.default_rng(seed)
        self.values = random.random((rows, *(2,) * BITS))
        self.values[random.random(self.values.shape) < 0.3] = -np.inf  # nothing there
        self.slack = random.random(BITS + 1)
        self.slack[BITS] = 0
        self.truth = self.values.max()

    def evaluate(self, nodes, floor, target):
        return [self.assess(node) for node in nodes]

    def assess(self, node):
        index: list = [node.row, *[slice(None)] * BITS]
        for d in node.decisions:
            if index[1 + (d >> 1)] == 1 - (d & 1):
                return Assessment(-np.inf)
            index[1 + (d >> 1)] = d & 1
        part = self.values[tuple(index)]
        best = np.max(part)
        if best == -np.inf:
            return Assessment(-np.inf)
        free = [b for b in range(BITS) if isinstance(index[1 + b], slice)]
        witnesses = (Witness(node.row, float(best), np.zeros(1)),) if not free else ()
        chain = tuple(2 * b + 1 for b in free[:2])
        return Assessment(float(best + self.slack[BITS - len(free)]), chain, witnesses=witnesses)


class Closing:
    """Closes subdomains of one row at bounds that fall."""

    def __init__(self, *uppers: float) -> None:
        self.uppers = list(uppers)

    def evaluate(self, nodes, floor, target):
        return [Assessment(self.uppers.pop(0), (1,) if not node.decisions else ()) for node in nodes]


def test_the_largest_of_what_was_closed_counts() -> None:
    search = Search.start([float("inf")])
    assert run(search, Closing(4.0, 3.0, 2.0), SearchLimits(batch=1)) is Stop.DONE
    assert search.upper == 3.0 and search.row_upper().tolist() == [3.0]


def start(table, together=False):
    return Search.start([float("inf")] * len(table.values), together=together)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("batch", [1, 5, 64])
@pytest.mark.parametrize("seed", range(4))
def test_finds_the_largest_row(seed, batch, together):
    table = Table(seed)
    search = start(table, together)
    points = []
    assert run(search, table, SearchLimits(batch=batch, gap=1e-9), report=points.append) is Stop.DONE
    assert search.best == pytest.approx(table.truth) and search.upper == pytest.approx(table.truth)
    for before, after in itertools.pairwise(points):
        assert after.upper <= before.upper and after.lower >= before.lower
        assert after.lower <= table.truth <= after.upper
    rows = table.values.reshape(len(table.values), -1).max(1)
    assert (search.row_upper() >= rows).all()


@pytest.mark.parametrize("least", [4, 16])
def test_batches_have_the_least_number_however_long_they_take(least, monkeypatch):
    table, widths, now = Table(3), [], [0.0]

    class Slow:
        def evaluate(self, nodes, floor, target):
            widths.append(len(nodes))
            now[0] += 100.0 * len(nodes)
            return table.evaluate(nodes, floor, target)

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    run(start(table), Slow(), SearchLimits(gap=1e-9, least=least, seconds=1e6))
    assert max(widths) == least


def test_rows_stay_together_as_long_as_they_are_split_alike():
    """Row 2 goes its own way at the root; of the others one is closed on the way."""
    asked = []

    class Rows:
        def evaluate(self, nodes, floor, target):
            asked.append([(node.decisions, node.row) for node in nodes])
            return [self.assess(node) for node in nodes]

        def assess(self, node):
            if len(node.decisions) == 2:
                return Assessment(1.0 + node.row)
            if node.row == 1 and node.decisions:
                return Assessment(2.5)
            return Assessment(9.0 - len(node.decisions), (2 * len(node.decisions) + (5 if node.row == 2 else 1),))

    search = Search.start([10.0, 10.0, 10.0, 10.0], together=True)
    assert run(search, Rows(), SearchLimits(batch=1)) is Stop.DONE
    assert asked[0] == [((), row) for row in range(4)]
    assert asked[1:3] == [[((side,), row) for row in (0, 1, 3)] for side in (0, 1)]
    assert [tuple(each) for each in asked if each[0][0] in ((4,), (5,))] == [(((4,), 2),), (((5,), 2),)]
    assert all(
        [row for _, row in each] == [0, 3] for each in asked if each[0][0][:1] in ((0,), (1,)) and len(each[0][0]) > 1
    )
    assert search.nodes == sum(map(len, asked)) == 4 + 6 + 2 + 8 + 4
    assert search.row_upper().tolist() == [1.0, 2.5, 3.0, 4.0] and search.upper == 4.0


def test_a_row_of_a_group_that_cannot_matter_any_more_is_not_split():
    """A point of row 0 closes row 1, whose bound is the lower one."""
    asked = []

    class Falling:
        def evaluate(self, nodes, floor, target):
            asked.append([node.row for node in nodes])
            found = (Witness(0, 5.0, np.zeros(1)),) if nodes[0].decisions else ()
            uppers = (9.0, 4.0) if not nodes[0].decisions else (5.0, 4.0)
            return [Assessment(uppers[node.row], () if nodes[0].decisions else (1,), witnesses=found) for node in nodes]

    search = Search.start([10.0, 10.0], together=True)
    assert run(search, Falling(), SearchLimits(batch=1)) is Stop.DONE
    assert asked == [[0, 1], [0, 1], [0]]
    assert search.row_upper().tolist() == [5.0, 4.0]


def test_a_batch_gives_what_single_steps_give():
    table = Table(9)
    results = []
    for batch in (1, 32):
        search = start(table)
        run(search, table, SearchLimits(batch=batch))
        results.append(search.upper)
    assert results[0] == pytest.approx(results[1], rel=1e-4)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("stop_after", range(1, 12))
def test_interrupted_anywhere_the_interval_holds_and_the_search_goes_on(stop_after, together, tmp_path):
    table = Table(3)
    search = start(table, together)
    calls = itertools.count(1)

    class Impatient:
        def evaluate(self, nodes, floor, target):
            if next(calls) == stop_after:
                raise KeyboardInterrupt
            return table.evaluate(nodes, floor, target)

    ended = run(search, Impatient(), SearchLimits(batch=4))
    assert search.best <= table.truth <= search.upper
    if ended is Stop.INTERRUPTED:
        save(search, tmp_path / "state.npz", "key")
        again = load(tmp_path / "state.npz", "key")
        assert again.upper == search.upper and again.best == search.best and again.nodes == search.nodes
        assert run(again, table, SearchLimits(batch=4)) is Stop.DONE
        assert again.upper == pytest.approx(table.truth, rel=1.1e-4)


@pytest.mark.parametrize("together", [False, True])
def test_limits(together):
    table = Table(5)
    search = start(table, together)
    assert run(search, table, SearchLimits(nodes=10, batch=4)) is Stop.NODES
    assert search.nodes == 10
    assert run(search, table, SearchLimits(memory=10, batch=4)) is Stop.MEMORY
    assert run(search, table, SearchLimits(seconds=0)) is Stop.TIME
    assert search.best <= table.truth <= search.upper


def test_what_is_not_a_number_is_no_result():
    """A bound of NaN says nothing, nor does a root's; a value of NaN or infinity is not attained."""
    table = Table(2)

    class Broken:
        def evaluate(self, nodes, floor, target):
            results = list(table.evaluate(nodes, floor, target))
            for i, node in enumerate(nodes):
                if node.row == 1 and results[i].chain:
                    junk = tuple(Witness(1, value, np.zeros(1)) for value in (np.nan, np.inf))
                    results[i] = dataclasses.replace(results[i], upper=np.nan, witnesses=junk)
            return results

    search = Search.start(np.array([np.nan, 7.0, np.nan]))
    assert search.upper == np.inf
    assert run(search, Broken(), SearchLimits(nodes=20, batch=4)) is Stop.NODES
    assert search.upper == 7.0 and search.row_upper()[1] == 7.0
    assert np.isfinite(search.attained.lower).all() and search.best <= table.truth


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("at_most", [1, 2, 3, 4])
def test_subdomains_that_an_evaluator_left_out_keep_waiting(at_most, together):
    table = Table(1)
    evaluate = table.evaluate
    table.evaluate = lambda nodes, floor, target: evaluate(nodes[:at_most], floor, target)
    search = start(table, together)
    assert run(search, table, SearchLimits(batch=8, gap=1e-9)) is Stop.DONE
    assert search.best == pytest.approx(table.truth) and search.upper == pytest.approx(table.truth)


def test_the_threshold_leaves_the_gap_that_was_asked_for() -> None:
    assert threshold(3.0, 0.25) == 4.0 and threshold(1.0, 1.0) == float("inf")
