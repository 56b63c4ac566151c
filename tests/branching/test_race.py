"""Trees that are searched in turns, with evaluators that take as long and gain as much as they are told."""

from __future__ import annotations

import time

import nets
import numpy as np
import pytest

from lipcompare.branching import race as racing
from lipcompare.branching.driver import Assessment, Search, SearchLimits, Stop
from lipcompare.branching.ledger import Ledger
from lipcompare.branching.race import Tree, by_class, in_turn, race
from lipcompare.budget import Deadline
from lipcompare.result import Witness


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Time passes by sleeping alone, and by a microsecond whenever somebody looks."""
    now = [0.0]

    def pass_(seconds):
        now[0] += seconds
        return now[0]

    monkeypatch.setattr(time, "sleep", pass_)
    monkeypatch.setattr(time, "perf_counter", lambda: pass_(1e-6))


class Slow:
    """Takes as long per subdomain as its row says, and needs so many halvings of a bound."""

    def __init__(self, seconds, halvings):
        self.seconds, self.halvings, self.spent = seconds, halvings, np.zeros(len(seconds))

    def evaluate(self, nodes, floor, target):
        results = []
        for node in nodes:
            time.sleep(self.seconds[node.row])
            self.spent[node.row] += self.seconds[node.row]
            depth = len(node.decisions)
            upper = 1.0 if depth < self.halvings[node.row] else 0.4
            results.append(Assessment(upper, (2 * depth + 1,), closed=True))
        return results


def test_time_that_one_class_leaves_goes_to_the_others():
    """The second class ends at once; the first, stopped after its half, has the rest too."""
    searches = by_class(Search.start([9.0, 8.0], [Witness(0, 0.5, np.zeros(1))]))
    evaluator = Slow([0.01, 0.0], [10**9, 1])
    began = time.perf_counter()
    stop = in_turn(searches, evaluator, SearchLimits(batch=1), Deadline.after(1.0), lambda now: None)
    took = time.perf_counter() - began
    assert stop is Stop.TIME and 0.98 < took < 1.02
    assert evaluator.spent[0] > 0.9 * took
    assert searches[1].upper == 0.5 and searches[0].upper == 1.0


def test_classes_keep_their_share_of_the_node_limit():
    searches = by_class(Search.start([9.0, 8.0], [Witness(0, 0.5, np.zeros(1))]))
    evaluator = Slow([0.0, 0.0], [10**9, 10**9])
    limits = SearchLimits(batch=1, nodes=15)
    assert in_turn(searches, evaluator, limits, Deadline.after(5.0), lambda now: None) is Stop.NODES
    assert [search.nodes for search in searches] == [15, 15]


def test_another_round_has_what_the_first_one_left_of_the_node_limit():
    """The first class is stopped by its half of the time, after 50 nodes; as the second ends at once, it goes on."""
    searches = by_class(Search.start([9.0, 8.0], [Witness(0, 0.5, np.zeros(1))]))
    evaluator = Slow([0.01, 0.0], [10**9, 1])
    limits = SearchLimits(batch=1, nodes=70)
    assert in_turn(searches, evaluator, limits, Deadline.after(1.0), lambda now: None) is Stop.NODES
    assert searches[0].nodes == 70


def test_what_one_class_attains_closes_the_others():
    class Finds(Slow):
        def evaluate(self, nodes, floor, target):
            found = (Witness(0, 8.5, np.zeros(1)),)
            return [Assessment(a.upper, a.chain, a.closed, found) for a in super().evaluate(nodes, floor, target)]

    searches = by_class(Search.start([9.0, 8.0], [Witness(0, 0.5, np.zeros(1))]))
    evaluator = Finds([0.01, 0.01], [3, 3])
    assert in_turn(searches, evaluator, SearchLimits(batch=1), Deadline.after(5.0), lambda now: None) is Stop.DONE
    assert [search.best for search in searches] == [8.5, 8.5]
    assert evaluator.spent[0] > 0 and evaluator.spent[1] == 0


class Steady:
    """Every halving takes so many seconds and lowers the bound by a part of what it is above the truth, 1."""

    def __init__(self, seconds, part, least=1.0):
        self.seconds, self.part, self.least = seconds, part, least

    def evaluate(self, nodes, floor, target):
        time.sleep(self.seconds * len(nodes))
        return [
            Assessment(self.least + (node.upper - self.least) * (1 - self.part), (2 * len(node.decisions) + 1,), True)
            for node in nodes
        ]


def raced(evaluators, seconds, monkeypatch, memory=2**32):
    """The trees of a race over one row with the bound 9, why it ended, and the ledger."""
    monkeypatch.setattr(racing, "_FIRST", 0.02)
    problem = nets.problem(nets.dense(0), 0.1)
    upper = np.zeros((1, problem.rows))
    upper[0, 0] = 9.0
    ledger = Ledger(problem, upper, lambda low, high: None, lambda note: None)
    limits, trees = SearchLimits(batch=1, memory=memory), []

    def tree(evaluator):
        start = Search.start(upper[0], [Witness(0, 1.0, np.zeros(problem.network.in_size))])
        trees.append(Tree([start], evaluator, limits, ledger, 0))
        return trees[-1]

    first = tree(evaluators[0])
    stop = race(first, [lambda e=e: tree(e) for e in evaluators[1:]], Deadline.after(seconds))
    return trees, stop, ledger


@pytest.mark.parametrize("best", [0, 1])
def test_the_tree_that_is_ahead_goes_on_alone(best, monkeypatch):
    evaluators = [Steady(0.004, 0.001), Steady(0.004, 0.001)]
    evaluators[best] = Steady(0.002, 0.02)
    trees, stop, ledger = raced(evaluators, 0.6, monkeypatch)
    assert stop is Stop.TIME
    assert trees[best].used > 4 * trees[1 - best].used
    assert ledger.upper[0].max() == trees[best].upper < trees[1 - best].upper


def test_where_none_is_ahead_the_race_takes_a_part_of_the_time(monkeypatch):
    trees, stop, _ = raced([Steady(0.002, 0.001), Steady(0.002, 0.001)], 0.6, monkeypatch)
    assert stop is Stop.TIME
    less, more = sorted(tree.used for tree in trees)
    assert 0.05 < less < 0.25 and more > 0.3


def test_a_tree_that_is_searched_to_its_end_ends_the_race(monkeypatch):
    trees, stop, ledger = raced([Steady(0.002, 0.0), Steady(0.002, 0.6)], 5.0, monkeypatch)
    assert stop is Stop.DONE and trees[1].upper == pytest.approx(1.0, rel=1e-3)
    assert ledger.upper[0].max() == trees[1].upper
    assert sum(tree.used for tree in trees) < 1.0


def test_nobody_joins_where_the_first_ends_at_once(monkeypatch):
    trees, stop, _ = raced([Steady(0.0, 0.9), Steady(0.0, 0.9)], 5.0, monkeypatch)
    assert stop is Stop.DONE and len(trees) == 1


def test_nobody_joins_where_one_subdomain_takes_much_of_the_time(monkeypatch):
    trees, stop, _ = raced([Steady(0.3, 0.1), Steady(0.001, 0.1)], 0.8, monkeypatch)
    assert stop is Stop.TIME and len(trees) == 1


def test_a_tree_is_judged_by_what_it_says_of_all_of_its_roots(monkeypatch):
    """The roots of the first take many first turns; once they are bounded it is far ahead."""

    class Rooted(Steady):
        def evaluate(self, nodes, floor, target):
            time.sleep(0.02 * len(nodes))
            return [Assessment(1.1 if not node.decisions else node.upper, (1,)) for node in nodes]

    monkeypatch.setattr(racing, "_FIRST", 0.02)
    problem = nets.problem(nets.dense(0, (2, 3, 6)), 0.1)
    upper = np.full((1, problem.rows), 9.0)
    ledger = Ledger(problem, upper, lambda low, high: None, lambda note: None)
    trees = []

    def tree(evaluator):
        start = Search.start(upper[0], [Witness(0, 1.0, np.zeros(problem.network.in_size))])
        trees.append(Tree([start], evaluator, SearchLimits(batch=1), ledger, 0))
        return trees[-1]

    race(tree(Rooted(0.02, 0.0)), [lambda: tree(Steady(0.002, 0.01))], Deadline.after(1.0))
    assert trees[0].upper == ledger.upper.max() == 1.1 and trees[0].used > trees[1].used


def test_trees_know_the_points_of_the_others(monkeypatch):
    class Finds(Steady):
        def evaluate(self, nodes, floor, target):
            found = (Witness(0, 1.5, np.zeros(1)),)
            return [Assessment(a.upper, a.chain, a.closed, found) for a in super().evaluate(nodes, floor, target)]

    trees, _, _ = raced([Finds(0.002, 0.0, 2.0), Steady(0.002, 0.0, 2.0)], 0.2, monkeypatch)
    assert trees[1].best == 1.5


def test_an_interrupt_ends_the_race_and_loses_nothing(monkeypatch):
    class Interrupted(Steady):
        def evaluate(self, nodes, floor, target):
            if len(nodes[0].decisions) > 20:
                raise KeyboardInterrupt
            return super().evaluate(nodes, floor, target)

    trees, stop, ledger = raced([Steady(0.002, 0.001), Interrupted(0.002, 0.02)], 5.0, monkeypatch)
    assert stop is Stop.INTERRUPTED
    assert ledger.upper[0].max() == min(tree.upper for tree in trees) < 8.0


def test_the_first_turn_with_the_roots_in_it_decides_nothing(monkeypatch):
    """The first tree is far ahead after its roots and gains little from then on."""

    class Rooted(Steady):
        def evaluate(self, nodes, floor, target):
            said = super().evaluate(nodes, floor, target)
            return [Assessment(2.0, (1,)) if not node.decisions else one for node, one in zip(nodes, said, strict=True)]

    trees, _, ledger = raced([Rooted(0.004, 0.001), Steady(0.001, 0.04)], 0.6, monkeypatch)
    assert ledger.upper[0].max() == trees[1].upper < 1.1 < trees[0].upper
