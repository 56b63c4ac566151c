"""CBC, the binary that PuLP ships, driven as a process of its own.

PuLP's own driver calls a timed-out run "Optimal", drops the lower bound that CBC prints, has no cutoff and
cannot be stopped; so the model file, the process and the reading of its answer are done here. `pulp:COIN_CMD`
is PuLP's driver.
"""

from __future__ import annotations

import functools
import math
import re
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, final

import numpy as np

from solvers.interface import Capabilities, Solver, package_version
from solvers.mps import write_mps
from solvers.packages import missing
from solvers.program import MixedIntegerProgram, OneSidedRows, Program, Vector, one_sided
from solvers.running import POLL, Claim, Progress
from solvers.solution import Limits, SolveStatus

STATUSES: tuple[tuple[str, SolveStatus], ...] = (
    ("Optimal", SolveStatus.OPTIMAL),
    ("Integer infeasible", SolveStatus.INFEASIBLE),
    # CBC's preprocessing says infeasible for some unbounded programs too.
    ("Infeasible", SolveStatus.INFEASIBLE_OR_UNBOUNDED),
    ("Unbounded", SolveStatus.UNBOUNDED),
    ("Stopped on time", SolveStatus.TIME_LIMIT),
    (
        "Stopped on iterations",
        SolveStatus.ITERATION_LIMIT,
    ),  # also on other limits and signals: told apart below
    ("Stopped on nodes", SolveStatus.NODE_LIMIT),
    ("Stopped on difficulties", SolveStatus.NUMERICAL_TROUBLE),
    ("Stopped on ctrl-c", SolveStatus.INTERRUPTED),
    ("Stopped on gap", SolveStatus.OPTIMAL),
    ("Stopped on solutions", SolveStatus.NODE_LIMIT),
    ("Stopped on user", SolveStatus.INTERRUPTED),
    ("SolveStatus unknown", SolveStatus.SOLVER_ERROR),
)
"""How the first line of CBC's solution file starts, in the order to try."""

_INCREMENT = 1e-9
"""What it may cut off, and what reduced costs may be: as for HiGHS."""
_BOUND = re.compile(r"^Lower bound:\s+(\S+)", re.MULTILINE)
_NODES = re.compile(r"^Enumerated nodes:\s+(\d+)", re.MULTILINE)
_VERSION = re.compile(r"^Version:\s+(\S+)", re.MULTILINE)


@final
@dataclass(frozen=True)
class Cbc(Solver):
    @property
    def name(self) -> str:
        return "pulp"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(lp=True, mip=True, dual_bound=True, start=True, cutoff=True, pruning=2 * _INCREMENT)

    def is_available(self) -> bool:
        return _binary() is not None

    def licence(self) -> str:
        return "Eclipse Public Licence, no limits."

    def version(self) -> str:
        binary = _binary()
        return "" if binary is None else f"CBC {_cbc_version(binary)}, PuLP {package_version('pulp')}"

    def _run(self, program: Program, limits: Limits, start: Vector | None, cutoff: float, progress: Progress) -> Claim:
        assert isinstance(program, MixedIntegerProgram)
        binary = _binary()
        if binary is None:
            return Claim(SolveStatus.NOT_INSTALLED)
        with tempfile.TemporaryDirectory(prefix="solvers-cbc-") as folder:
            files = Path(folder)
            rows = one_sided(program)
            write_mps(files / "model.mps", program, rows)
            # Tighter than the tolerance of our own check, so that an honest point passes it.
            arguments = ["-timeMode", "elapsed", "-primalTolerance", "1e-8", "-integerTolerance", "1e-7"]
            # CBC 2.10 with its integer preprocessing called -1.489 optimal where -1.748 is feasible (53 columns, 11 of
            # them binary; HiGHS reads the right optimum from the same file, and so does CBC without preprocessing).
            arguments += ["-preprocess", "off"]
            # It cuts off what is better than its best point by less than 1e-5 by default, 5 % of an objective of 1e-4.
            # With its default of 1e-7 reduced costs of 4e-7 were taken for zero.
            arguments += ["-increment", repr(_INCREMENT), "-dualTolerance", repr(_INCREMENT)]
            arguments += ["-ratio", repr(limits.relative_gap), "-allow", repr(limits.absolute_gap)]
            if limits.threads > 1:
                arguments += ["-threads", str(limits.threads)]
            if limits.node_limit is not None:
                arguments += ["-maxNodes", str(limits.node_limit)]
            if program.is_mip and math.isfinite(cutoff):
                arguments += ["-cutoff", repr(cutoff - program.offset)]
            if start is not None and program.is_mip:
                _write_start(files / "start.mst", start)
                arguments += ["-mips", str(files / "start.mst")]
            if math.isfinite(limits.time_limit):
                arguments += ["-sec", repr(max(limits.time_limit - progress.seconds(), 0.01))]
            arguments += ["-solve", "-printingOptions", "all", "-solution", str(files / "answer.txt")]
            with open(files / "log.txt", "w+") as log:
                code = _supervised([binary, str(files / "model.mps"), *arguments], log, limits, progress)
                log.seek(0)
                text = log.read()
            answer = files / "answer.txt"
            if not answer.exists():
                if limits.time_limit <= progress.seconds():
                    return Claim(SolveStatus.TIME_LIMIT)
                if progress.must_stop():
                    return Claim(SolveStatus.INTERRUPTED)
                return Claim(SolveStatus.SOLVER_ERROR, message=f"CBC ended with code {code}: {text[-300:].strip()}")
            return _read(answer.read_text(), text, program, rows, limits, progress)


def _binary() -> str | None:
    """The CBC that PuLP ships, else one on the PATH."""
    if not missing("pulp"):
        from pulp.apis import coin_api

        shipped = shutil.which(str(getattr(coin_api, "pulp_cbc_path", "")))
        if shipped is not None:
            return shipped
        return shutil.which("cbc")
    return None


@functools.cache
def _cbc_version(binary: str) -> str:
    found = _VERSION.search(subprocess.run([binary, "-quit"], capture_output=True, text=True, check=False).stdout)  # noqa: S603 - the path PuLP gives
    return found.group(1) if found else "of unknown version"


def _supervised(command: list[str], log: IO[str], limits: Limits, progress: Progress) -> int:
    """Runs CBC; asks it to stop (it then writes what it has) and at last kills it, by the clock or on
    request."""
    # A session of its own: the terminal's Ctrl-C reaches us, and we pass it on once.
    with subprocess.Popen(  # noqa: S603 - no shell, our own arguments
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        asked = math.inf
        try:
            while True:
                try:
                    return process.wait(POLL)
                except subprocess.TimeoutExpired:
                    now = progress.seconds()
                    late = now > 1.02 * limits.time_limit + 0.2
                    if (progress.must_stop() or late) and math.isinf(asked):
                        process.send_signal(signal.SIGINT)
                        asked = now
                    if now > asked + 0.5:
                        process.kill()
        finally:
            if process.poll() is None:
                process.kill()


def _write_start(path: Path, start: Vector) -> None:
    known = np.flatnonzero(~np.isnan(start))
    lines = [f"{k} x{j} {float(start[j])!r} 0\n" for k, j in enumerate(known.tolist())]
    path.write_text("Stopped on time - objective value 0\n" + "".join(lines))


def _read(
    answer: str,
    log: str,
    program: MixedIntegerProgram,
    rows: OneSidedRows,
    limits: Limits,
    progress: Progress,
) -> Claim:
    """The claim in CBC's solution file and log. Columns: index, name, value, dual; '**' marks infeasible
    entries."""
    head, *lines = answer.splitlines()
    status = next((s for text, s in STATUSES if head.startswith(text)), SolveStatus.SOLVER_ERROR)
    entries = (line.split() for line in lines)
    values = {parts[-3]: (float(parts[-2]), float(parts[-1])) for parts in entries if len(parts) >= 4}
    x = np.array([values.get(f"x{j}", (math.nan, 0.0))[0] for j in range(program.num_variables)])
    point = x if np.isfinite(x).all() and "no integer solution" not in head else None
    if status in (SolveStatus.ITERATION_LIMIT, SolveStatus.TIME_LIMIT):
        if progress.seconds() >= limits.time_limit:
            status = SolveStatus.TIME_LIMIT
        elif progress.must_stop():
            status = SolveStatus.INTERRUPTED
        elif program.is_mip and limits.node_limit is not None:
            status = SolveStatus.NODE_LIMIT
    found = _NODES.search(log)
    nodes = int(found.group(1)) if found else 0
    if program.is_mip:
        # Only CBC's last report counts: in the log above it, bounds may belong to a restricted search. The
        # bound is printed with few digits, so it is loosened by that much.
        reports = _BOUND.findall(log)
        bound = float(reports[-1]) + program.offset if reports else -math.inf
        bound = bound - 1e-3 if abs(bound) < 1e40 else -math.inf
        if status is SolveStatus.OPTIMAL and point is not None:
            objective = program.objective(point)
            bound = max(bound, objective - max(limits.absolute_gap, limits.relative_gap * abs(objective)))
        return Claim(status, point, bound, nodes)
    if status is not SolveStatus.OPTIMAL or point is None:
        return Claim(status, point)
    y_eq = np.array([values.get(f"e{i}", (0.0, 0.0))[1] for i in range(len(rows.b_eq))])
    y_ub = np.array([values.get(f"u{i}", (0.0, 0.0))[1] for i in range(len(rows.b_ub))])
    return Claim(status, point, program.objective(point), y=rows.row_duals(y_eq, y_ub, program.num_rows))
