"""Time limits, on networks that make them hard to keep: what every method takes beyond its limit, and what it proves.

    python -m experiments.limits [--cases depth200,...] [--methods bab,...] [--only limits]

Every run is a process of its own with one thread, and its clock is the processor's: limits mean what they mean on an
idle machine, whatever else runs. A limit of T seconds is kept if the run takes at most 1.1 T + 0.5 s and returns an
interval. Exits with 1 if one is not.

A second table says where a method is looser than one that it contains, given the same time, example by example. Its
runs have a clock that goes with the work (:class:`~lipcompare.testing.clock.WorkClock`): on the processor's the same
computation ends here in one run and there in the next, and slopes that are still being optimised then differ by more
than the methods do.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import lipcompare
from experiments.models import cnn, mlp
from lipcompare import METHODS, Problem
from lipcompare.errors import InvalidInput, nearest
from lipcompare.result import interval_text
from lipcompare.testing.clock import WorkClock, processor

CONTAINED = {"auto": ("ibp", "lbp", "sdp", "bab", "attack"), "bab": ("lbp", "sdp")}
"""What methods contain, by name."""

DIED = "ended without a result"

LIMITS, LOOSER = "limits", "looser"
"""The two tables."""

_SAME = 1e-6
"""Relative difference under which two ends count as equal."""

_PATIENCE = 20
"""Times its limit after which a run is ended."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A problem and the methods that have to keep a limit on it.

    Attributes:
        build: the module and the shape of its input.
        seconds: the limit.
        methods: all if empty.
    """

    build: Callable[[], tuple[nn.Module, tuple[int, ...]]]
    radius: float
    seconds: float
    methods: tuple[str, ...] = ()
    boxes: int = 1

    def problem(self) -> Problem:
        """The problem, the same every time."""
        torch.manual_seed(0)
        module, shape = self.build()
        network = lipcompare.load(module.double(), input_shape=shape)
        return Problem.around(network, torch.rand(self.boxes, network.in_size, dtype=torch.float64), self.radius)


def _generator() -> tuple[nn.Module, tuple[int, ...]]:
    """Five inputs, 53,248 neurons."""
    layers = [
        nn.Linear(5, 4096), nn.ReLU(), nn.Unflatten(1, (64, 8, 8)),
        nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 32, 4, 2, 1), nn.ReLU(),
        nn.Conv2d(32, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8192, 10),
    ]  # fmt: skip
    return nn.Sequential(*layers), (5,)


def _pooled() -> tuple[nn.Module, tuple[int, ...]]:
    layers = [
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10),
    ]  # fmt: skip
    return nn.Sequential(*layers), (1, 28, 28)


def _wide() -> tuple[nn.Module, tuple[int, ...]]:
    return nn.Sequential(nn.Linear(20, 20_000), nn.ReLU(), nn.Linear(20_000, 10)), (20,)


def _flat(*sizes: int) -> Callable[[], tuple[nn.Module, tuple[int, ...]]]:
    return lambda: (mlp(*sizes), (sizes[0],))


def _image(
    shape: tuple[int, int, int], channels: tuple[int, ...], hidden: tuple[int, ...], **options: int
) -> Callable[[], tuple[nn.Module, tuple[int, ...]]]:
    return lambda: (cnn(shape, channels, hidden, **options), shape)


CIFAR = (3, 32, 32)

CASES: dict[str, Case] = {
    "generator": Case(_generator, 0.1, 4.0, ("ibp", "lbp", "sdp", "lp", "milp", "bab", "lipbab", "attack", "auto")),
    "boxes1000": Case(_flat(20, 64, 64, 10), 0.1, 1.0, ("attack", "lbp", "sdp", "lp", "milp", "bab", "auto"), 1000),
    "classes200": Case(_flat(64, 128, 128, 200), 0.1, 1.0, ("attack", "sdp", "lbp", "lp", "milp", "bab", "auto")),
    "width20000": Case(_wide, 0.1, 3.0, ("ibp", "lbp", "sdp", "lp", "milp", "bab", "lipbab", "attack", "auto")),
    "maxpool": Case(_pooled, 0.05, 3.0),
    "lipsdp": Case(_flat(16, 64, 64, 64, 10), 0.1, 5.0, ("lipsdp",)),
    "depth200": Case(_flat(32, *(32,) * 199, 10), 0.1, 4.0),
    "mnist_cnn": Case(_image((1, 28, 28), (8, 8), (100, 10), kernel=4), 2 / 255, 3.0),
    "cifar_cnn4": Case(
        _image(CIFAR, (32, 32), (256, 10)), 1 / 255, 3.0, ("ibp", "lbp", "sdp", "lp", "milp", "bab", "attack", "auto")
    ),
    "cifar_small": Case(_image(CIFAR, (4, 4), (32, 10)), 1 / 255, 8.0, ("lbp", "sdp", "lp", "milp", "bab", "auto")),
}
"""Those of the issues: each was a limit that was once missed by much."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What became of one run.

    Attributes:
        limit, spent: seconds, ``spent`` of the processor.
        lower, upper: the overall interval of every example.
        memory: MiB, of the whole process.
    """

    limit: float
    spent: float
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    message: str
    memory: float

    @property
    def ends(self) -> tuple[float, float]:
        """The largest of each end over the batch."""
        return max(self.lower), max(self.upper)

    @property
    def kept(self) -> bool:
        """Whether the limit was kept, with something proved of every example (or the method does not apply)."""
        proved = all(low > 0 or math.isfinite(high) for low, high in zip(self.lower, self.upper, strict=True))
        return self.spent <= 1.1 * self.limit + 0.5 and (proved or "does not apply" in self.message)


Clock = Callable[[], contextlib.AbstractContextManager[object]]
"""Makes a context in which ``time.perf_counter`` says another time."""


def timed(problem: Problem, method: str, seconds: float, clock: Clock = processor) -> Run:
    """A run in a process of its own, under a clock of one's choice."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            os.write(writing, json.dumps(_run(problem, method, seconds, clock)).encode())
        except BaseException:  # noqa: BLE001 - it is a child, and this is its report
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, _, used = os.wait4(child, 0)
    spent, memory = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    if not text:
        return Run(seconds, spent, (0.0,), (math.inf,), DIED, memory)
    found = json.loads(text)
    return Run(seconds, found["spent"], tuple(found["lower"]), tuple(found["upper"]), found["message"], memory)


def _run(problem: Problem, method: str, seconds: float, clock: Clock) -> dict[str, Any]:
    most = math.ceil(_PATIENCE * seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (most, most + 5))
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    begun = time.process_time()
    with clock():
        result = lipcompare.bound(problem, method, time_limit=seconds)
    spent = time.process_time() - begun
    return {
        "spent": spent,
        "lower": result.overall_lower.tolist(),
        "upper": result.overall_upper.tolist(),
        "message": f"{result.status.name.lower()}: {result.sentence}",
    }


class Ratios(NamedTuple):
    """The ends of a method over those of one that it contains: of the example where it is loosest on either side.

    Attributes:
        above: over 1 where the method is looser from above.
        below: under 1 where it is looser from below; None where the other one proves nothing there.
    """

    whole: str
    part: str
    above: float | None
    below: float | None

    @property
    def looser(self) -> bool:
        """Whether it is looser, beyond what rounding does."""
        return (self.above or 1.0) > 1 + _SAME or (self.below if self.below is not None else 1.0) < 1 - _SAME


def compared(runs: Mapping[str, Run]) -> Iterator[Ratios]:
    """Every method with every one that it contains, given the same time."""
    for whole, parts in CONTAINED.items():
        for part in parts if whole in runs else ():
            if part in runs and "does not apply" not in runs[part].message:
                ours, theirs = runs[whole], runs[part]
                ends = zip(ours.lower, ours.upper, theirs.lower, theirs.upper, strict=True)
                above = [high / upper if upper else 1.0 for _, high, _, upper in ends if math.isfinite(upper)]
                lower = [low / least for low, least in zip(ours.lower, theirs.lower, strict=True) if least > 0]
                yield Ratios(whole, part, max(above, default=None), min(lower, default=None))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; 1 if a limit was not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES), help="names, separated by commas (default: all)")
    parser.add_argument("--methods", default="", help="only these, separated by commas")
    parser.add_argument("--seconds", type=float, help="another limit")
    parser.add_argument("--only", choices=(LIMITS, LOOSER), help="one of the tables")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    with WorkClock():
        torch.zeros(1).add(1.0)  # torch loads what its dispatch takes now, once, and not in every process
    only = [name for name in given.methods.split(",") if name]
    missed = 0
    for name in given.cases.split(","):
        if name not in CASES:
            raise InvalidInput(f"Unknown case {name!r}.{nearest(name, CASES)}")
        case = CASES[name]
        problem, seconds = case.problem(), given.seconds or case.seconds
        methods = [m for m in case.methods or tuple(METHODS) if not only or m in only]
        if given.only != LOOSER:
            missed += _print_limits(console, name, problem, methods, seconds)
        if given.only != LIMITS:
            _print_looser(console, name, problem, methods, seconds)
    if given.only != LOOSER:
        console.print("Every limit was kept." if not missed else f"{missed} limits were missed.")
    return int(missed > 0)


def _print_limits(console: Console, name: str, problem: Problem, methods: Sequence[str], seconds: float) -> int:
    """A line for every method; how many limits were missed."""
    console.print(f"[bold]{name}[/], limit {seconds:g} s: method, CPU seconds, kept, interval, MiB, status")
    missed = 0
    for method in methods:
        run = timed(problem, method, seconds)
        missed += not run.kept
        word = "yes" if run.kept else "NO"
        line = f"{method:>9} {run.spent:6.2f} {word:>4} {interval_text(*run.ends)}; {run.memory:.0f}; {run.message}"
        console.print(line, markup=False, soft_wrap=True)
    return missed


def _print_looser(console: Console, name: str, problem: Problem, methods: Sequence[str], seconds: float) -> None:
    """A line for every method and one that it contains, by a clock that goes with the work."""
    wanted = {m for whole, parts in CONTAINED.items() if whole in methods for m in (whole, *parts)}
    runs = {m: timed(problem, m, seconds, WorkClock) for m in methods if m in wanted}
    for method, run in runs.items():
        if run.message == DIED:
            console.print(f"{method} {DIED}.")
    table = Table("method", "contains", "above", "below", "looser", title=f"{name}: ends over those, at worst")
    for row in compared(runs):
        numbers = ["-" if end is None else f"{end:.4f}" for end in (row.above, row.below)]
        table.add_row(row.whole, row.part, *numbers, "yes" if row.looser else "no")
    if table.rows:
        console.print(table)


if __name__ == "__main__":
    sys.exit(main())
