"""The tables of ``lipcompare methods`` and ``lipcompare solvers``."""

from __future__ import annotations

import enum
import inspect
import json
import re
from collections.abc import Sequence
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lipcompare.methods import METHODS, Method, option_types, type_text
from lipcompare.methods.base import options_of
from lipcompare.network import Network
from lipcompare.network.activations import relu
from lipcompare.network.graph import Activate, Affine, Input
from lipcompare.network.linear_maps import Dense
from lipcompare.problem import Norm, Problem
from solvers import SolverInfo

_CAPABILITIES = {"lp": "LP", "mip": "MILP", "conic": "conic", "dual_bound": "dual bound", "start": "start"}


def methods_table() -> Table:
    """Name, what it proves, norms and summary: as much as is readable in 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption_justify="left")
    table.caption = (
        "Norms: those p for which the method bounds small ReLU networks. lipcompare methods NAME explains one, its "
        "options, and says where it is from."
    )
    for name in ("method", "proves", "norms", "what it is"):
        table.add_column(name, overflow="fold")
    for name, cls in METHODS.items():
        table.add_row(name, cls.proves, ", ".join(_norms(cls())), escape(cls.summary))
    return table


def print_method(console: Console, cls: type[Method]) -> None:
    """What a method is and proves, in its own words, and its options."""
    description = method_json(cls)
    console.print(f"[bold]{escape(cls.name)}[/]: {escape(cls.summary)}", soft_wrap=True)
    norms = ", ".join(description["norms"])
    console.print(escape(f"Proves: {cls.proves}. Norms: {norms}. Reference: {cls.reference} (CITATIONS.bib)."))
    console.print()
    for paragraph in paragraphs(cls):
        console.print(escape(paragraph))
        console.print()
    if not description["options"]:
        console.print("It has no options.")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("option", "default", "values", "meaning"):
        table.add_column(name, overflow="fold")
    for option in description["options"]:
        default = json.dumps(option["default"]) if option["default"] == "" else str(option["default"])
        table.add_row(*map(escape, (option["name"], default, option["values"], option["meaning"])))
    console.print(table)
    console.print(f"Give one as --option name=value: lipcompare bound MODEL --method {escape(cls.name)} -o "
                  f"{escape(description['options'][0]['name'])}=...", soft_wrap=True)  # fmt: skip


def method_json(cls: type[Method]) -> dict[str, Any]:
    """A method in plain values; the meanings of its options are those of its docstring."""
    method, types, meanings = cls(), option_types(cls.name), _meanings(cls)
    return {
        "name": cls.name,
        "proves": cls.proves,
        "norms": _norms(method),
        "summary": cls.summary,
        "reference": cls.reference,
        "options": [
            {
                "name": name,
                "default": value.value if isinstance(value, enum.Enum) else value,
                "values": type_text(types[name]),
                "meaning": meanings.get(name, ""),
            }
            for name, value in options_of(method).items()
        ],
    }


def paragraphs(cls: type[Method]) -> list[str]:
    """What its docstring says before the options, each paragraph in one line, without the markup."""
    text = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:")[0]
    return [_plain(part) for part in text.split("\n\n") if part.strip()]


def _meanings(cls: type[Method]) -> dict[str, str]:
    """What its docstring says of each option; a line that names several says it of all of them."""
    text = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:")[2]
    meanings: dict[str, str] = {}
    for entry in re.findall(r"^ {4}(\S.*(?:\n {8,}.*)*)", text, flags=re.MULTILINE):
        names, _, meaning = entry.partition(": ")
        meanings |= dict.fromkeys((name.strip() for name in names.split(",")), _plain(meaning))
    return meanings


def _plain(text: str) -> str:
    """A text of a docstring in one line, its roles and backquotes taken away."""
    text = re.sub(r":[a-z]+:`~?([^`]*)`", r"\1", " ".join(text.split()))
    return text.replace("``", "")


def _norms(method: Method) -> list[str]:
    """The norms whose problems the method itself says it supports, asked on a network of one neuron."""
    one = Dense(torch.ones(1, 1, dtype=torch.float64))
    nodes = (Input(1), Affine((0,), (one,), None), Activate(1, relu(), 1), Affine((2,), (one,), None))
    network = Network(nodes, (1,), (1,))
    return [n.value for n in Norm if method.supports(Problem.around(network, 0.0, 1.0, norm=n)) is None]


def solvers_table(solvers: Sequence[SolverInfo]) -> Table:
    """Name, availability, version, capabilities and licence."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("solver", "here", "version", "solves", "licence"):
        table.add_column(name, overflow="fold")
    for info in solvers:
        can = [text for field, text in _CAPABILITIES.items() if getattr(info.capabilities, field)]
        table.add_row(info.name, "yes" if info.available else "no", info.version or "-", ", ".join(can), info.licence)
    return table
