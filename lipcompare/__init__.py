"""lipcompare: certified local Lipschitz constants of trained networks, by every method behind one interface.

>>> import lipcompare
>>> print(lipcompare.bound("model.onnx", center=0.5, eps=0.1))
>>> problem = lipcompare.Problem.around("model.onnx", center=0.5, eps=0.1, norm=2)
>>> lipcompare.compare(problem, ["lbp", "sdp"])

The names below are loaded at their first use, and torch with them, so that the command line can answer without. Nothing
is loaded until then: until the command line has its handlers, Python answers a Ctrl-C with a traceback.
"""

TYPE_CHECKING = False  # what type checkers take for true, without loading typing

if TYPE_CHECKING:
    from typing import Any

    from lipcompare.api import bound
    from lipcompare.domain import NormBall, Space
    from lipcompare.errors import Contradiction, InvalidInput, LipcompareError, UnsupportedOperation
    from lipcompare.methods import METHODS, Method
    from lipcompare.network import Network
    from lipcompare.network.load import load
    from lipcompare.problem import Box, Norm, Problem, margins
    from lipcompare.report import figures as plots
    from lipcompare.result import Bound, Status, Witnesses
    from lipcompare.study.compare import compare

__version__ = "0.2.0"

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
    "plots",
]

_HOMES = {
    "api": ("bound",),
    "domain": ("NormBall", "Space"),
    "errors": ("Contradiction", "InvalidInput", "LipcompareError", "UnsupportedOperation"),
    "methods": ("METHODS", "Method"),
    "network": ("Network",),
    "network.load": ("load",),
    "problem": ("Box", "Norm", "Problem", "margins"),
    "result": ("Bound", "Status", "Witnesses"),
    "study.compare": ("compare",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> "Any":
    from importlib import import_module

    if name == "plots":
        return import_module("lipcompare.report.figures")
    if name not in _HOME:
        raise AttributeError(f"module 'lipcompare' has no attribute {name!r}")
    value = getattr(import_module(f"lipcompare.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
