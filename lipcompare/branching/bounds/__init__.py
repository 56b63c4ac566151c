"""What bounds a subdomain, by name: every relaxation of the chain rule, and what goes beyond them.

A new relaxation is an entry of :mod:`lipcompare.jacobian.relaxations`. Another bound is a file here and a line in
``BOUNDS``, or a call of ``register``.
"""

from lipcompare.branching.bounds.base import Relaxation, Relaxed, Settings, TreeBound
from lipcompare.branching.bounds.lbp import Propagated
from lipcompare.branching.bounds.sdp import Sdp
from lipcompare.errors import InvalidInput, nearest
from lipcompare.jacobian import RELAXATIONS

BOUNDS: dict[str, TreeBound] = {}
"""Those beyond the relaxations."""

__all__ = [
    "BOUNDS",
    "Propagated",
    "Relaxation",
    "Relaxed",
    "Sdp",
    "Settings",
    "TreeBound",
    "names",
    "register",
    "tree_bound",
]


def register(bound: TreeBound) -> None:
    """Make a bound known to ``bab -o bound=NAME``; one of the same name is replaced."""
    BOUNDS[bound.name] = bound


def names() -> tuple[str, ...]:
    """Every name that :func:`tree_bound` knows."""
    return (*BOUNDS, *(name for name in RELAXATIONS if name not in BOUNDS))


def tree_bound(name: str) -> TreeBound:
    """The bound of that name.

    Raises:
        InvalidInput: there is none.
    """
    if name in BOUNDS:
        return BOUNDS[name]
    if name in RELAXATIONS:
        return Propagated(name)
    raise InvalidInput(f"Option 'bound' of 'bab' cannot be {name!r}.{nearest(name, names())}")


register(Sdp())
