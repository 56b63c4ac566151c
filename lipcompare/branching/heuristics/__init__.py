"""Which gate to split, by name. A new heuristic is a file here and a line in ``HEURISTICS``; one of another package is
an entry point of the group ``lipcompare.heuristics``, or a call of ``HEURISTICS.register``."""

from lipcompare.branching.heuristics.base import Candidates, Heuristic, Moments
from lipcompare.branching.heuristics.linear import Area, Babsr
from lipcompare.branching.heuristics.moment import Moment
from lipcompare.errors import InvalidInput, look_up
from solvers.plugins import Registry

__all__ = ["HEURISTICS", "Area", "Babsr", "Candidates", "Heuristic", "Moment", "Moments", "heuristic_named"]


def _checked(name: str, entry: object) -> Heuristic:
    if not isinstance(entry, Heuristic) or entry.name != name:
        raise InvalidInput(f"{entry!r} is no heuristic called {name!r}: see lipcompare.branching.heuristics.Heuristic.")
    return entry


HEURISTICS: Registry[Heuristic] = Registry(
    "lipcompare.heuristics", {entry.name: entry for entry in (Area(), Babsr(), Moment())}, _checked
)


def heuristic_named(name: str) -> Heuristic:
    """The heuristic of that name.

    Raises:
        InvalidInput: there is none.
    """
    return look_up(HEURISTICS, name, "heuristic")
