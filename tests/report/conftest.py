"""A store with made-up results."""

from __future__ import annotations

from pathlib import Path

import made_up
import pytest


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up.fill(tmp_path_factory.mktemp("made up") / "r.sqlite")
