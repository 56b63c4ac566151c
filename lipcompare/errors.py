"""The package's exceptions. Each message is one sentence that names the fix."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class LipcompareError(Exception):
    """Base class of every error this package raises on purpose."""


class InvalidInput(LipcompareError, ValueError):
    """The question is malformed: a shape, a value, a name or a file."""


class UnsupportedOperation(LipcompareError, NotImplementedError):
    """The model uses an operation that cannot be lowered to linear maps and activations."""


class BeyondMemory(MemoryError):
    """Work that is known to take more than its memory limit, before it begins; the message says what to do."""


class Contradiction(LipcompareError, AssertionError):
    """Two certified results exclude each other: a bug, never a result.

    Attributes:
        results: what was found besides, where a comparison ended with it.
    """

    def __init__(self, message: str, results: object = None) -> None:
        super().__init__(message)
        self.results = results


_AS_NEAR = 0.1
"""How much less alike than the likeliest a name may be to be suggested beside it (of 1)."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """A sentence that lists ``choices`` and suggests those that are like ``name`` or begin with it, the most like
    first."""
    names = sorted(choices)
    close = suggestions(name, names)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    return f"{hint} Known: {', '.join(names) or 'none'}."


def suggestions(name: str, names: Sequence[str]) -> list[str]:
    """Those of the names that are like one or begin with it, the most like first: before all, two letters swapped."""
    close = difflib.get_close_matches(name, names, n=3)
    likeness = [difflib.SequenceMatcher(None, name, other).ratio() for other in close]
    close = [other for other, like in zip(close, likeness, strict=True) if like > likeness[0] - _AS_NEAR]
    close += [other for other in names if name and other.startswith(name) and other not in close]
    swaps = {name[:i] + name[i + 1] + name[i] + name[i + 2 :] for i in range(len(name) - 1)} - {name}
    swapped = [other for other in names if other in swaps]
    return swapped + [other for other in close if other not in swapped]


def known_keywords(function: Callable[P, T]) -> Callable[P, T]:
    """A function that says of a keyword which it does not have what it may have been meant to be, as a decorator.

    Raises:
        InvalidInput: when it is called with one.
    """
    names = [name for name, p in inspect.signature(function).parameters.items() if p.kind is not p.POSITIONAL_ONLY]

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        unknown = next((name for name in kwargs if name not in names), None)
        if unknown is not None:
            raise InvalidInput(f"{function.__name__}() has no argument {unknown!r}.{nearest(unknown, names)}")
        return function(*args, **kwargs)

    return called


def look_up(table: Mapping[str, T], name: str, kind: str) -> T:
    """The entry of a table of names.

    Raises:
        InvalidInput: there is none; the sentence says "Unknown ``kind``" and lists the names.
    """
    if name not in table:
        raise InvalidInput(f"Unknown {kind} {name!r}.{nearest(name, table)}")
    return table[name]


def entry_of(kind: type[Any], what: str) -> Callable[[str, object], Any]:
    """The check of a table whose entries are objects of one kind, each with the name that it has there.

    Args:
        what: what an entry is called in a sentence.
    """

    def check(name: str, entry: object) -> Any:
        if not isinstance(entry, kind) or entry.name != name:
            raise InvalidInput(f"{entry!r} is no {what} called {name!r}: see {kind.__module__}.{kind.__qualname__}.")
        return entry

    return check


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], kind: str, advice: str) -> Iterator[None]:
    """Reading a file that somebody else wrote: whatever its contents make fail is one sentence.

    The one place that does so. Readers check what can be checked and say it in their own words; the libraries under
    them raise anything at all on a damaged file, and the cause stays with the error for whoever debugs it. Interrupts,
    a lack of memory and the package's own errors pass.

    Args:
        path: the file.
        kind: what it should be, as in "is not a readable ...".
        advice: what to do about it.
    """
    import numpy as np  # not on top: a wrong path is answered without it

    try:
        with np.errstate(all="ignore"):
            yield
    except LipcompareError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise InvalidInput(f"{shown(path)} is not a readable {kind} ({summary(error)}): {advice}.") from error


_OUT_OF_MEMORY = (
    "can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory", "bad_alloc",
    "could not create a primitive", "could not create a memory", "could not initialize a memory",
    "can't start new thread",
)  # fmt: skip
"""What allocators say; oneDNN reports a failed allocation as a primitive or a memory object that it could not make, and
Python a thread that it has no room for."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory left.

    Torch's allocators, and what it is linked with, raise a RuntimeError.
    """
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in text for words in _OUT_OF_MEMORY)
    )


SOLVER_EXTRAS = ("gurobi", "pulp", "cvxpy")
"""Extras of this package that bring solvers; what comes with one is called so, or ``extra:name``."""


def install(extra: str) -> str:
    """How to get what an extra of this package brings, quoted as shells need it."""
    return f"pip install 'lipcompare[{extra}]'"


def require_file(path: str | os.PathLike[str]) -> None:
    """Raises InvalidInput if a path is not that of a file."""
    try:
        there = Path(path).is_file()
    except OSError as error:  # a name that is too long, for instance
        raise InvalidInput(f"{shown(path)} is not a readable file ({summary(error)}): check the path.") from error
    if not there:
        raise InvalidInput(f"{shown(path)} is not a file: check the path.")


def summary(error: BaseException) -> str:
    """Kind of an error and the first line of what it says, at most 200 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = f": {lines[0][:200]}" if lines else ""
    return shown(f"{type(error).__name__}{said}".rstrip(".:"))


def shown(name: str | os.PathLike[str]) -> str:
    """A name that can be printed, whatever bytes it has, at most 200 characters long."""
    text = os.fspath(name).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 200 else f"{text[:100]}...{text[-80:]}"
