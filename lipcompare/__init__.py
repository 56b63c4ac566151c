"""lipcompare: certified local Lipschitz constants of trained networks, by every method behind one interface.

>>> import lipcompare
>>> network = lipcompare.load("model.onnx")
>>> problem = lipcompare.Problem.around(network, center=0.5, eps=0.1)
>>> print(lipcompare.bound(problem, "lbp"))

The names below are loaded at their first use, and torch with them, so that the command line can answer without.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lipcompare.api import bound, compare
    from lipcompare.domain import NormBall, Space
    from lipcompare.errors import Contradiction, InvalidInput, LipcompareError, UnsupportedOperation
    from lipcompare.methods import METHODS, Method
    from lipcompare.network import Network
    from lipcompare.network.load import load
    from lipcompare.problem import Box, Norm, Problem, margins
    from lipcompare.result import Bound, Status, Witnesses

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "Bound",
    "Box",
    "Contradiction",
    "InvalidInput",
    "LipcompareError",
    "Method",
    "Network",
    "Norm",
    "NormBall",
    "Problem",
    "Space",
    "Status",
    "UnsupportedOperation",
    "Witnesses",
    "bound",
    "compare",
    "load",
    "margins",
]

_HOMES = {
    "api": ("bound", "compare"),
    "domain": ("NormBall", "Space"),
    "errors": ("Contradiction", "InvalidInput", "LipcompareError", "UnsupportedOperation"),
    "methods": ("METHODS", "Method"),
    "network": ("Network",),
    "network.load": ("load",),
    "problem": ("Box", "Norm", "Problem", "margins"),
    "result": ("Bound", "Status", "Witnesses"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lipcompare' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"lipcompare.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
