"""What a question has proved stands whatever ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nets
import numpy as np
import pytest
import torch
from command_line import run

from lipcompare import Problem
from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.questions import certified_radius, directional_bounds, jacobian_bounds, monotonicity
from lipcompare.result import Status
from lipcompare.testing.clock import WorkClock

PROBLEM = Problem.around(nets.dense(3), 0.2, 0.3)
MANY = Problem.around(nets.dense(1, (40, 48, 48, 12)), torch.full((4, 40), 0.2), 0.3)

ENDS: list[tuple[BaseException, Status]] = [
    (KeyboardInterrupt(), Status.INTERRUPTED),
    (MemoryError(), Status.OUT_OF_MEMORY),
    (RuntimeError("could not create a primitive"), Status.OUT_OF_MEMORY),
]

QUESTIONS: dict[str, Callable[..., Any]] = {
    "jacobian": jacobian_bounds,
    "directional": lambda problem, **options: directional_bounds(problem, np.eye(problem.network.in_size), **options),
    "monotone": monotonicity,
}


def ending(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Have everything but interval arithmetic end with an error."""

    def fails(network: Any, box: Any, tightening: Tightening = Tightening.ALPHA_CROWN, **options: Any) -> Any:
        if tightening is not Tightening.INTERVAL:
            raise error
        return preactivation_bounds(network, box, tightening, **options)

    monkeypatch.setattr("lipcompare.questions.entries.preactivation_bounds", fails)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize(("error", "status"), ENDS)
def test_what_ends_a_question_leaves_bounds_that_hold(
    question: str, error: BaseException, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending(monkeypatch, error)
    found = QUESTIONS[question](PROBLEM)
    network, center = PROBLEM.network, PROBLEM.box.interval.center[0]
    there = network.pull_back(network.slopes(network.values(center)), PROBLEM.functionals[0]).numpy()
    assert found.status is status
    assert (found.lower[0] <= there).all() and (there <= found.upper[0]).all() and np.isfinite(found.upper).all()


@pytest.mark.parametrize("question", QUESTIONS)
def test_without_time_bounds_are_those_of_interval_arithmetic(question: str) -> None:
    found, whole = QUESTIONS[question](PROBLEM, time_limit=0.0), QUESTIONS[question](PROBLEM)
    assert found.status is Status.TIME_LIMIT and whole.status is Status.COMPLETE
    assert (found.upper >= whole.upper - 1e-12).all() and (found.upper > whole.upper + 1e-9).any()


@pytest.mark.parametrize("question", ["directional", "monotone"])
def test_work_in_small_passes_finds_the_same(question: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = QUESTIONS[question](PROBLEM)
    for module in ("entries", "monotone"):
        monkeypatch.setattr(f"lipcompare.questions.{module}._TOGETHER", 0.0)
    found = QUESTIONS[question](PROBLEM)
    for name in ("lower", "upper", *(("seen_lower", "rising", "falling") if question == "monotone" else ())):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("seconds", [0.003, 0.03])
@pytest.mark.parametrize("question", QUESTIONS)
def test_limits_hold_on_many_boxes_and_rows(question: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes with the work: it was 14 times the limit for 1000 boxes, 10 times for 784 inputs."""
    monkeypatch.setattr("lipcompare.questions.entries._TOGETHER", seconds / 10)
    monkeypatch.setattr("lipcompare.questions.monotone._TOGETHER", seconds / 10)
    with WorkClock() as clock:
        found = QUESTIONS[question](MANY, time_limit=seconds)
    assert found.status is Status.TIME_LIMIT and clock.seconds < 1.1 * seconds + 0.05


def test_a_bug_is_still_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ending(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        jacobian_bounds(PROBLEM)


@pytest.mark.parametrize(("error", "status"), ENDS)
def test_radii_that_are_certified_stay(error: BaseException, status: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise error

    center = PROBLEM.box.interval.center
    forward = certified_radius(PROBLEM.network, center, method="alpha-crown", largest=0.5)
    monkeypatch.setattr("lipcompare.questions.certify.lipschitz_radius", fails)
    found = certified_radius(PROBLEM.network, center, largest=0.5)
    assert found.status is status
    np.testing.assert_array_equal(found.radius, forward.radius)


@pytest.mark.parametrize(("command", "words"), [("jacobian", "proved by"), ("monotone", "undecided")])
@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (MemoryError(), 4)])
def test_the_command_line_prints_it_and_says_so(
    command: str, words: str, error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    weights = {"W0": np.array([[1.0, -1.0], [0.5, 2.0]]), "b0": np.zeros(2), "W1": np.array([[1.0, -1.0]])}
    np.savez(tmp_path / "net.npz", **weights, b1=np.zeros(1))
    ending(monkeypatch, error)
    ended = run(command, str(tmp_path / "net.npz"), "--center", "0", "--eps", "1")
    assert ended.exit_code == code and words in ended.stdout and "What was proved by then holds." in ended.stdout
