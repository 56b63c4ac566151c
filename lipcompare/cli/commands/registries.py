"""What ``lipcompare methods``, ``lipcompare solvers`` and ``lipcompare operations`` do."""

from __future__ import annotations

import typer
from rich.markup import escape

from lipcompare.cli.asked import MethodsOptions
from lipcompare.cli.errors import console, note
from lipcompare.cli.printing import registries as printing
from lipcompare.cli.printing.bounds import json_text
from lipcompare.errors import SOLVER_EXTRAS, InvalidInput, install, nearest
from lipcompare.methods import METHODS
from lipcompare.network.from_onnx.operations import supported as onnx_names
from lipcompare.network.from_torch.operations import supported as torch_names
from solvers import all_solvers


def methods(given: MethodsOptions) -> None:
    """Print the table of methods, or explain one."""
    if given.method is not None and given.method not in METHODS:
        raise InvalidInput(f"Unknown method {given.method!r}.{nearest(given.method, METHODS)}")
    names = list(METHODS) if given.method is None else [given.method]
    if given.json:
        typer.echo(json_text({"methods": [printing.method_json(METHODS[name]) for name in names]}))
    elif given.method is None:
        console().print(printing.methods_table())
    else:
        printing.print_method(console(), METHODS[given.method])


def solvers() -> None:
    """Print the table of solvers."""
    found = all_solvers()
    console().print(printing.solvers_table(found))
    here = {info.name.partition(":")[0] for info in found if info.available}
    for extra in SOLVER_EXTRAS:
        if extra not in here:
            note(f"{install(extra)} brings {extra}.")


def operations() -> None:
    """Print the names of all operations that can be read."""
    out = console()
    for source, names in (("ONNX", onnx_names()), ("torch (ATen, as torch.export writes them)", torch_names())):
        out.print(f"[bold]{source}[/]: {len(names)}")
        out.print(escape(", ".join(names)))
