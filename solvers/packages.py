"""Python packages behind solvers: whether they are there, and if not, why."""

from __future__ import annotations

import functools
import importlib
import importlib.util


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
