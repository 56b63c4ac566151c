"""Methods that misbehave, and a study of methods that behave, for the tests of the runner and its processes."""

from __future__ import annotations

import ctypes
import dataclasses
import fcntl
import os
import pickle
import stat
import time
from pathlib import Path
from typing import ClassVar, final

import nets
import numpy as np
import pandas as pd
import torch
from rich.console import Console

from lipcompare import Problem, methods
from lipcompare.budget import Budget, Clock, Kept
from lipcompare.methods import Method
from lipcompare.result import Bound, Status
from lipcompare.store.database import Store, StoreError
from lipcompare.study.run import CellLimits, Setting, Study, Task


class _Test(Method):
    proves: ClassVar[str] = "upper"
    summary: ClassVar[str] = "for tests"
    reference: ClassVar[str] = "none"

    def supports(self, problem: Problem) -> str | None:
        return None


def _warming_up(problem: Problem) -> bool:
    """Whether this is the runner's warm-up, a network of one neuron."""
    return problem.network.neurons == 1


@final
@dataclasses.dataclass(frozen=True)
class Segfault(_Test):
    name: ClassVar[str] = "segfault"

    def run(self, problem: Problem, budget: Budget) -> Bound:
        if not _warming_up(problem):
            ctypes.string_at(0)
        return self.result(problem, Clock(budget))


@final
@dataclasses.dataclass(frozen=True)
class Raises(_Test):
    name: ClassVar[str] = "raises"

    def run(self, problem: Problem, budget: Budget) -> Bound:
        print("a solver talks")
        os.write(1, b"and its C code too\n")
        if not _warming_up(problem):
            raise ZeroDivisionError("an error that nobody expected")
        return self.result(problem, Clock(budget))


@final
@dataclasses.dataclass(frozen=True)
class Hog(_Test):
    """Takes memory through numpy or torch, or asks for some that it never writes to, with a bound before that."""

    name: ClassVar[str] = "hog"

    way: str = "numpy"

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        if not _warming_up(problem):
            if self.way == "torch":
                torch.ones(2**30, dtype=torch.float64)
            elif self.way == "unused":
                clock.keep(Kept(0, np.full((problem.batch, problem.rows), 7.0)))
                np.zeros(2**27)
            else:
                np.ones(2**30)
        return self.result(problem, clock)


@final
@dataclasses.dataclass(frozen=True)
class Deaf(_Test):
    """Reports a bound and then never looks at the time."""

    name: ClassVar[str] = "deaf"

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        if not _warming_up(problem):
            clock.record(1.0, 1e6)
            time.sleep(600)
        return self.result(problem, clock)


@final
@dataclasses.dataclass(frozen=True)
class Steps(_Test):
    """A bound that improves over a counted number of steps, with random numbers from the global generator.

    Where the environment says so it pauses longer after each, for someone to come in between.
    """

    name: ClassVar[str] = "steps"

    steps: int = 4

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        upper = torch.full((1, problem.rows), 1e4, dtype=torch.float64)
        for _ in range(self.steps):
            upper = upper * (0.5 + 0.1 * torch.rand(1, problem.rows, dtype=torch.float64))
            clock.record(0.0, float(upper.max()))
            time.sleep(float(os.environ.get("STEPS_PAUSE", "0.02")))
        return self.result(problem, clock, upper=upper, status=Status.NODE_LIMIT)


@final
@dataclasses.dataclass(frozen=True)
class Faulty(_Test):
    """Breaks what lies between a worker process and the runner.

    ``interrupted``: returns that status. ``closed``: closes the pipe to the runner and sleeps. ``byte``: sends one bad
    byte there and sleeps. ``object``: sends a pickle that is no message. ``zero``: records an upper bound of 0 and
    dies.
    """

    name: ClassVar[str] = "faulty"

    way: str = "interrupted"

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        if _warming_up(problem):
            return self.result(problem, clock)
        if self.way == "interrupted":
            return self.result(problem, clock, status=Status.INTERRUPTED)
        if self.way == "zero":
            clock.record(0.0, 0.0)
            os._exit(3)
        pipe = _pipe_to_runner()
        if self.way == "closed":
            os.close(pipe)
        else:
            os.write(pipe, b"\xff" if self.way == "byte" else pickle.dumps({"no": "message"}))
        time.sleep(600)
        raise AssertionError


def _pipe_to_runner() -> int:
    """The worker's copy of its standard output, which by now writes to the runner while 1 writes to stderr."""
    pipes = [fd for fd in range(3, 64) if _is_pipe_for_writing(fd)]
    return pipes[0]


def _is_pipe_for_writing(fd: int) -> bool:
    try:
        writes = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
        return writes and stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False


def register() -> None:
    for method in (Segfault, Raises, Hog, Deaf, Steps, Faulty):
        methods.register(method)


def cheap_study(examples: int = 6) -> Study:
    """Four cells for each example and one that is no method; their values do not depend on time."""
    network = nets.dense(0)
    problem = nets.problem(network, 0.1, batch=examples)
    tasks = [Task(problem.example(b), {"model": "dense", "example": b}) for b in range(examples)]
    attack = Setting("attack", {"samples": 16, "starts": 2, "ascent_steps": 2, "rounds": 1, "proposals": 4})
    settings = [Setting("naive"), Setting("lbp"), Setting("steps"), Setting("absent"), attack]
    return Study("cheap", tasks, settings, CellLimits(time=20.0))


QUIET = Console(quiet=True)


def rows(path: Path) -> pd.DataFrame:
    with Store(path, read_only=True) as store:
        return store.frame()


def assert_same_rows(path: Path, expected: pd.DataFrame) -> None:
    found = rows(path)
    same = ["study", "task", "series", "key", "status", "message", "proves", "options", "rows_lower", "rows_upper"]
    pd.testing.assert_frame_equal(found[same], expected[same])
    for end in ("lower", "upper"):
        np.testing.assert_allclose(found[end].to_numpy(float), expected[end].to_numpy(float), rtol=1e-9)


def finished(path: Path) -> int:
    try:
        with Store(path, read_only=True) as store:
            return len(store.done())
    except StoreError:  # not there yet, or empty
        return 0
