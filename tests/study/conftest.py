"""The methods that misbehave, for the tests that run cells."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import runner_methods

from lipcompare import METHODS


@pytest.fixture
def misbehaving() -> Iterator[None]:
    """Methods that do to their process what methods should not."""
    before = set(METHODS)
    runner_methods.register()
    yield
    for name in set(METHODS) - before:
        METHODS.unregister(name)
