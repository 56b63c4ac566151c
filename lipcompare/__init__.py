"""lipcompare: certified local Lipschitz constants of trained networks, by every method behind one interface.

>>> import lipcompare
>>> network = lipcompare.load("model.onnx")
>>> problem = lipcompare.Problem.around(network, center=0.5, eps=0.1)
>>> print(lipcompare.bound(problem, "lbp"))
"""

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
