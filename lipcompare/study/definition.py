"""What a study is: questions x methods with options, under limits; and the cells it falls into."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from lipcompare import methods
from lipcompare.errors import InvalidInput
from lipcompare.fingerprint import Fingerprints
from lipcompare.methods import METHODS, Method
from lipcompare.methods.base import options_of, versions
from lipcompare.network.graph import Network
from lipcompare.problem import Box, Norm, Problem
from lipcompare.result import Status
from lipcompare.store.database import Label, Member

Option = str | int | float | bool


@dataclasses.dataclass(frozen=True)
class CellLimits:
    """What each cell may spend.

    Attributes:
        time: seconds; the method is asked to stop then.
        grace: seconds after which a method that did not stop is killed.
        memory: bytes that a cell may take on top of what an idle worker process takes.
        gap: relative gap at which exact methods stop.
        threads: CPU threads of a cell.
        seed: of every random number generator; methods with a seed of their own take that.
    """

    time: float = 60.0
    grace: float = 10.0
    memory: int = 4 * 2**30
    gap: float = 1e-4
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.time < math.inf and 0 <= self.grace < math.inf):
            raise InvalidInput("A cell needs a positive, finite time limit and a grace period that is not negative.")
        if self.memory < 2**20 or self.threads < 1 or not 0 <= self.gap < 1:
            raise InvalidInput("A cell needs at least 1 MiB, one thread, and a relative gap in 0 <= gap < 1.")


@dataclasses.dataclass(frozen=True)
class Setting:
    """A method by name with options, as they would be given to :func:`lipcompare.bound`.

    A name that is not registered is no error: each of its cells becomes a row that says so.

    Attributes:
        series: the name in tables and figures; by default method and options.
        time: a time limit of its own.
    """

    method: str
    options: Mapping[str, Option] = dataclasses.field(default_factory=dict)
    series: str = ""
    time: float | None = None

    @property
    def label(self) -> str:
        return self.series or self.method + "".join(f" {k}={v}" for k, v in self.options.items())


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A question: a problem of one box, and the names and numbers it is grouped and plotted by.

    Attributes:
        labels: together they name the task within its study.
        facts: further labels that are no part of the name, such as the network's accuracy.
    """

    problem: Problem
    labels: Mapping[str, Label] = dataclasses.field(default_factory=dict)
    facts: Mapping[str, Label] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.problem.batch != 1:
            raise InvalidInput("A task has one box: make one task of each example (Problem.example).")

    @property
    def name(self) -> str:
        labels = " ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.labels.items())
        return labels or self.problem.network.name


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """Every task with every setting. Several studies of one name add up to one.

    Attributes:
        device: where the cells run, such as ``cuda``, which need not be here; None: where the task's problem lies.
    """

    name: str
    tasks: Sequence[Task]
    settings: Sequence[Setting]
    limits: CellLimits = CellLimits()
    device: str | None = None

    def __post_init__(self) -> None:
        for what, names in (("task", [t.name for t in self.tasks]), ("setting", [s.label for s in self.settings])):
            twice = next((n for k, n in enumerate(names) if n in names[:k]), None)
            if twice is not None:
                raise InvalidInput(f"Study {self.name!r} has two {what}s called {twice!r}: give them other labels.")


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One task under one setting, in plain values that travel to another process; the network travels by its hash.

    Attributes:
        refusal: why the cell is not run at all, or None.
        versions: of the packages that the key was made with.
    """

    key: str
    network: str
    network_hash: str
    problem_hash: str
    inputs: int
    outputs: int
    neurons: int
    box: Box
    functionals: Tensor
    norm: Norm
    device: str
    method: Method | str
    options: Mapping[str, Any]
    limits: CellLimits
    versions: Mapping[str, str]
    refusal: tuple[Status, str] | None = None

    @property
    def method_name(self) -> str:
        return self.method if isinstance(self.method, str) else self.method.name

    @property
    def dtype(self) -> str:
        return str(self.box.lower.dtype).removeprefix("torch.")

    def problem(self, network: Network) -> Problem:
        """The problem, on the cell's device."""
        return Problem(network, _moved(self.box, self.device), self.norm, self.functionals)


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The cells of some studies, each once, the networks they need by hash, and the members of every study."""

    cells: Mapping[str, Cell]
    networks: Mapping[str, Network]
    members: Mapping[str, Sequence[Member]]


def plan(studies: Sequence[Study]) -> Plan:
    """All cells, task by task, with their keys."""
    prints = Fingerprints()
    cells: dict[str, Cell] = {}
    networks: dict[str, Network] = {}
    members: dict[str, list[Member]] = {}
    for study in studies:
        tasks = members.setdefault(study.name, [])
        for task in study.tasks:
            for setting, cell in _cells(study, task, prints):
                if cell.network_hash not in networks:
                    networks[cell.network_hash] = task.problem.network.to("cpu", task.problem.dtype)
                cells.setdefault(cell.key, cell)
                tasks.append(
                    Member(task.name, setting.label, cell.key, cell.problem_hash, {**task.labels, **task.facts})
                )
    return Plan(cells, networks, members)


def _cells(study: Study, task: Task, prints: Fingerprints) -> Iterator[tuple[Setting, Cell]]:
    problem = task.problem
    network = problem.network
    network_hash = prints.of(network)
    problem_hash = prints.of(network_hash, problem.box, problem.norm, problem.functionals)
    box, functionals = _moved(problem.box, "cpu"), problem.functionals.detach().cpu().clone()
    device = study.device or problem.device.type
    for setting in study.settings:
        limits = study.limits if setting.time is None else dataclasses.replace(study.limits, time=setting.time)
        method, refusal = _resolve(setting)
        options = dict(setting.options) if isinstance(method, str) else plain(options_of(method))
        key = prints.of(problem_hash, setting.method, options, dataclasses.asdict(limits), device, versions())
        yield (
            setting,
            Cell(
                key=key,
                network=network.name,
                network_hash=network_hash,
                problem_hash=problem_hash,
                inputs=network.in_size,
                outputs=network.out_size,
                neurons=network.neurons,
                box=box,
                functionals=functionals,
                norm=problem.norm,
                device=device,
                method=method,
                options=options,
                limits=limits,
                versions=versions(),
                refusal=refusal,
            ),
        )


def _resolve(setting: Setting) -> tuple[Method | str, tuple[Status, str] | None]:
    """The method object, or its name and why there is none."""
    if setting.method not in METHODS:
        return setting.method, (Status.UNAVAILABLE, f"No method is called {setting.method!r} in this version.")
    try:
        method = methods.get(setting.method, **setting.options)
    except InvalidInput as error:
        return setting.method, (Status.UNSUPPORTED, str(error))
    if type(method).__module__ == "__main__":
        advice = "which worker processes cannot import: put the class in a module of its own and import it from there."
        return setting.method, (
            Status.UNAVAILABLE,
            f"{type(method).__name__} is defined in the script that runs, {advice}",
        )
    return method, None


def plain(options: Mapping[str, Any]) -> dict[str, Option | None]:
    """Option values as JSON knows them."""
    plain: dict[str, Option | None] = {}
    for name, value in options.items():
        value = getattr(value, "value", value)
        plain[name] = value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
    return plain


def _moved(box: Box, device: str) -> Box:
    """A copy of a domain on another device; a slice of a batch becomes small."""
    changes = {
        field.name: value.detach().to(device, copy=True)
        for field in dataclasses.fields(box)
        if isinstance(value := getattr(box, field.name), Tensor)
    }
    return dataclasses.replace(box, **changes)
