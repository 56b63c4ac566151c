"""Python packages behind solvers: whether they are there, and if not, why."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Iterable


@functools.cache
def missing(package: str) -> str:
    """Why a package cannot be used, "" if it can: it is not installed, or something that it needs is not."""
    if importlib.util.find_spec(package) is None:
        return f"the Python package {package} is not installed"
    try:
        importlib.import_module(package)
    except (ImportError, OSError) as error:  # a package of its own, or a library of the system
        return f"the Python package {package} is installed but cannot be imported ({type(error).__name__}: {error})"
    return ""


def unfound(package: str, solver: str) -> str:
    """A sentence on a solver that a package knows and does not find."""
    return f"{package} finds no {solver} on this machine: see `lipcompare solvers`."


def meant(name: str, choices: Iterable[str]) -> str | None:
    """Which of a package's solvers is called so, in any case, or so without what follows an underscore; None if none
    is."""
    wanted = name.lower()
    likely = sorted(choices, key=lambda choice: choice.lower() != wanted)
    return next((choice for choice in likely if wanted in (choice.lower(), choice.lower().partition("_")[0])), None)
