"""What searches prove on the way, example by example."""

from __future__ import annotations

import nets
import numpy as np
import pytest

from lipcompare.branching.driver import Search, SearchProgress
from lipcompare.branching.ledger import Ledger
from lipcompare.result import Attained, Witness


def setting() -> tuple[Ledger, list[tuple[float, float]], list[str]]:
    problem = nets.problem(nets.dense(0, (2, 4, 2)), 0.3, batch=2)
    trace: list[tuple[float, float]] = []
    notes: list[str] = []
    nothing = np.full((2, 2), np.inf)
    return Ledger(problem, nothing, lambda low, high: trace.append((low, high)), notes.append), trace, notes


def search(*uppers: float, attained: float = 0.0) -> Search:
    return Search.start(uppers, [Witness(0, attained, np.zeros(2))] if attained else [])


def test_the_smallest_bound_and_the_best_value_of_every_row_are_kept() -> None:
    ledger, _, _ = setting()
    ledger.keep(0, [search(3.0, 0.0, attained=1.0), search(0.0, 4.0)])  # one search per row: the larger one counts
    assert ledger.upper.tolist() == [[3.0, 4.0], [np.inf, np.inf]]
    ledger.keep(0, [search(5.0, 2.0)])
    assert ledger.upper[0].tolist() == [3.0, 2.0]
    ledger.keep(1, [search(np.nan, 1.0)])
    assert ledger.upper[1].tolist() == [np.inf, 1.0]
    assert ledger.attained[0].lower.tolist() == [1.0, 0.0] and ledger.attained[1].best == 0.0


def test_the_trace_is_the_interval_over_all_examples() -> None:
    ledger, trace, _ = setting()
    ledger.upper[:] = [[6.0, 5.0], [2.0, 1.0]]
    ledger.take(0, [search(4.0, 3.0, attained=1.5)])
    ledger.take(0, [search(4.0, 3.0, attained=1.5)])  # nothing new
    ledger.take(0, [search(1.6, 1.0, attained=1.5)])  # now the other example has the larger bound
    ledger.take(0, [search(9.0, 9.0, attained=1.5)])  # what is known already stands
    assert trace == [(1.5, 4.0), (1.5, 2.0), (1.5, 6.0)]


def test_a_search_is_watched() -> None:
    ledger, trace, notes = setting()
    ledger.upper[:] = [[6.0, 5.0], [2.0, 1.0]]
    running = search(4.0, 3.0)
    ledger.watch(0, [running])(SearchProgress(0.0, 4.0, 10, 3, 100.0))
    ledger.unit = "region"
    ledger.watch(0, [running])(SearchProgress(0.0, 4.0, 10, 3, 100.0))
    assert trace == [(0.0, 4.0)] and notes == ["10 subdomains, 100/s, 3 open", "10 regions, 100/s, 3 open"]


def test_where_nothing_was_attained_the_middle_of_the_box_stands_in() -> None:
    ledger, _, _ = setting()
    witnesses = ledger.kept().witnesses
    np.testing.assert_allclose(witnesses.points[1, 0], ledger.problem.box.interval.center[1])
    point = ledger.problem.box.lower[0].cpu().numpy()
    value = float(nets.sampled_norms(ledger.problem)[0, 1])
    ledger.attained[0].note(Witness(1, value, point))
    assert (ledger.kept().witnesses.points[0, 1] == point).all()


@pytest.mark.parametrize("step", ["row_upper", "learn"])
def test_an_interrupt_between_a_search_and_its_result_loses_nothing(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by experiments.faults: a reported point was lost while it was being taken up."""
    ledger, _, _ = setting()
    point = ledger.problem.box.lower[0].cpu().numpy()
    value = float(nets.sampled_norms(ledger.problem)[0, 0])
    running = Search.start([8.0, 7.0], [Witness(0, value, point)])
    ledger.watch(0, [running])(SearchProgress(value, 8.0, 1, 1, 1.0))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr({"row_upper": Search, "learn": Attained}[step], step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            ledger.keep(0, [running])
    kept = ledger.kept()
    assert kept.upper[0].tolist() == [8.0, 7.0] and (kept.witnesses.points[0, 0] == point).all()


def test_what_is_noted_is_there_without_any_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slopes at kinks too: by node, where their witness is."""
    ledger, _, _ = setting()
    network, point = ledger.problem.network, ledger.problem.box.lower[0].cpu().numpy()
    neurons = sum(network.nodes[k].size for k in network.activations)
    slopes = np.linspace(0.0, 1.0, neurons)
    ledger.attained[1].note(Witness(0, 3.0, point, slopes))
    ledger.attained[0].note(Witness(1, 2.0, point))
    monkeypatch.setattr(type(network), "values", None)
    witnesses = ledger.kept().witnesses
    assert witnesses.values.tolist() == [[0.0, 2.0], [3.0, 0.0]]
    assert witnesses.at_kink.tolist() == [[False, False], [True, False]]
    found = np.concatenate([witnesses.patterns[k][1, 0] for k in network.activations])
    assert (found == slopes).all() and (witnesses.points[1, 0] == point).all()
