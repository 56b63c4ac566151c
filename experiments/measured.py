"""Experiments whose cells are no runs of a method: programs handed to a solver, questions, operator norms.

They go the way of every study: the cells and their keys come from :mod:`lipcompare.study`, what is finished is in the
results store with its provenance, and only what is missing there is computed. Such a cell runs in this process, and
what it finds besides bounds (facts: a number of binaries, a proved direction) are further labels of its row.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console

from experiments.study import Choices, add_options, choices, guarded, progress_console
from lipcompare.result import Status
from lipcompare.store.database import Label, Record, Store
from lipcompare.study.definition import Cell, Setting, Study, Task, plan
from lipcompare.study.record import origin, record


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes:
        facts: what was found besides an interval; what is missing or no finite number is left out.
        lower, upper: 0 and infinity where no bound is proved.
    """

    seconds: float
    facts: Mapping[str, Label | None] = dataclasses.field(default_factory=dict)
    lower: float = 0.0
    upper: float = float("inf")
    proves: str = "nothing"
    status: Status = Status.COMPLETE
    message: str = Status.COMPLETE.value


@dataclasses.dataclass(frozen=True)
class Measured:
    """A study with what computes its cells.

    Attributes:
        work: the outcomes of some tasks under one setting.
        at_once: how many tasks ``work`` takes.
    """

    study: Study
    work: Callable[[Sequence[Task], Setting], Sequence[Outcome]]
    at_once: int = 1


Build = Callable[[Choices, Console], Measured]


def compute(build: Build, chosen: Choices, console: Console) -> bool:
    """Compute what the store lacks, on one thread; whether Ctrl-C ended it. What was done is kept."""
    measured = build(chosen, console)
    study = measured.study
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        count = _compute(measured, chosen.store, console)
    except KeyboardInterrupt:
        console.print(f"{study.name}: interrupted; run again to go on.")
        return True
    finally:
        torch.set_num_threads(threads)
    cells = len(study.tasks) * len(study.settings)
    console.print(f"{study.name}: {count} of {cells} cells computed. Rows are in {chosen.store}.")
    return False


def _compute(measured: Measured, path: Path, console: Console) -> int:
    study, count = measured.study, 0
    work = plan([study])
    pairs = [(task, setting) for task in study.tasks for setting in study.settings]
    members = dict(zip(((t.name, s.label) for t, s in pairs), work.members[study.name], strict=True))
    with Store(path) as store:
        known = store.frame(study.name, labels=False)
        done = store.done() & set(known["key"])
        store.declare(study.name, [m for m in members.values() if m.key not in done])
        for first in range(0, len(study.tasks), measured.at_once):
            group = study.tasks[first : first + measured.at_once]
            for setting in study.settings:
                missing = [t for t in group if members[t.name, setting.label].key not in done]
                if not missing:
                    continue
                for task, outcome in zip(missing, measured.work(missing, setting), strict=True):
                    member = members[task.name, setting.label]
                    store.put(_row(work.cells[member.key], outcome))
                    labels = {**member.labels, **_known(outcome.facts)}
                    store.declare(study.name, [dataclasses.replace(member, labels=labels)])
                    count += 1
                console.print(f"{study.name}: {missing[-1].name}, {setting.label}", soft_wrap=True)
    return count


def _known(facts: Mapping[str, Label | None]) -> dict[str, Label]:
    """Those that JSON can hold."""
    return {
        name: value
        for name, value in facts.items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    }


def _row(cell: Cell, outcome: Outcome) -> Record:
    return record(
        cell,
        lower=outcome.lower,
        upper=outcome.upper,
        rows_lower=[outcome.lower],
        rows_upper=[outcome.upper],
        proves=outcome.proves,
        status=outcome.status,
        message=outcome.message,
        seconds=outcome.seconds,
        device=cell.device,
        dtype=cell.dtype,
        trace=(),
        origin=origin(),
    )


def main(
    build: Build,
    about: str | None,
    arguments: Sequence[str] | None = None,
    *,
    check: Callable[[Choices, Console], int] | None = None,
) -> int:
    """Compute the experiment that ``build`` makes from the command line's choices; the exit code, which is that of
    ``check`` where all went well."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    given = parser.parse_args(arguments)
    console = progress_console()

    def work() -> int:
        chosen = choices(given)
        if compute(build, chosen, console):
            return 130
        return check(chosen, console) if check is not None else 0

    return guarded(work)
