"""From a cell and what became of it to a row of the store; and where that happened."""

from __future__ import annotations

import datetime
import math
import os
import platform
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch

from lipcompare.budget import TracePoint
from lipcompare.methods.base import versions
from lipcompare.result import Bound, Status
from lipcompare.store.database import Origin, Record
from lipcompare.study.definition import Cell


def from_bound(cell: Cell, result: Bound) -> Record:
    """The row of a cell whose method returned; bounds that are no numbers are a crash, and end no run."""
    rows = int(cell.functionals.shape[1])
    if result.lower.shape != (1, rows) or result.upper.shape != (1, rows):
        detail = f"The method returned bounds of shape {result.upper.shape}, not {(1, rows)}."
        return without_result(cell, Status.CRASHED, detail, seconds=result.seconds)
    if np.isnan(result.lower).any() or np.isnan(result.upper).any():
        return without_result(
            cell, Status.CRASHED, "The method returned a bound that is no number (NaN).", seconds=result.seconds
        )
    return record(
        cell,
        lower=float(result.overall_lower[0]),
        upper=float(result.overall_upper[0]),
        rows_lower=[float(v) for v in result.lower[0]],
        rows_upper=[float(v) for v in result.upper[0]],
        proves=result.proves,
        status=result.status,
        message=result.sentence,
        seconds=result.seconds,
        device=result.device,
        dtype=result.dtype,
        trace=result.trace,
        origin=origin(),
    )


def without_result(
    cell: Cell,
    status: Status,
    detail: str,
    *,
    seconds: float = 0.0,
    trace: Sequence[TracePoint] = (),
    where: Origin | None = None,
) -> Record:
    """The row of a cell whose method never returned: refused, killed or crashed.

    Of the trace only upper bounds count: nobody checked the witnesses of the lower ones. A bound of zero, which says
    that the network is constant, does not: of a method that then failed it is rather what its numbers started from.
    """
    rows = int(cell.functionals.shape[1])
    points = [TracePoint(p.seconds, 0.0, p.upper if p.upper > 0 else math.inf) for p in trace]  # NaN too is none
    upper = min((p.upper for p in points), default=math.inf)
    if math.isfinite(upper):
        detail = f"{detail} The upper bound is the last that it reported."
    return record(
        cell,
        lower=0.0,
        upper=upper,
        rows_lower=[0.0] * rows,
        rows_upper=[upper] * rows,
        proves="upper" if math.isfinite(upper) else "nothing",
        status=status,
        # That a method or worker is not there is for its own sentence; the status speaks of solvers.
        message=detail if status is Status.UNAVAILABLE else f"{status.value} {detail}".strip(),
        seconds=seconds,
        device=cell.device,
        dtype=cell.dtype,
        trace=points,
        origin=where or origin(),
    )


def record(
    cell: Cell,
    *,
    lower: float,
    upper: float,
    rows_lower: Sequence[float],
    rows_upper: Sequence[float],
    proves: str,
    status: Status,
    message: str,
    seconds: float,
    device: str,
    dtype: str,
    trace: Sequence[TracePoint],
    origin: Origin,
) -> Record:
    """The row of a cell from what became of it."""
    return Record(
        key=cell.key,
        network=cell.network,
        network_hash=cell.network_hash,
        problem_hash=cell.problem_hash,
        inputs=cell.inputs,
        outputs=cell.outputs,
        neurons=cell.neurons,
        radius=float((cell.box.upper - cell.box.lower).max() / 2),
        norm=cell.norm.value,
        method=cell.method_name,
        options=cell.options,
        lower=lower,
        upper=upper,
        rows_lower=rows_lower,
        rows_upper=rows_upper,
        proves=proves,
        status=status.name.lower(),
        message=message,
        seconds=seconds,
        time_limit=cell.limits.time,
        memory_limit=cell.limits.memory,
        gap=cell.limits.gap,
        seed=cell.limits.seed,
        threads=cell.limits.threads,
        device=device,
        dtype=dtype,
        origin=origin,
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        trace=tuple(p for p in trace if not any(map(math.isnan, p))),
    )


@cache
def origin() -> Origin:
    """This process: versions, revision and machine."""
    return Origin(
        versions=versions(),
        revision=_revision(Path(__file__).resolve().parents[2] / ".git"),
        cpu=f"{_cpu()}, {os.cpu_count()} cores",
        gpu=torch.cuda.get_device_name(0) if torch.cuda.is_available() else "",
        platform=platform.platform(terse=True),
    )


def _revision(git: Path) -> str:
    """The commit that a checkout is at, read from its files; nothing outside a checkout.

    Args:
        git: its folder ``.git``; in a further worktree a file that says where the worktree's part of it is.
    """
    try:
        if git.is_file():
            git = git.parent / git.read_text().strip().removeprefix("gitdir: ")
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        name, common = head.removeprefix("ref: "), git / "commondir"
        shared = git / common.read_text().strip() if common.exists() else git
        if (shared / name).exists():
            return (shared / name).read_text().strip()
        packed = (shared / "packed-refs").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split()[0] for line in packed if line.endswith(f" {name}")), "")


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
