"""The process that runs cells: reads them from its standard input, writes rows to its standard output.

A method may do here what it likes: print, leak, be killed. An error that :func:`lipcompare.bound` does not turn into a
status ends the process with a traceback on stderr, of which the runner makes a row.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from lipcompare.api import bound
from lipcompare.budget import TracePoint
from lipcompare.errors import LipcompareError, UnsupportedOperation
from lipcompare.methods import Method
from lipcompare.methods.base import versions
from lipcompare.network.activations import relu
from lipcompare.network.graph import Activate, Affine, Input, Network
from lipcompare.network.linear_maps import Dense
from lipcompare.problem import Problem
from lipcompare.processes.serving import serve
from lipcompare.result import Status
from lipcompare.store.database import Origin, Record
from lipcompare.study.definition import Cell, CellLimits
from lipcompare.study.record import from_bound, origin, without_result

if sys.platform != "win32":
    import resource

_BETWEEN_POINTS = 0.2
"""Seconds between the trace points that are sent on the way; the row at the end has all of them."""

_WARM_UP = 1.0


class Ready(NamedTuple):
    """The process has started."""

    origin: Origin


class Running(NamedTuple):
    """The cell's time has started."""


class Proving(NamedTuple):
    """The method has returned; its certificate, which comes next, has as much time again."""

    record: Record


class Done(NamedTuple):
    """The cell has ended."""

    record: Record


class Job(NamedTuple):
    """What a process is given to do.

    Attributes:
        network: unless that is the one of the cell before.
        certificate: the file for a proof of the result, if one is wanted.
    """

    cell: Cell
    network: Network | None
    certificate: Path | None = None


Message = Ready | Running | TracePoint | Proving | Done


def main() -> None:
    """Serve until the input ends, which it also does when the runner is killed: then end at once."""
    receive, send = serve()
    warm: set[type[Method]] = set()
    network = None
    send(Ready(origin()))
    while True:
        job: Job = receive()
        network = job.network or network
        assert network is not None
        send(Done(_run(job, network, warm, send)))


def _run(job: Job, network: Network, warm: set[type[Method]], send: Callable[[Message], None]) -> Record:
    """The row of one cell."""
    cell = job.cell
    assert isinstance(cell.method, Method)
    if dict(cell.versions) != versions():
        ours, theirs = versions(), cell.versions
        differ = ", ".join(f"{k} {ours.get(k)} here, {theirs.get(k)} there" for k in ours if ours[k] != theirs.get(k))
        return without_result(cell, Status.UNAVAILABLE, f"The worker has other packages than the runner: {differ}.")
    torch.set_num_threads(cell.limits.threads)
    if type(cell.method) not in warm:
        _warm_up(cell.method, cell.device)
        warm.add(type(cell.method))
    random.seed(cell.limits.seed)
    np.random.seed(cell.limits.seed % 2**32)  # noqa: NPY002  # for methods that draw from the global generator
    torch.manual_seed(cell.limits.seed)
    last_sent = 0.0

    def on_progress(point: TracePoint) -> None:
        nonlocal last_sent
        if time.perf_counter() - last_sent >= _BETWEEN_POINTS:
            last_sent = time.perf_counter()
            send(TracePoint(*map(float, point)))

    send(Running())
    with _limited(cell):
        try:
            result = bound(
                cell.problem(network),
                cell.method,
                time_limit=cell.limits.time,
                gap=cell.limits.gap,
                memory=_memory(cell),
                threads=cell.limits.threads,
                progress=False,
                on_progress=on_progress,
            )
        except UnsupportedOperation as error:
            return without_result(cell, Status.UNSUPPORTED, str(error))
        except LipcompareError as error:
            return without_result(cell, Status.CRASHED, f"{type(error).__name__}: {error}")
        record = from_bound(cell, result)
        if job.certificate is not None and math.isfinite(record.upper):
            send(Proving(record))
            with contextlib.suppress(UnsupportedOperation):  # some domains have none
                result.certificate(job.certificate, time_limit=cell.limits.time, memory=_memory(cell))
    return record


def _memory(cell: Cell) -> int:
    """Bytes of working memory for a method: its other arrays come on top."""
    return min(2**30, cell.limits.memory // 4)


def _warm_up(method: Method, device: str) -> None:
    """The first use of a method loads libraries; do that on a network of one neuron, outside the time of a cell."""
    one = Dense(torch.ones(1, 1, dtype=torch.float64))
    nodes = (Input(1), Affine((0,), (one,), None), Activate(1, relu(), 1), Affine((2,), (one,), None))
    problem = Problem.around(Network(nodes, (1,), (1,)), 0.0, 1.0, device=device)
    with contextlib.suppress(LipcompareError):
        bound(problem, method, time_limit=_WARM_UP, progress=False)


@contextlib.contextmanager
def _limited(cell: Cell) -> Iterator[None]:
    """Let the system refuse memory past the limit, and end the process if it computes on when the runner is gone."""
    statm = Path("/proc/self/statm")
    if sys.platform == "win32" or not statm.exists():
        yield
        return
    cpu = time.process_time() + _orphaned_seconds(cell.limits)
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu) + 1, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    if cell.device != "cpu":  # an accelerator's driver maps far more addresses than memory
        yield
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    mapped = int(statm.read_text().split()[0]) * resource.getpagesize()
    allowed = mapped + cell.limits.memory
    resource.setrlimit(resource.RLIMIT_AS, (allowed if hard == resource.RLIM_INFINITY else min(allowed, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _orphaned_seconds(limits: CellLimits) -> float:
    """More processor time than a cell and its certificate can use before the runner kills it."""
    return (2 * limits.time + 2 * limits.grace + 10.0) * (os.cpu_count() or 1)
