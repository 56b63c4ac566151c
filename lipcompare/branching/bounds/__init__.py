"""What bounds a subdomain, by name: every relaxation of the chain rule, and what goes beyond them.

A relaxation (:mod:`lipcompare.jacobian.relaxations`) is a bound on subdomains as it is, and is found here by its name
without further ado. What has an entry of its own in ``BOUNDS`` does more than bound: it starts from what the parent
left, stops once a subdomain closes, proposes patterns, and leaves something to the children. A new one is a file here
and a line in the table; one of another package is an entry point of the group ``lipcompare.tree_bounds``, or a call of
``BOUNDS.register``.
"""

from lipcompare.branching.bounds.base import Relaxed, Settings, SubdomainBound, TreeBound
from lipcompare.branching.bounds.lbp import RelaxationBound
from lipcompare.branching.bounds.sdp import Sdp
from lipcompare.errors import InvalidInput, entry_of, nearest
from lipcompare.jacobian import RELAXATIONS
from solvers.plugins import Registry

__all__ = [
    "BOUNDS",
    "RACE",
    "RelaxationBound",
    "Relaxed",
    "Sdp",
    "Settings",
    "SubdomainBound",
    "TreeBound",
    "names",
    "tree_bound",
]


BOUNDS: Registry[TreeBound] = Registry("lipcompare.tree_bounds", {Sdp.name: Sdp()}, entry_of(TreeBound, "bound"))
"""Those beyond the relaxations."""
RACE = "race"
"""No bound of its own: what the option says for two that search in turns (:mod:`lipcompare.branching.race`)."""


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
        return RelaxationBound(name)
    raise InvalidInput(f"Option 'bound' of 'bab' cannot be {name!r}.{nearest(name, (RACE, *names()))}")
