"""Exact constants of small networks that others trained: LipBaB's published values, ACAS Xu and two policies.

python -m experiments.controllers --data-root ../shared/data

Reads ``networks/`` under the data root: LipBaB's two networks with their published operator norms (Linf by ``bab`` and
``lipbab``, L1 and L2 by ``lipbab``); the collision avoidance network ACAS Xu 1_1 over a box of radius 0.05 about the
centre of property 3's box; and the policies ``cartpole`` and ``lunarlander`` over radius 0.1 about the origin. The
results store has the interval that is proved in the time limit, to a relative gap of 1e-3 (LipBaB: to the digits that
were printed). Ends with 1 if a published constant lies outside an interval.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

import lipcompare
from experiments import measured
from experiments.data import data_root
from experiments.measured import Measured, Outcome
from experiments.study import Choices
from lipcompare import Problem, Status
from lipcompare.cli.vnnlib import read_vnnlib
from lipcompare.methods.lipbab import lipbab_operator_norm
from lipcompare.rounding import lower_text, upper_text
from lipcompare.store.database import Label, Store
from lipcompare.study.run import Setting, Study, Task

NAME = "controllers"
GAP = 1e-3


@dataclasses.dataclass(frozen=True)
class Published:
    """A network of LipBaB's over the box ``[0, upper]``, with its operator norms as printed, by norm."""

    name: str
    upper: float
    constants: dict[str, float]
    digits: int


LIPBAB = (
    Published("sdnet_10_20_15_10_3", 0.1, {"2": 40.0565, "1": 48.0490, "inf": 72.2857}, 4),
    Published("iris_4_5_5_3", 1.0, {"2": 6.77145, "1": 5.95805, "inf": 12.60509}, 5),
)


def tasks(root: Path) -> Iterator[Task]:
    """LipBaB's networks in every norm; ACAS Xu and the policies."""
    for net in LIPBAB:
        network = lipcompare.load(root / "networks" / "lipbab" / f"{net.name}.npz")
        for norm, constant in net.constants.items():
            problem = Problem.around(network, net.upper / 2, net.upper / 2, norm=norm)
            box = f"[0, {net.upper:g}]^{network.in_size}"
            labels: dict[str, Label] = {"model": net.name, "box": box, "quantity": f"L{norm} operator norm"}
            yield Task(problem, labels, {"published": constant, "digits": net.digits})
    folder = root / "networks" / "vnncomp"
    third = read_vnnlib(folder / "specs" / "acasxu_prop_3.vnnlib")
    center = ((third.lower + third.upper) / 2)[:1]
    acas = lipcompare.load(folder / "acasxu" / "ACASXU_run2a_1_1_batch_2000.onnx")
    posed = [("ACAS Xu 1_1", "property 3's centre +- 0.05", Problem.around(acas, center, 0.05))]
    for name in ("cartpole", "lunarlander"):
        network = lipcompare.load(folder / "rl_benchmarks" / f"{name}.onnx")
        posed.append((name, "0 +- 0.1", Problem.around(network, 0.0, 0.1)))
    for name, where, problem in posed:
        yield Task(problem, {"model": name, "box": where, "quantity": "largest row, Linf"})


def interval(task: Task, method: str, time_limit: float) -> Outcome:
    """What a method proves; the Linf operator norm is the largest row, so that every method has it, and ``lipbab`` has
    the others as well."""
    constant = task.facts.get("published")
    gap = GAP if constant is None else 0.1 * 10.0 ** -int(task.facts["digits"]) / float(constant)
    if constant is None or (method != "lipbab" and task.problem.norm.value == "inf"):
        result = lipcompare.bound(task.problem, method, time_limit=time_limit, gap=gap)
        low, high, seconds = float(result.overall_lower[0]), float(result.overall_upper[0]), result.seconds
        proves, status, message = result.proves, result.status, result.sentence
    elif method != "lipbab":
        sentence = "It bounds rows, not this operator norm."
        return Outcome(0.0, status=Status.UNSUPPORTED, message=f"{Status.UNSUPPORTED.value} {sentence}")
    else:
        began = time.perf_counter()
        norms = lipbab_operator_norm(task.problem, time_limit=time_limit, gap=gap)
        low, high, seconds = norms.lower, norms.upper, time.perf_counter() - began
        closed = high - low <= gap * high
        proves, status = ("exact", Status.EXACT) if closed else ("interval", Status.TIME_LIMIT)
        message = f"{status.value} {norms.nodes} regions; search {norms.stop.value}."
    facts: dict[str, Label | None] = {}
    if constant is not None:
        facts["agrees"] = _agrees(low, high, float(constant), int(task.facts["digits"]))
    return Outcome(seconds=seconds, facts=facts, lower=low, upper=high, proves=proves, status=status, message=message)


def _agrees(low: float, high: float, constant: float, digits: int) -> bool:
    """Whether the interval and what rounds to the printed constant have a point in common."""
    half = 0.5 * 10.0**-digits
    return low <= constant + half * (1 + 1e-6) and constant - half * (1 + 1e-6) <= high


def build(chosen: Choices, console: Console) -> Measured:
    """Every question by both exact methods."""
    limits = dataclasses.replace(chosen.limits(60.0), gap=GAP)

    def work(some: Sequence[Task], setting: Setting) -> list[Outcome]:
        return [interval(task, str(setting.options["method"]), limits.time) for task in some]

    settings = [Setting(NAME, {"method": method}, series=method) for method in ("bab", "lipbab")]
    return Measured(Study(NAME, list(tasks(data_root(chosen.data_root))), chosen.settings(settings), limits), work)


def check(chosen: Choices, console: Console) -> int:
    """Print the rows; 1 if a published constant is contradicted, else 0."""
    with Store(chosen.store, read_only=True) as store:
        frame = store.frame(NAME).dropna(subset=["status"])
    table = Table(box=None)
    for name in ("network", "quantity", "method"):
        table.add_column(name, no_wrap=True)
    for name in ("at least", "at most", "published", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in frame[frame["status"] != "unsupported"].to_dict("records"):
        published = f"{line['label.published']:g}" if line["label.published"] > 0 else ""
        table.add_row(
            line["label.model"], line["label.quantity"], line["series"], lower_text(line["lower"], 7),
            upper_text(line["upper"], 7), published, f"{line['seconds']:.1f} s",
        )  # fmt: skip
    console.print(table)
    return int(bool(frame["label.agrees"].eq(False).any()))


if __name__ == "__main__":
    sys.exit(measured.main(build, __doc__, check=check))
