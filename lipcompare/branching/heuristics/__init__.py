"""Which gate to split, by name. A new heuristic is a file here and a line in the table, or one call of ``register``."""

from lipcompare.branching.heuristics.base import Candidates, Heuristic, Moments
from lipcompare.branching.heuristics.linear import Area, Babsr
from lipcompare.branching.heuristics.moment import Moment

HEURISTICS: dict[str, Heuristic] = {}

__all__ = ["HEURISTICS", "Area", "Babsr", "Candidates", "Heuristic", "Moment", "Moments", "register"]


def register(heuristic: Heuristic) -> None:
    """Make a heuristic known to ``bab -o heuristic=NAME``; one of the same name is replaced."""
    HEURISTICS[heuristic.name] = heuristic


for _heuristic in (Area(), Babsr(), Moment()):
    register(_heuristic)
