"""The tables of ``lipcompare methods`` and ``lipcompare solvers``."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import torch
from rich import box
from rich.markup import escape
from rich.table import Table

from lipcompare.methods import METHODS, Method
from lipcompare.methods.base import options_of
from lipcompare.network import Network
from lipcompare.network.activations import relu
from lipcompare.network.graph import Activate, Affine, Input
from lipcompare.network.linear_maps import Dense
from lipcompare.problem import Norm, Problem
from solvers import SolverInfo

_CAPABILITIES = {"lp": "LP", "mip": "MILP", "conic": "conic", "dual_bound": "dual bound", "start": "start"}


def methods_table() -> Table:
    """Name, what it proves, norms, summary, reference and options with their defaults."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption_justify="left")
    table.caption = (
        "Norms: those p for which the method bounds small ReLU networks. References are keys of CITATIONS.bib."
    )
    for name in ("method", "proves", "norms", "what it is", "reference", "options"):
        table.add_column(name, overflow="fold")
    for name, cls in METHODS.items():
        method = cls()
        table.add_row(name, cls.proves, _norms(method), cls.summary, cls.reference, escape(_options(method)))
    return table


def _norms(method: Method) -> str:
    """The norms whose problems the method itself says it supports, asked on a network of one neuron."""
    one = Dense(torch.ones(1, 1, dtype=torch.float64))
    nodes = (Input(1), Affine((0,), (one,), None), Activate(1, relu(), 1), Affine((2,), (one,), None))
    network = Network(nodes, (1,), (1,))
    return ", ".join(n.value for n in Norm if method.supports(Problem.around(network, 0.0, 1.0, norm=n)) is None)


def _options(method: Method) -> str:
    values = options_of(method).items()
    return ", ".join(f"{k}={v.value if isinstance(v, enum.Enum) else v}" for k, v in values)


def solvers_table(found: Sequence[SolverInfo]) -> Table:
    """Name, availability, version, capabilities and licence."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("solver", "here", "version", "solves", "licence"):
        table.add_column(name, overflow="fold")
    for info in found:
        can = [text for field, text in _CAPABILITIES.items() if getattr(info.capabilities, field)]
        table.add_row(info.name, "yes" if info.available else "no", info.version or "-", ", ".join(can), info.licence)
    return table
