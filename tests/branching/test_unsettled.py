"""Which gate a contradictory pattern is split at, and where it is one of many."""

from __future__ import annotations

import nets
import numpy as np
import pytest
from branching.test_evaluator import evaluator_of
from torch import Tensor

from lipcompare.branching import unsettled
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.tree import Subdomain
from lipcompare.branching.unsettled import EMPTY, _Host
from lipcompare.network import Interval
from lipcompare.regions.program import UNKNOWN, Deepest

NUMBERING = Numbering(nets.dense(0, (3, 5, 4, 2)))


def host(score: dict[int, float], decided: tuple[int, ...] = ()) -> _Host:
    """One subdomain with all nine gates on in the pattern, undecided but for some; scores that are not named are 0."""
    every = np.ones((1, NUMBERING.gates), dtype=bool)
    every[0, list(decided)] = False
    scores = np.zeros((1, NUMBERING.gates + NUMBERING.network.in_size))
    scores[0, list(score)] = list(score.values())
    return _Host(NUMBERING, active=every, undecided=every, relevant=every, score=scores, upper=[1.0])


def test_a_contradiction_is_split_at_an_early_layer_unless_a_later_one_is_worth_much_more() -> None:
    """Gates 0 to 4 are of the first layer."""
    assert host({1: 1.0, 6: 2.0}).exclude(0, (1, 6)).chain == (2 * 1 + 1,)
    assert host({1: 1.0, 6: 4.0}).exclude(0, (1, 6)).chain == (2 * 6 + 1,)


def test_a_contradiction_of_few_gates_is_left_out_in_one_split() -> None:
    found = host({0: 1.0, 2: 3.0}).exclude(0, (0, 2))
    assert found.chain == (2 * 2 + 1, 2 * 0 + 1) and found.closed


def test_a_contradiction_of_a_later_layer_rests_on_the_gates_before_it() -> None:
    """Its constraints are affine only where these are decided: until then nothing is empty, and no part left out."""
    one = host({2: 1.0, 6: 2.0}).exclude(0, (6,))
    assert one.chain == (2 * 6 + 1,) and not one.closed
    two = host({2: 1.0}, decided=(5, 6, 7, 8)).exclude(0, (6,))
    assert two.chain == (2 * 2 + 1,) and not two.closed
    assert host({}, decided=(0, 1, 2, 3, 4, 6)).exclude(0, (6,)) == EMPTY


def test_a_contradiction_is_left_out_only_where_the_relaxation_is_tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is loose it is split where it is, and one pattern of a batch is looked at all the same."""
    problem, asked = nets.problem(nets.dense(5, (2, 4, 3, 2)), 0.8), list[int]()
    nodes = [Subdomain(np.inf, row, (2 * gate + 1,)) for row in range(problem.rows) for gate in range(4)]

    def chains(share: float, solved: float, empty: bool) -> list[tuple[int, ...]]:
        asked.append(0)

        def locate(slopes: Tensor, box: Interval) -> list[Deepest]:
            asked[-1] += len(slopes)
            return [Deepest(None, -np.inf, empty, (4, 5), (1.0, 1.0)) if empty else UNKNOWN] * len(slopes)

        evaluator = evaluator_of(problem)
        monkeypatch.setattr(unsettled, "_TIGHT", share)
        monkeypatch.setattr(unsettled, "_SOLVED", solved)
        monkeypatch.setattr(evaluator, "locate", locate)
        return [said.chain for said in evaluator.evaluate(nodes, 0.0, 0.0)]

    plain, loose = chains(0.0, 0.0, False), chains(0.0, 0.0, True)
    assert loose == plain and all(len(chain) <= 1 for chain in loose)
    for share, solved in ((2.0, 0.0), (0.0, 2.0)):
        left_out = chains(share, solved, True)
        assert asked[1] < asked[-1] and any(len(chain) > 1 for chain in left_out)
