"""What ``lipcompare methods`` and ``lipcompare solvers`` do."""

from __future__ import annotations

from lipcompare.cli.errors import console
from lipcompare.cli.printing.registries import methods_table, solvers_table
from solvers import all_solvers


def methods() -> None:
    """Print the table of methods."""
    console().print(methods_table())


def solvers() -> None:
    """Print the table of solvers."""
    console().print(solvers_table(all_solvers()))
