"""Gates: slope ranges of intervals, and pairs of states that exclude each other."""

from __future__ import annotations

import nets
import torch

from lipcompare.gates import Conflicts, Coupling, Gates, by_node, has_patterns
from lipcompare.network.interval import Interval
from lipcompare.preactivation import interval_bounds

NETWORK = nets.dense(0, (2, 3, 2, 1), alpha=0.25)


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_slopes_follow_the_sign_and_a_kink_that_is_touched_counts() -> None:
    first, second = NETWORK.activations
    bounds = {
        first: Interval(row(-2.0, 1.0, -1.0), row(-1.0, 2.0, 1.0)),
        second: Interval(row(0.0, -1.0), row(1.0, 0.0)),
    }
    gates = Gates.from_preactivations(NETWORK, bounds)
    assert gates.slopes[first].lower.tolist() == [[0.25, 1.0, 0.25]]
    assert gates.slopes[first].upper.tolist() == [[0.25, 1.0, 1.0]]
    assert gates.undecided()[first].tolist() == [False, False, True]
    assert gates.unstable(second).all() and gates.unstable_count.tolist() == [3]
    assert Gates.free(NETWORK, 2, torch.device("cpu"), torch.float64).unstable_count.tolist() == [5, 5]
    assert not gates.lines and gates.example(0).slopes[first].lower.shape == (1, 3)
    assert gates.double().slopes[first].lower.dtype is torch.float64


def test_numbers_run_through_all_nodes() -> None:
    first, second = NETWORK.activations
    parts = by_node(NETWORK, torch.arange(5.0))
    assert parts[first].tolist() == [0, 1, 2] and parts[second].tolist() == [3, 4]
    assert has_patterns(NETWORK) and by_node(nets.dense(0, (2, 1)), torch.zeros(0)) == {}


def test_conflicts_of_some_examples_are_numbered_by_their_position_there() -> None:
    pair = torch.tensor([[0, 1], [2, 0], [1, 1]])
    conflicts = Conflicts(torch.tensor([0, 2, 1]), pair, pair, pair.bool())
    some = conflicts.of(torch.tensor([2, 0]))
    assert some.example.tolist() == [1, 0] and some.neuron.tolist() == [[0, 1], [2, 0]] and some.count == 2
    assert Conflicts.none(torch.device("cpu")).count == 0
    problem = nets.problem(NETWORK, 0.1, batch=3)
    bounds = interval_bounds(NETWORK, problem.box.interval)
    coupling = Coupling(problem.box.interval, bounds, conflicts).of(torch.tensor([2]))
    assert coupling.box.lower.tolist() == problem.box.interval.lower[2:].tolist() and coupling.conflicts.count == 1
