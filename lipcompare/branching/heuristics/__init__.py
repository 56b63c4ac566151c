"""Which gate to split, by name. A new heuristic is a file here and a line in ``HEURISTICS``; one of another package is
an entry point of the group ``lipcompare.heuristics``, or a call of ``HEURISTICS.register``."""

from lipcompare.branching.heuristics.base import Candidates, Heuristic, Moments
from lipcompare.branching.heuristics.linear import Area, Babsr
from lipcompare.branching.heuristics.mixed import Mixed
from lipcompare.branching.heuristics.moment import Moment
from lipcompare.errors import entry_of, look_up
from solvers.plugins import Registry

__all__ = ["HEURISTICS", "Area", "Babsr", "Candidates", "Heuristic", "Mixed", "Moment", "Moments", "heuristic_named"]


HEURISTICS: Registry[Heuristic] = Registry(
    "lipcompare.heuristics",
    {entry.name: entry for entry in (Area(), Babsr(), Moment(), Mixed())},
    entry_of(Heuristic, "heuristic"),
)


def heuristic_named(name: str) -> Heuristic:
    """The heuristic of that name.

    Raises:
        InvalidInput: there is none.
    """
    return look_up(HEURISTICS, name, "heuristic")
