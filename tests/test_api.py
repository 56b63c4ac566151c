"""bound: what it checks, what it survives, and how results print."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import time
from typing import Any, ClassVar, final

import nets
import numpy as np
import pytest
import torch
from scripted import Scripted

import lipcompare
from lipcompare import Bound, Box, Contradiction, InvalidInput, Method, Problem, Status
from lipcompare.budget import Budget, Clock, Deadline, Kept, TracePoint
from lipcompare.cli import asked, options
from lipcompare.display import progress as display
from lipcompare.domain import Space
from lipcompare.witness import check_witnesses, make_witnesses

PROBLEM = nets.problem(nets.dense(0), 0.1, batch=2)


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        ("refuse", Status.UNSUPPORTED),
        ("memory", Status.OUT_OF_MEMORY),
        ("torch memory", Status.OUT_OF_MEMORY),
        ("interrupt", Status.INTERRUPTED),
    ],
)
def test_failures_become_statuses_that_prove_nothing(failure: str, status: Status) -> None:
    result = lipcompare.bound(PROBLEM, Scripted(failure))
    assert result.status is status and result.proves == "nothing"
    assert (result.lower == 0).all() and np.isinf(result.upper).all()
    assert result.sentence.endswith(".")


def test_rows_have_names() -> None:
    assert lipcompare.problem.row_names(torch.eye(3)) == ["0", "1", "2"]
    assert lipcompare.problem.row_names(lipcompare.margins(1, 3)) == ["1-0", "1-2"]
    classes = ("cat", "dog", "eel")
    assert lipcompare.problem.row_names(lipcompare.margins(1, 3), classes) == ["dog-cat", "dog-eel"]
    assert lipcompare.problem.row_names(torch.tensor([[0.5, 0.5], [0.0, 0.0]])) == ["row 0", "row 1"]


def test_a_bug_is_a_status_that_names_it_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    result = lipcompare.bound(PROBLEM, Scripted("bug"))
    assert result.status is Status.CRASHED and result.proves == "nothing"
    assert "RuntimeError: index out of range (run, line" in result.sentence and "Nothing was proved." in result.sentence
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: lipcompare.bound(PROBLEM, timelimit=1), "'timelimit', and bound() neither. Did you mean 'time_limit'"),
        (lambda: lipcompare.bound(PROBLEM, "lbp", tighening="crown"), "Did you mean 'tightening'"),
        (lambda: lipcompare.bound(PROBLEM, "lbp", tightening=3), "it takes 'interval' or 'crown' or 'alpha-crown'"),
        (lambda: lipcompare.bound(PROBLEM, "bab", pivots=2.5), "it takes int or None"),
        (lambda: lipcompare.bound(PROBLEM, "lpb"), "Unknown method 'lpb'. Did you mean"),
        (lambda: lipcompare.bound(PROBLEM, 3), "A method is a name or an object"),
        (lambda: lipcompare.bound(PROBLEM, "lbp", time_limit="3"), "time_limit must be a number, not '3'"),
        (lambda: lipcompare.bound(PROBLEM, "lbp", time_limit=float("nan")), "time_limit must be a positive number"),
        (lambda: lipcompare.bound(PROBLEM, "lbp", gap=1), "gap must be"),
        (lambda: lipcompare.bound(PROBLEM, "lbp", threads=1.5), "a positive number of threads"),
        (lambda: lipcompare.bound([PROBLEM]), "lipcompare.compare takes several"),
        (lambda: lipcompare.bound(PROBLEM, eps=0.1), "The problem says where already: eps"),
        (lambda: lipcompare.bound(PROBLEM.network, eps=0.1), "needs center="),
        (lambda: lipcompare.bound("not_there.onnx", center=0.5, eps=0.1), "check the path"),
        (lambda: lipcompare.bound(3, center=0.5, eps=0.1), "Cannot read a network from int"),
        (lambda: lipcompare.bound(PROBLEM.network, center="a", eps=0.1), "center must be a number"),
        (lambda: lipcompare.bound(PROBLEM.network, center=[[1, 2], [3]], eps=0.1), "rows of different lengths"),
        (lambda: lipcompare.bound(PROBLEM.network, center=0.5, eps=None), "needs center="),
        (lambda: lipcompare.bound(PROBLEM.network, center=0.5, eps=0.1, dtype="float32"), "give torch.float64"),
        (lambda: lipcompare.bound(PROBLEM, "bab", pivots=-1), "Option 'pivots' of 'bab' cannot be -1: at least 0."),
        (lambda: lipcompare.bound(PROBLEM, "bab", passes=0), "Option 'passes' of 'bab' cannot be 0: at least 1."),
        (lambda: lipcompare.bound(PROBLEM, "bab", attack_seconds=float("nan")), "cannot be nan"),
        (lambda: lipcompare.bound(PROBLEM, "lipbab", batch=0), "Option 'batch' of 'lipbab' cannot be 0"),
        (lambda: lipcompare.bound(PROBLEM, "sdp", cuts=-1), "Option 'cuts' of 'sdp' cannot be -1"),
        (lambda: lipcompare.METHODS["lp"](threads=0), "Option 'threads' of 'lp' cannot be 0"),
        (lambda: lipcompare.METHODS["milp"](threads=0), "Option 'threads' of 'milp' cannot be 0"),
        (lambda: lipcompare.bound(PROBLEM, "attack", samples=0), "Option 'samples' of 'attack' cannot be 0"),
        (lambda: Problem(PROBLEM.network, 0.1), "A problem's box cannot be of type float"),
        (lambda: Problem("net.onnx", PROBLEM.box), "A problem's network cannot be 'net.onnx'"),
    ],
)
def test_wrong_calls_are_sentences(call, says) -> None:
    with pytest.raises(InvalidInput, match=re.escape(says)):
        call()


def test_a_model_and_where_are_enough(tmp_path) -> None:
    network = nets.dense(0)
    center = torch.rand(2, network.in_size, dtype=torch.float64)
    posed = Problem.around(network, center, 0.1, norm=2, clip=(0, 1))
    known = lipcompare.bound(posed, "ibp").upper
    found = lipcompare.bound(network, "ibp", center=center.to(posed.device), eps=0.1, norm=2, clip=(0, 1))
    assert (found.upper == known).all()
    weights = [torch.randn(3, 4), torch.zeros(3), torch.randn(2, 3), torch.zeros(2)]
    file = tmp_path / "net.npz"
    np.savez(file, **dict(zip(("W0", "b0", "W1", "b1"), (w.numpy() for w in weights), strict=True)))
    first, second = torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)
    module = torch.nn.Sequential(first, torch.nn.ReLU(), second)
    for parameter, value in zip(module.parameters(), weights, strict=True):
        parameter.data = value
    results = [lipcompare.bound(model, "ibp", center=0.5, eps=0.1).upper for model in (file, str(file), module)]
    assert np.allclose(results[0], results[2], rtol=1e-12) and (results[0] == results[1]).all()


def test_what_is_run_where_nothing_is_said_is_that_of_the_command_line() -> None:
    fields = {f.name: f.default for f in dataclasses.fields(asked.BoundOptions)}
    limits = {f.name: f.default for f in dataclasses.fields(options.BudgetOptions)}
    own = {k: v.default for k, v in inspect.signature(lipcompare.bound).parameters.items()}
    assert (own["method"], own["time_limit"], own["gap"]) == (fields["method"], limits["time_limit"], limits["gap"])
    assert own["memory"] == limits["memory"] * 2**30


@pytest.mark.parametrize("batch", [(), (5,)])
def test_a_convolution_tells_one_input_from_a_batch(batch) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3), torch.nn.Flatten(), torch.nn.Linear(4, 2))
    problem = Problem.around(module, torch.rand(*batch, 1, 4, 4), 0.1)
    assert problem.network.input_shape == (1, 4, 4) and problem.batch == (*batch, 1)[0]


def test_problems_and_networks_are_shown_in_a_line() -> None:
    ball = Problem.around(PROBLEM.network, 0.5, 0.1, ball=2)
    assert repr(lipcompare.bound(PROBLEM, "ibp")).startswith("<Bound by ibp: ")
    for thing in (PROBLEM, PROBLEM.network, PROBLEM.box, ball, ball.box, Space.of(3)):
        assert len(repr(thing)) < 200 and "tensor" not in repr(thing), repr(thing)
    assert "1 l_2 ball of radius 0.1" in repr(ball) and "2 boxes of radius 0.1" in repr(PROBLEM)
    odd = dataclasses.replace(PROBLEM, network=dataclasses.replace(PROBLEM.network, name="<b>"))
    assert "&lt;b&gt;" in odd._repr_html_() and "<b>" not in odd._repr_html_()


@final
@dataclasses.dataclass(frozen=True)
class Teller(Method):
    """Keeps a bound and a witness, and then ends as the test says."""

    name: ClassVar[str] = "teller"
    proves: ClassVar[str] = "interval"
    summary: ClassVar[str] = "for tests"
    reference: ClassVar[str] = "none"

    failure: type[BaseException] = KeyboardInterrupt
    asked: bool = False

    def supports(self, problem: Problem) -> str | None:
        return None

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        last = problem.example(problem.batch - 1)
        points = last.box.interval.center.unsqueeze(1).expand(-1, problem.rows, -1)
        kept = Kept(problem.batch - 1, np.full((1, problem.rows), 1e3), make_witnesses(last, points))
        clock.keep((lambda: kept) if self.asked else kept)
        raise self.failure("at that moment")


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (KeyboardInterrupt, Status.INTERRUPTED),
        (MemoryError, Status.OUT_OF_MEMORY),
        (ZeroDivisionError, Status.CRASHED),
    ],
)
def test_what_was_kept_is_returned_whatever_ends_the_run(
    failure: type[BaseException], status: Status, asked: bool
) -> None:
    result = lipcompare.bound(PROBLEM, Teller(failure, asked))
    assert result.status is status and "The interval so far holds." in result.sentence
    assert np.isinf(result.upper[0]).all() and (result.upper[1] == 1e3).all()
    center = nets.sampled_norms(Problem(PROBLEM.network, Box.ball(PROBLEM.box.interval.center, 0.0)), samples=1)
    np.testing.assert_allclose(result.lower[1], center[1], rtol=1e-9)
    assert (result.lower[0] == 0).all()


def test_a_lower_bound_without_a_witness_is_none() -> None:
    result = lipcompare.bound(PROBLEM, Scripted())
    assert (result.lower == 0).all() and result.proves == "upper"


def test_exact_takes_two_checked_finite_ends() -> None:
    claimed = lipcompare.bound(PROBLEM, Scripted("exact", low=2.0))
    assert claimed.status is Status.NUMERICAL and "leaves a gap" in claimed.sentence
    unbounded = lipcompare.bound(PROBLEM, Scripted("exact", low=0.0, high=float("inf")))
    assert unbounded.status is Status.NUMERICAL and unbounded.proves == "nothing"


def test_nan_is_no_bound() -> None:
    result = lipcompare.bound(PROBLEM, Scripted(low=float("nan"), high=float("nan")))
    assert np.isinf(result.upper).all() and (result.lower == 0).all()


def test_a_result_that_excludes_itself_is_an_error() -> None:
    with pytest.raises(Contradiction, match=r"above upper bound 0\.01"):
        lipcompare.bound(PROBLEM, Scripted("witness", low=100.0, high=0.01))


def test_results_print_and_serialise() -> None:
    result = lipcompare.bound(PROBLEM, "lbp")
    assert "at most" in str(result) and "<table>" in result._repr_html_()
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["lower"] == [None, None] and len(plain["rows"]["upper"]) == 2
    assert plain["options"]["tightening"] == "alpha-crown"
    nothing = lipcompare.bound(PROBLEM, Scripted("memory"))
    assert nothing.to_dict()["upper"] == [None, None] and "nothing proved" in str(nothing)


def test_a_result_is_drawn_and_shown_by_a_notebook() -> None:
    network = nets.dense(0)
    result = lipcompare.bound(network, "exact", center=0.5, eps=0.1)
    for drawn in (result, lipcompare.bound(PROBLEM, "ibp"), lipcompare.bound(PROBLEM, Scripted("memory"))):
        figure = drawn.plot()
        assert figure._repr_png_().startswith(b"\x89PNG") and figure.axes[0].get_ylabel() == "functional"
    assert [t.get_text() for t in lipcompare.bound(PROBLEM, "ibp").plot().axes[0].get_legend().get_texts()]
    assert lipcompare.plots.trace([result])._repr_png_()


def test_news_are_shown_where_somebody_sees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook: nothing in the first moments, a line that is updated in place, nothing in the end."""
    lines: list[str] = []

    class Handle:
        def update(self, data: dict[str, str], raw: bool) -> None:
            lines.append(data["text/plain"])

    def publish(data: dict[str, str], raw: bool, display_id: bool) -> Handle:
        lines.append(data["text/plain"])
        return Handle()

    monkeypatch.setattr(display, "_notebook", lambda: publish)
    lipcompare.bound(PROBLEM, "ibp")
    assert display.watched() and lines == []  # it took no second
    with display.progress(after=0.0) as announce:
        news = announce("work")
        news.show(TracePoint(1.0, 1.5, np.inf))
        time.sleep(0.21)
        news.note("7 open")
    assert lines[0].startswith("work") and "work: from 1.5 to -  7 open  (" in lines[1] and lines[-1] == ""


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    lipcompare.bound(PROBLEM, "lbp", threads=1)
    assert torch.get_num_threads() == before


def test_the_attack_stops_at_its_time_limit_with_a_witness() -> None:
    problem = nets.problem(nets.dense(0, (16, 64, 64, 10)), 0.3)
    result = lipcompare.bound(problem, "attack", time_limit=0.05)
    assert result.status is Status.TIME_LIMIT and result.proves == "lower"
    assert result.witnesses is not None and (result.lower > 0).all()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
def test_what_a_search_had_found_when_it_was_ended_is_returned(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("lipcompare.attack.search._local_search", fails)
    problem = Problem.around(nets.dense(0), 0.0, 0.5)
    result = lipcompare.bound(problem, "attack")
    assert result.status in (Status.INTERRUPTED, Status.OUT_OF_MEMORY)
    assert (result.lower > 0).any() and np.isinf(result.upper).all()


def test_an_interrupt_after_the_run_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the check of the witnesses, for one, which takes its time too."""
    problem = Problem.around(nets.dense(0), 0.0, 0.5)
    expected = lipcompare.bound(problem, "auto")
    checked = check_witnesses
    calls = iter([True, False])

    def check(*given: Any) -> Any:
        if next(calls):
            raise KeyboardInterrupt
        return checked(*given)

    monkeypatch.setattr("lipcompare.api.check_witnesses", check)
    result = lipcompare.bound(problem, "auto")
    assert result.status is Status.INTERRUPTED
    np.testing.assert_array_equal(result.lower, expected.lower)
    np.testing.assert_array_equal(result.upper, expected.upper)


@pytest.mark.parametrize("method", ["bab", "lipbab", "milp", "exact"])
def test_what_was_found_is_returned_without_the_memory_to_compute_anything(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by experiments.faults: points were evaluated once more before they were returned."""
    best = [0.0]

    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    def on_progress(point: TracePoint) -> None:
        best[0] = max(best[0], point.lower)
        if best[0] > 0:
            monkeypatch.setattr("lipcompare.witness.make_witnesses", fails)
            raise MemoryError

    problem = Problem.around(nets.dense(0, (2, 6, 6, 2)), 0.0, 1.0)
    result = lipcompare.bound(problem, method, on_progress=on_progress)
    assert result.status in (Status.OUT_OF_MEMORY, Status.MEMORY_LIMIT)
    assert result.lower.max() >= best[0] * (1 - 1e-9) > 0


@pytest.mark.parametrize("never", [False, True])
def test_witnesses_that_do_not_fit_together_are_checked_one_example_after_another(
    never: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = nets.problem(nets.dense(0), 0.1, batch=3)
    expected = lipcompare.bound(problem, "attack")

    def check(some: Problem, witnesses: Any) -> np.ndarray:
        if some.batch > 1 or (never and some.box.window.center[0, 0] == problem.box.window.center[1, 0]):
            raise MemoryError
        return check_witnesses(some, witnesses)

    monkeypatch.setattr("lipcompare.api.check_witnesses", check)
    result = lipcompare.bound(problem, "attack")
    kept = [0, 2] if never else [0, 1, 2]
    np.testing.assert_allclose(result.lower[kept], expected.lower[kept], rtol=1e-12)
    if never:
        assert result.status is Status.OUT_OF_MEMORY and (result.lower[1] == 0).all()
        assert "whose check found no memory" in result.sentence


@final
@dataclasses.dataclass(frozen=True)
class _Asks(Method):
    """Tells what time it was given."""

    name: ClassVar[str] = "asks"
    proves: ClassVar[str] = "upper"
    summary: ClassVar[str] = "for tests"
    reference: ClassVar[str] = "none"

    def supports(self, problem: Problem) -> str | None:
        return None

    def run(self, problem: Problem, budget: Budget) -> Bound:
        return self.result(problem, Clock(budget), detail=repr(budget.time_limit))


@pytest.mark.parametrize(("depth", "least", "most"), [(1, 9.9, 10.0), (100, 9.5, 9.8)])
def test_the_check_of_a_result_has_its_time(depth: int, least: float, most: float) -> None:
    """It goes node by node, exactly where that matters: of a deep network it took a second after the limit."""
    problem = nets.problem(nets.dense(0, (2,) * (depth + 2)), 0.1)
    assert least < float(lipcompare.bound(problem, _Asks(), time_limit=10.0).detail) < most
    assert float(lipcompare.bound(problem, _Asks(), time_limit=0.01).detail) >= 0.008
    assert float(lipcompare.bound(problem, _Asks(), time_limit=float("inf")).detail) == float("inf")


def test_limits_may_be_numbers_of_numpy() -> None:
    """Their comparisons made a number of a mask in the interior point method."""
    problem = nets.problem(nets.dense(4, (6, 12, 12, 3)), 0.3)
    result = lipcompare.bound(problem, "bab", time_limit=np.float64(0.5), gap=np.float64(1e-4), memory=np.int64(2**30))
    assert result.status in (Status.EXACT, Status.TIME_LIMIT), result.sentence
    budget = Budget(time_limit=np.float64(3), memory=np.int64(2**20))
    assert type(budget.time_limit) is float and type(budget.memory) is int
    assert type(Deadline.after(np.float64(1)).passed()) is bool
