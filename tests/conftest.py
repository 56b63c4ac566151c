"""What every test starts from: one thread, generated examples without a time limit, the shared data if any."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

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
    parser.addoption("--device", default="cpu", help="where the problems of all tests are: cpu or cuda")


@pytest.fixture(autouse=True, scope="session")
def placed(request: pytest.FixtureRequest) -> Iterator[None]:
    """``pytest --device cuda``: every problem that a test poses is moved there first, however it was made."""
    device = request.config.getoption("--device")
    if device == "cpu":
        yield
        return
    made = Problem.__post_init__

    def moved(problem: Problem) -> None:
        if isinstance(problem.box, Box):
            object.__setattr__(problem, "box", problem.box.to(device, problem.box.lower.dtype))
        made(problem)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Problem, "__post_init__", moved)
        yield


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Scripts that train set more threads; left over, they fight over the cores with the tests beside."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def light_workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of studies are forks, which import nothing; tests marked ``processes`` have them started anew."""
    if hasattr(os, "fork") and request.node.get_closest_marker("processes") is None:
        monkeypatch.setattr("lipcompare.study.process._spawn", forked.spawn)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference networks and data beside the checkout; tests that use it have small counterparts."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared beside this checkout")
    return folder
