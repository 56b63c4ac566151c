"""The suites that we ship can fail: each of these methods and solvers breaks one rule, and that rule's test says so."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest

import solvers
from lipcompare.budget import Budget
from lipcompare.methods import METHODS, Lbp, Method
from lipcompare.problem import Problem
from lipcompare.result import Bound
from lipcompare.testing.suites import MethodConformance, SolverConformance
from solvers import Limits, SolveStatus
from solvers.program import Program, Vector
from solvers.running import Claim, Progress

Change = Callable[[Bound], Bound]


@dataclasses.dataclass(frozen=True)
class Lying(Method):
    """The linear bound, spoilt."""

    name: ClassVar[str] = "lying"
    proves: ClassVar[str] = "upper"
    summary: ClassVar[str] = "for tests"
    reference: ClassVar[str] = "none"
    everywhere: ClassVar[bool] = True

    way: str = ""

    def supports(self, problem: Problem) -> str | None:
        return None

    def run(self, problem: Problem, budget: Budget) -> Bound:
        if self.way == "raises":
            raise ZeroDivisionError("an error")
        if self.way == "slow":
            time.sleep(61)
        honest = Lbp().run(problem, dataclasses.replace(budget, on_kept=None))
        high = honest.upper
        if self.way == "a fifth":
            high = 0.2 * high
        if self.way == "a hair":
            high = high * (1 - 1e-9) if problem.batch == 1 else high
        if self.way == "batch" and problem.batch > 1:
            high = high * 1.001
        if self.way == "single" and str(problem.dtype) == "torch.float32":
            high = 0.99 * high
        return dataclasses.replace(honest, upper=high, method=self.name, trace=())


def suite(way: str) -> MethodConformance:
    made = type("TestIt", (MethodConformance,), {"method": Lying(way), "seconds": 5.0})
    return made()  # type: ignore[no-any-return]


def checks(tests: MethodConformance) -> dict[str, Callable[[], None]]:
    return {
        "truth": lambda: tests.test_every_norm_against_the_truth("inf"),
        "oracle": lambda: tests.test_bounds_hold_in_real_numbers("plain", "float64"),
        "samples": lambda: tests.test_bounds_hold_at_samples("dense"),
        "batch": tests.test_a_batch_gives_what_its_boxes_give_one_by_one,
        "point": lambda: tests.test_over_a_point_there_is_one_gradient("inf"),
        "kink": tests.test_a_kink_has_every_clarke_slope,
        "single": tests.test_single_precision_and_margins,
        "ball": tests.test_balls_and_the_whole_space_are_bounded_or_refused,
        "time": tests.test_a_time_limit_is_kept_and_leaves_a_valid_interval,
    }


@pytest.mark.parametrize(
    ("way", "test"),
    [
        ("a fifth", "truth"),
        ("a fifth", "oracle"),
        ("a fifth", "samples"),
        ("a fifth", "kink"),
        ("a fifth", "ball"),
        ("a hair", "point"),
        ("batch", "batch"),
        ("single", "single"),
        ("raises", "truth"),
        ("slow", "time"),
    ],
)
def test_a_method_that_lies_is_caught(way: str, test: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    checks(suite(""))[test]()  # an honest one passes
    with pytest.raises(AssertionError):
        checks(suite(way))[test]()


def test_a_method_that_is_no_frozen_dataclass_or_cannot_be_sent_is_caught() -> None:
    class Local(Lying):
        name: ClassVar[str] = "local"

    made: MethodConformance = type("TestIt", (MethodConformance,), {"method": Local("")})()
    with pytest.raises(AttributeError, match="local"):
        made.test_a_worker_process_can_be_sent_it()
    METHODS.register("lying", Lying)
    try:
        suite("a fifth").test_options_are_fields_that_a_command_line_can_give()
    finally:
        METHODS.unregister("lying")


@dataclasses.dataclass(frozen=True)
class LyingSolver(solvers.Solver):
    """HiGHS, spoilt."""

    way: str

    name = "lying"

    @property
    def capabilities(self) -> solvers.Capabilities:
        honest = solvers.get("highs").capabilities
        return dataclasses.replace(honest, conic=True) if self.way == "conic" else honest

    def is_available(self) -> bool:
        return True

    def licence(self) -> str:
        return "none"

    def version(self) -> str:
        return "1"

    def _run(self, program: Program, limits: Limits, start: Vector | None, cutoff: float, progress: Progress) -> Claim:
        if self.way == "conic":
            return Claim(SolveStatus.SOLVER_ERROR)
        claim = solvers.get("highs")._run(program, limits, start, cutoff, progress)
        if self.way == "bound" and claim.status is SolveStatus.OPTIMAL:
            return dataclasses.replace(claim, dual_bound=claim.dual_bound + 0.5, y=None)
        if self.way == "infeasible" and claim.status is SolveStatus.INFEASIBLE:
            return dataclasses.replace(claim, status=SolveStatus.NUMERICAL_TROUBLE)
        if self.way == "cutoff" and cutoff < np.inf and claim.status is not SolveStatus.OPTIMAL:
            return Claim(SolveStatus.SOLVER_ERROR)
        return claim


@pytest.mark.parametrize(
    ("way", "test"),
    [
        ("bound", lambda tests: tests.test_random_milps()),
        ("infeasible", lambda tests: tests.test_infeasible("mip")),
        ("cutoff", lambda tests: tests.test_cutoff()),
        ("conic", lambda tests: tests.test_random_sdps()),
    ],
)
def test_a_solver_that_lies_is_caught(
    way: str, test: Callable[[SolverConformance], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    traits = {"solver": "lying", "examples": 2}
    tests: SolverConformance = type("TestIt", (SolverConformance,), traits)()
    get = solvers.get
    monkeypatch.setattr(solvers, "get", lambda name: LyingSolver(way) if name == "lying" else get(name))
    with pytest.raises(AssertionError):
        test(tests)
