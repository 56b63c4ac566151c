"""The package's exceptions. Each message is one sentence that names the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LipcompareError(Exception):
    """Base class of every error this package raises on purpose."""


class InvalidInput(LipcompareError, ValueError):
    """The question is malformed: a shape, a value, a name or a file."""


class UnsupportedOperation(LipcompareError, NotImplementedError):
    """The model uses an operation that cannot be lowered to linear maps and activations."""


class Contradiction(LipcompareError, AssertionError):
    """Two certified results exclude each other: a bug, never a result.

    Attributes:
        results: what was found besides, where a comparison ended with it.
    """

    def __init__(self, message: str, results: object = None) -> None:
        super().__init__(message)
        self.results = results


def nearest(name: str, choices: Iterable[str]) -> str:
    """A sentence that lists ``choices`` and suggests the one most like ``name``."""
    names = sorted(choices)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{hint} Known: {', '.join(names)}."
