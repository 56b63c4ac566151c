"""What every test starts from: one thread, generated examples without a time limit, the shared data if any."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import elsewhere
import forked
import pytest
import torch
from hypothesis import settings

from lipcompare import Box, Problem

torch.set_num_threads(1)
# A shell that starts the tests in the background has them ignore Ctrl-C, which some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The same networks in every run, so that a change is judged by what it changes; `make explore` draws new ones.
settings.register_profile("explore", deadline=None)
settings.register_profile("repeatable", settings.get_profile("explore"), derandomize=True)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where the problems of all tests are: cpu, cuda, elsewhere")


@pytest.fixture(autouse=True)
def placed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``pytest --device cuda``: every problem that a test poses is moved there first, however it was made.

    On the device ``elsewhere`` (:mod:`elsewhere`) they are where a test is that is marked so.
    """
    name = "elsewhere" if request.node.get_closest_marker("elsewhere") else request.config.getoption("--device")
    if name == "cpu":
        yield
        return
    device = elsewhere.DEVICE if name == "elsewhere" else torch.device(name)
    made = Problem.__post_init__

    def moved(problem: Problem) -> None:
        if isinstance(problem.box, Box) and _posed():
            object.__setattr__(problem, "box", problem.box.to(device, problem.box.lower.dtype))
        made(problem)

    monkeypatch.setattr(Problem, "__post_init__", moved)
    with elsewhere.Device() if name == "elsewhere" else contextlib.nullcontext():
        yield


def _posed() -> bool:
    """Whether the problem that is being made is one of a test, and not of the program itself."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__") in _MAKERS:
        frame = frame.f_back
    name = str(frame.f_globals.get("__name__"))
    return not name.startswith("lipcompare") or name.startswith("lipcompare.testing")


_MAKERS = ("dataclasses", "contextlib", "lipcompare.problem", "lipcompare.errors", "lipcompare.network.environment")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Scripts that train set more threads; left over, they fight over the cores with the tests beside."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def light_workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of studies and of searches are forks, which import nothing; ``processes`` has them started anew."""
    if hasattr(os, "fork") and request.node.get_closest_marker("processes") is None:
        for user in ("study.process", "branching.workers.pool"):
            monkeypatch.setattr(f"lipcompare.{user}.spawn", forked.spawn)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference networks and data beside the checkout; tests that use it have small counterparts."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared beside this checkout")
    return folder
