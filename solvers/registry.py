"""Finds solvers by name. A new one is a file here and a line in ``SOLVERS``; one of another package is an entry point
of the group ``lipcompare.solvers``, or a call of :func:`register`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from solvers import cvxpy, pulp
from solvers.cbc import Cbc
from solvers.gurobi import Gurobi
from solvers.highs import Highs
from solvers.interface import Capabilities, Solver
from solvers.packages import meant, missing
from solvers.plugins import Registry


def _checked(name: str, entry: object) -> Callable[[], Solver]:
    if not callable(entry):
        raise TypeError(f"{entry!r} makes no solver: register a class that inherits solvers.Solver.")
    made = entry()
    if not isinstance(made, Solver) or made.name != name:
        raise TypeError(f"{entry!r} makes no solver called {name!r}: it makes {made!r}.")
    return entry


SOLVERS: Registry[Callable[[], Solver]] = Registry(
    "lipcompare.solvers", {"highs": Highs, "gurobi": Gurobi, "pulp": Cbc}, _checked
)
"""What makes a solver, by the solver's name in small letters."""

_Names = Callable[[], tuple[str, ...]]

_FAMILIES: dict[str, tuple[Callable[[str], Solver], _Names, _Names]] = {
    "pulp": (pulp.Pulp, pulp.found, pulp.known),
    "cvxpy": (cvxpy.Cvxpy, cvxpy.found, cvxpy.known),
}
"""Packages with solvers behind them, each called FAMILY:NAME: what makes one, the names of those that it finds here,
and of all that it knows."""


class NotHere(ValueError):
    """A solver that is known, but not on this machine."""


def register(name: str, make: Callable[[], Solver]) -> None:
    """Make a solver of one's own known under its name, in this process.

    Raises:
        ValueError: the name is one of ours.
        TypeError: it makes no solver of that name.
    """
    SOLVERS.register(name, make)


@dataclass(frozen=True)
class SolverInfo:
    """One line of the list of solvers."""

    name: str
    available: bool
    version: str
    licence: str
    capabilities: Capabilities


def get(name: str) -> Solver:
    """The solver called "highs", "gurobi", "pulp" (CBC as PuLP ships it), "pulp:NAME" or "cvxpy:NAME".

    A known solver that is not installed is returned too: its solves have status NOT_INSTALLED. Raises
    ValueError with the nearest names for an unknown one, and NotHere where the package is missing that would know it,
    or packages know the name and find no such solver.
    """
    if name.lower() in SOLVERS:
        return SOLVERS[name.lower()]()
    family, _, member = name.lower().partition(":")
    if family in _FAMILIES and member:
        make, found, known = _FAMILIES[family]
        members = {solver.lower(): solver for solver in found()}
        if member in members:
            return make(members[member])
        if reason := missing(family):
            raise NotHere(f"No solver called {name!r} on this machine: {reason}.")
        absent = None if meant(member, members.values()) else meant(member, known())
        if absent is not None:
            return make(absent)
    if name.lower() in _CBC:
        raise ValueError(f"No solver is called {name!r}: CBC, as PuLP ships it, is called pulp.")
    if not member:
        _require_here(name)
    known_names = names()
    lowered = {solver.lower(): solver for solver in known_names}
    near = [lowered[key] for key in difflib.get_close_matches(name.lower(), list(lowered), n=3, cutoff=0.5)]
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known here: {', '.join(known_names)}."
    raise ValueError(f"No solver called {name!r} on this machine. {hint}")


_CBC = ("cbc", "coin", "coin-or", "pulp:cbc", "pulp:pulp_cbc_cmd")
"""What people call it, who know it by its own name or by PuLP's."""


def _require_here(name: str) -> None:
    """Raises NotHere if packages know a solver by this name, without the package in front, and none finds it."""
    if any(meant(name, found()) for _, found, _ in _FAMILIES.values()):
        return
    knowing = [family for family, (_, _, known) in _FAMILIES.items() if meant(name, known())]
    if knowing:
        raise NotHere(
            f"{' and '.join(knowing)} {'know' if len(knowing) > 1 else 'knows'} a solver called {name!r}, but there is "
            "none on this machine: see `lipcompare solvers`."
        )


def names() -> tuple[str, ...]:
    """Every name that get accepts on this machine."""
    families = [f"{family}:{member}" for family, (_, found, _) in _FAMILIES.items() for member in found()]
    return (*SOLVERS, *families)


def all_solvers() -> tuple[SolverInfo, ...]:
    """Every solver known here, with what it can do. Looks for licences, so it may take a second."""
    listed = []
    for name in names():
        solver = get(name)
        listed.append(SolverInfo(name, solver.is_available(), solver.version(), solver.licence(), solver.capabilities))
    return tuple(listed)
