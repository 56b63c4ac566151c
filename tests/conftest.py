"""What every test starts from: one thread, no time limit on generated examples, the shared data if there are any."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
# A shell that starts the tests in the background has them ignore Ctrl-C, which some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("lipcompare", deadline=None)
settings.load_profile("lipcompare")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference networks and data beside the checkout; tests that use it have small counterparts."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared beside this checkout")
    return folder
