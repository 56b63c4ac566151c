"""Finds solvers by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from solvers import cvxpy, pulp
from solvers.cbc import Cbc
from solvers.gurobi import Gurobi
from solvers.highs import Highs
from solvers.interface import Capabilities, Solver

_FAMILIES: dict[str, tuple[Callable[[str], Solver], Callable[[], tuple[str, ...]]]] = {
    "pulp": (pulp.Pulp, pulp.found),
    "cvxpy": (cvxpy.Cvxpy, cvxpy.found),
}


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
    ValueError with the nearest names for an unknown one.
    """
    single: dict[str, Solver] = {"highs": Highs(), "gurobi": Gurobi(), "pulp": Cbc()}
    if name.lower() in single:
        return single[name.lower()]
    family, _, member = name.partition(":")
    if family in _FAMILIES and member:
        make, found = _FAMILIES[family]
        here = {known.lower(): known for known in found()}
        if member.lower() in here:
            return make(here[member.lower()])
    known_names = names()
    lowered = {known.lower(): known for known in known_names}
    near = [lowered[key] for key in difflib.get_close_matches(name.lower(), list(lowered), n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known here: {', '.join(known_names)}."
    raise ValueError(f"no solver called {name!r} on this machine; {hint}")


def names() -> tuple[str, ...]:
    """Every name that get accepts on this machine."""
    families = [f"{family}:{member}" for family, (_, found) in _FAMILIES.items() for member in found()]
    return ("highs", "gurobi", "pulp", *families)


def all_solvers() -> tuple[SolverInfo, ...]:
    """Every solver known here, with what it can do. Looks for licences, so it may take a second."""
    listed = []
    for name in names():
        solver = get(name)
        listed.append(SolverInfo(name, solver.is_available(), solver.version(), solver.licence(), solver.capabilities))
    return tuple(listed)
