"""Interrupt, end, starve and kill real runs at random moments: nothing that was reported may be lost.

    python -m experiments.faults [--moments 50] [--methods lp,bab] [--seed 0]

Every method runs on a small network, many times, each in a process of its own, and meets SIGINT, SIGTERM or a limit on
its memory at a random moment. What it reported on progress by then (the smallest upper and the largest lower bound)
must be in what it returned. A study is then interrupted, ended and killed again and again until it is done: no row may
vanish, and the rows at the end must be those of a study that nobody disturbed. Exits with 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import json
import math
import os
import random
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import torch
from rich.console import Console
from rich.table import Table

import lipcompare
from experiments.solver_swap import random_network
from lipcompare import METHODS, Problem
from lipcompare.budget import TracePoint
from lipcompare.errors import LipcompareError
from lipcompare.store.database import Store, StoreError
from lipcompare.study.run import CellLimits, Setting, Study, Task, run

FAULTS = ("SIGINT", "SIGTERM", "memory")
WIDTH, EPS, BOXES = 12, 0.5, 2
FEW = 5
"""Width for the method that tries every pattern."""

SECONDS = 1.0
"""The limit of a run; the moments lie within what the method takes undisturbed."""

_SLACK = 1e-9
_PATIENCE = 60.0
"""Seconds after the fault in which a run has to return."""

_LOADED = ("cvxpy", "highspy")
"""Packages that methods load when they run."""

_MEGABYTES = (8, 256)
"""What a starved run may take on top of what it has."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One run: the best ends that it reported, those that it returned, and what went wrong besides.

    Attributes:
        trouble: that it did not return at all, in words.
    """

    reported: tuple[float, float]
    returned: tuple[float, float]
    status: str = ""
    trouble: str = ""

    @property
    def lost(self) -> str:
        """What was reported and not returned."""
        if self.trouble:
            return self.trouble
        words = []
        if self.returned[0] < self.reported[0] * (1 - _SLACK):
            words.append(f"lower {self.reported[0]:.6g} became {self.returned[0]:.6g}")
        if self.returned[1] > self.reported[1] * (1 + _SLACK):
            words.append(f"upper {self.reported[1]:.6g} became {self.returned[1]:.6g}")
        return ", ".join(words)


def problem(width: int = WIDTH) -> Problem:
    """Two boxes, so that runs are also met between examples."""
    network = random_network(width)
    centers = torch.rand(BOXES, network.in_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Problem.around(network, centers, EPS)


def run_once(asked: Problem, method: str, fault: str, moment: float, megabytes: int) -> tuple[Outcome, float]:
    """A run in a process of its own that meets a fault after ``moment`` seconds; its outcome and its time."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(asked, method, fault, moment, megabytes, writing)
    os.close(writing)
    os.read(reading, 1)  # it is ready
    started = time.monotonic()
    text, sent = b"", False
    while True:
        passed = time.monotonic() - started
        if fault.startswith("SIG") and not sent and passed >= moment:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.Signals[fault])
            sent = True
        if passed > moment + SECONDS + _PATIENCE:
            os.kill(child, signal.SIGKILL)
        ready, _, _ = select.select([reading], [], [], 0.002 if not sent else 0.1)
        if ready:
            piece = os.read(reading, 65536)
            if not piece:
                break
            text += piece
    os.close(reading)
    _, code = os.waitpid(child, 0)
    lines = text.decode().splitlines()
    points = [json.loads(line) for line in lines]
    return _outcome(points, code), time.monotonic() - started


def _outcome(points: Sequence[dict[str, float | str | None]], code: int) -> Outcome:
    reported = [p for p in points if "status" not in p]
    lower = max((_number(p["lower"], 0.0) for p in reported), default=0.0)
    upper = min((_number(p["upper"], math.inf) for p in reported), default=math.inf)
    if not points or "status" not in points[-1]:
        return Outcome((lower, upper), (0.0, math.inf), trouble=f"nothing was returned (exit status {code})")
    last = points[-1]
    ends = (_number(last["lower"], 0.0), _number(last["upper"], math.inf))
    return Outcome((lower, upper), ends, status=str(last["status"]))


def _number(value: float | str | None, otherwise: float) -> float:
    return otherwise if value is None else float(value)


def _child(asked: Problem, method: str, fault: str, moment: float, megabytes: int, pipe: int) -> None:
    """Run, say every point of the trace and the result on the pipe, and end without any clean-up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        """Before and after the run there is nothing that it could lose."""
        while frame is not None:
            if frame.f_code is lipcompare.bound.__code__:
                raise KeyboardInterrupt
            frame = frame.f_back

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    os.write(pipe, b"!")
    armed = time.perf_counter() + moment if fault == "memory" else math.inf

    def say(content: dict[str, float | str | None]) -> None:
        os.write(pipe, (json.dumps(content) + "\n").encode())

    def plain(value: float) -> float | None:
        return float(value) if math.isfinite(value) else None

    def on_progress(point: TracePoint) -> None:
        nonlocal armed
        say({"lower": plain(point.lower), "upper": plain(point.upper)})
        if time.perf_counter() >= armed:
            armed = math.inf
            mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            limit = mapped + megabytes * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

    code = 0
    try:
        result = lipcompare.bound(asked, method, time_limit=SECONDS, on_progress=on_progress)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        low, high = float(result.overall_lower.max()), float(result.overall_upper.max())
        say({"lower": plain(low), "upper": plain(high), "status": result.status.name.lower()})
    except KeyboardInterrupt:
        code = 1
        say({"lower": None, "upper": None, "status": "raised"})
    except (LipcompareError, MemoryError) as error:
        code = 2
        sys.stderr.write(f"{method}, {fault}: {type(error).__name__}: {error}\n")
    finally:
        os._exit(code)


def disturb(method: str, moments: int, dice: random.Random) -> tuple[list[tuple[str, Outcome]], float]:
    """A method under every fault in turn, at random moments of the time that it takes undisturbed."""
    asked = problem(FEW if method == "enumerate" else WIDTH)
    _, whole = run_once(asked, method, "none", 0.0, 0)
    outcomes = []
    for number in range(moments):
        fault = FAULTS[number % len(FAULTS)]
        outcome, _ = run_once(asked, method, fault, dice.random() * whole, dice.randint(*_MEGABYTES))
        outcomes.append((fault, outcome))
    return outcomes, whole


def cheap_study() -> Study:
    """Cells whose values do not depend on time."""
    asked = problem()
    tasks = [Task(asked.example(b), {"example": b}) for b in range(BOXES)]
    settings = [Setting(name) for name in ("naive", "ibp", "recurjac", "lbp", "sdp")]
    return Study("faults", tasks, settings, CellLimits(time=60.0))


def disturb_study(kills: int, dice: random.Random) -> list[str]:
    """A study that is ended at random moments until it is done; what was lost, in words."""
    lost = []
    with tempfile.TemporaryDirectory() as folder:
        path, quiet = Path(folder) / "r.sqlite", Path(folder) / "quiet.sqlite"
        run([cheap_study()], quiet, console=Console(quiet=True))
        command = [sys.executable, "-m", "experiments.faults", "--study", str(path)]
        before: dict[str, float] = {}
        for number in range(kills):
            runner = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # noqa: S603  # our own
            assert runner.stdout is not None
            runner.stdout.readline()  # it has imported everything, which may swallow an interrupt
            with contextlib.suppress(subprocess.TimeoutExpired):
                runner.wait(timeout=8.0 * dice.random())
            runner.send_signal((signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[number % 3])
            try:
                runner.wait(timeout=_PATIENCE)
            except subprocess.TimeoutExpired:
                lost.append(f"the runner did not end within {_PATIENCE:g} s of its signal")
                runner.kill()
                runner.wait()
            runner.stdout.close()
            after = _uppers(path)
            lost += [f"the row {key} vanished or changed" for key in before if after.get(key) != before[key]]
            before = after
        run([cheap_study()], path, console=Console(quiet=True))
        if _uppers(path) != _uppers(quiet):
            lost.append("the rows at the end are not those of an undisturbed study")
    return lost


def _uppers(path: Path) -> dict[str, float]:
    """Finished cells, by problem and series."""
    try:
        with Store(path, read_only=True) as store:
            frame = store.frame()
    except StoreError:
        return {}
    done = frame[frame["status"].notna()]
    return {f"{task} {series}": float(upper) for task, series, upper in done[["task", "series", "upper"]].to_numpy()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Disturb everything; 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=50, help="per method (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=6, help="of the study (default: %(default)s)")
    parser.add_argument("--methods", default="", help="separated by commas (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--study", metavar="STORE", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if given.study:
        print("ready", flush=True)
        return int(run([cheap_study()], given.study, console=Console(quiet=True)).interrupted)
    for needed in _LOADED:  # once, not in every child: on a busy machine that took longer than the patience below
        with contextlib.suppress(ImportError):
            importlib.import_module(needed)
    dice = random.Random(given.seed)  # noqa: S311  # no secret
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    table = Table("method", "seconds", "runs", "ended early", "lost", title="Faults at random moments")
    losses = 0
    for method in [name for name in given.methods.split(",") if name] or list(METHODS):
        outcomes, whole = disturb(method, given.moments, dice)
        lost = [(fault, outcome.lost) for fault, outcome in outcomes if outcome.lost]
        early = sum(outcome.status in ("interrupted", "out_of_memory") for _, outcome in outcomes)
        table.add_row(method, f"{whole:.2f}", str(len(outcomes)), str(early), str(len(lost)))
        for fault, what in lost:
            console.print(f"LOST by {method} at {fault}: {what}", markup=False)
        losses += len(lost)
    console.print(table)
    if given.kills:
        lost_rows = disturb_study(given.kills, dice)
        for what in lost_rows:
            console.print(f"LOST by the study: {what}", markup=False)
        losses += len(lost_rows)
        console.print(f"The study was ended {given.kills} times; {len(lost_rows)} losses.")
    return int(losses > 0)


if __name__ == "__main__":
    sys.exit(main())
