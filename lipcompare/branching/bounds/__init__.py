"""What bounds a subdomain, by name. A new bound is a file here and a line in the table, or a call of ``register``."""

from lipcompare.branching.bounds.base import Relaxation, Relaxed, Settings, TreeBound
from lipcompare.branching.bounds.lbp import Lbp
from lipcompare.branching.bounds.sdp import Sdp

BOUNDS: dict[str, TreeBound] = {}

__all__ = ["BOUNDS", "Lbp", "Relaxation", "Relaxed", "Sdp", "Settings", "TreeBound", "register"]


def register(bound: TreeBound) -> None:
    """Make a bound known to ``bab -o bound=NAME``; one of the same name is replaced."""
    BOUNDS[bound.name] = bound


for _bound in (Sdp(), Lbp()):
    register(_bound)
