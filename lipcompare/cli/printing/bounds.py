"""What the command line prints: tables, one JSON object, progress, and the exit code that goes with a result."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lipcompare.budget import counted
from lipcompare.cli.errors import INTERRUPTED, OK, OUT_OF_MEMORY, UNAVAILABLE, UNEXPECTED, note
from lipcompare.domain import Space
from lipcompare.errors import Contradiction, InvalidInput, shown
from lipcompare.methods.combine import intersect
from lipcompare.network import Network
from lipcompare.problem import Box, NormBall, Problem
from lipcompare.result import Bound, Status
from lipcompare.rounding import gap_text, lower_text, upper_text
from lipcompare.study.tidy import tidy, tidy_rows

if TYPE_CHECKING:
    import pandas as pd

_CODES = {
    Status.UNSUPPORTED: UNAVAILABLE,
    Status.UNAVAILABLE: UNAVAILABLE,
    Status.LICENCE_TOO_SMALL: UNAVAILABLE,
    Status.OUT_OF_MEMORY: OUT_OF_MEMORY,
    Status.INTERRUPTED: INTERRUPTED,
    Status.CRASHED: UNEXPECTED,
}
MOST_ROWS = 20


def exit_code(results: Sequence[Bound]) -> int:
    """0 if anything was proved and nothing was interrupted or crashed, else the first result's code.

    A solver that is not there, or that refused, says nothing against the interval that was proved without it.
    """
    codes = [_code(r) for r in results]
    if INTERRUPTED in codes:
        return INTERRUPTED
    return OK if OK in codes else codes[0]


def _code(result: Bound) -> int:
    code = _CODES.get(result.status, OK)
    return OK if code == UNAVAILABLE and result.proves != "nothing" else code


def seconds_text(seconds: float) -> str:
    """A duration in the unit that suits it."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def describe(problem: Problem) -> str:
    """One line on the question."""
    return (
        f"{describe_domain(problem.network, problem.box)}; input norm l_{problem.norm.value}; "
        f"{counted(problem.rows, 'functional')}"
    )


def describe_domain(network: Network, box: Box) -> str:
    """The network and the sets of inputs."""
    return (
        f"{network.name}: {counted(network.in_size, 'input')}, {counted(network.out_size, 'output')}; {box.described}"
    )


def radii(box: Box) -> list[float]:
    """The radius of every domain; of a box the largest half-width."""
    size = box.radius if isinstance(box, NormBall) else ((box.upper - box.lower) / 2).amax(1)
    return [float(r) for r in size]


def where(box: Box) -> str:
    """Where a bound holds, in words."""
    return "all inputs" if isinstance(box, Space) else "the ball" if isinstance(box, NormBall) else "the box"


def meaning(problem: Problem) -> str:
    """What the number means, in one sentence."""
    quantity = f"the l_{problem.norm.dual.value} norm"
    within = "" if isinstance(problem.box, Space) else " within it"
    return (
        f"Bounds on {quantity} of the gradient over {where(problem.box)}: if x moves by d (in "
        f'l_{problem.norm.value}){within}, the functional moves by at most d times "at most".'
    )


def result_table(problem: Problem, result: Bound) -> Table:
    """One example: a line per functional and one for the largest. Several: a line per example."""
    table = Table(box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    single = problem.batch == 1
    table.add_column("functional" if single else "example")
    for name in ("at least", "at most", "gap"):
        table.add_column(name, justify="right")
    overall = list(zip(result.overall_lower, result.overall_upper, result.gap, strict=True))
    if not single:
        for b, ends in enumerate(overall):
            table.add_row(str(b), *interval_cells(*ends))
        return table
    names = problem.row_names()
    for row in range(min(problem.rows, MOST_ROWS)):
        low, high = float(result.lower[0, row]), float(result.upper[0, row])
        table.add_row(names[row], *interval_cells(low, high, relative_gap(low, high)))
    if problem.rows > MOST_ROWS:
        table.add_row(f"... {problem.rows - MOST_ROWS} more: --json has all", "", "", "")
    table.add_section()
    table.add_row("largest", *interval_cells(*overall[0]), style="bold")
    return table


def relative_gap(low: float, high: float) -> float:
    """``(high - low) / high``, 0 for the zero function."""
    if math.isinf(high):
        return math.inf
    return (high - low) / high if high > 0 else 0.0


def interval_cells(low: float, high: float, gap: float) -> tuple[str, str, str]:
    """Cells of an interval, rounded outward."""
    exactly_zero = high == 0
    return (
        "0" if exactly_zero else lower_text(low),
        upper_text(high),
        gap_text(gap if low > 0 or exactly_zero else math.inf),
    )


def comparison_table(problem: Problem, results: Sequence[Bound], *, title: str | None = None) -> Table:
    """A line per method, with means over the examples of a batch."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    mean = "mean " if problem.batch > 1 else ""
    table.add_column("method")
    for name in (f"{mean}at least", f"{mean}at most", "gap", "time"):
        table.add_column(name, justify="right")
    table.add_column("status", overflow="fold")
    for result in results:
        brief = {Status.COMPLETE: "complete", Status.EXACT: "exact to the gap"}.get(result.status)
        message = brief or result.sentence
        seconds = "-" if result.proves == "nothing" else seconds_text(result.seconds)
        table.add_row(result.method, *_mean_cells(result), seconds, escape(message))
    if len(results) > 1:
        table.add_section()
        try:
            together = intersect(results)
        except Contradiction as error:
            table.add_row("together", "-", "-", "-", "-", escape(str(error)), style="bold red")
        else:
            table.add_row("together", *_mean_cells(together), seconds_text(together.seconds), "", style="bold")
    return table


def _mean_cells(result: Bound) -> tuple[str, str, str]:
    low, high = float(result.overall_lower.mean()), float(result.overall_upper.mean())
    return interval_cells(low, high, relative_gap(low, high))


def print_result(console: Console, problem: Problem, result: Bound) -> None:
    """The table of a result between what was asked and how it was found."""
    console.print(escape(describe(problem)))
    if result.proves == "nothing":
        console.print(escape(f"{result.method} proved nothing. {result.sentence}"))
        return
    console.print(result_table(problem, result))
    console.print(meaning(problem))
    how = f"Found by {result.method} in {seconds_text(result.seconds)} on {result.device} in {result.dtype}."
    console.print(escape(how if _went_well(result) else f"{how} {result.sentence}"))


def _went_well(result: Bound) -> bool:
    return result.status is Status.COMPLETE and not result.detail


def print_comparison(console: Console, problem: Problem, results: Sequence[Bound]) -> None:
    """What was asked, and the table of the methods."""
    console.print(escape(describe(problem)))
    console.print(comparison_table(problem, results))
    console.print(meaning(problem))


def frame(problem: Problem, results: Sequence[Bound]) -> pd.DataFrame:
    """The rows that :func:`lipcompare.compare` would return."""
    import pandas as pd  # half a second, for those who want a table of numbers

    return pd.DataFrame([record for r in results for record in tidy(problem.network.name, r)])


def frame_of_rows(problem: Problem, results: Sequence[Bound], gap: float) -> pd.DataFrame:
    """Those that it would return for every functional."""
    import pandas as pd

    return pd.DataFrame([record for r in results for record in tidy_rows(problem.network.name, problem, r, gap)])


def as_json(problem: Problem, result: Bound) -> dict[str, Any]:
    """The object that ``lipcompare bound --json`` prints."""
    return {**result.to_dict(), "problem": problem_json(problem)}


def problem_json(problem: Problem) -> dict[str, Any]:
    """The question in plain values; boxes are given by their size, not by all their corners."""
    return {
        **domain_json(problem.network, problem.box),
        "norm": problem.norm.value,
        "gradient_norm": problem.norm.dual.value,
        "functionals": problem.rows,
        "functional_names": [problem.row_names(b) for b in range(problem.batch)],
    }


def domain_json(network: Network, box: Box) -> dict[str, Any]:
    """The network and the sets of inputs in plain values; the radius of all inputs is null."""
    return {
        "network": network.name,
        "inputs": network.in_size,
        "outputs": network.out_size,
        "input_shape": list(network.input_shape),
        "domain": where(box).removeprefix("the "),
        "boxes": box.batch,
        "radius": [numbers(r) for r in radii(box)],
    }


def numbers(values: Any) -> Any:
    """Numbers and arrays of them as JSON knows them: what is infinite becomes null."""
    plain = values.tolist() if isinstance(values, np.ndarray) else values
    if isinstance(plain, list):
        return [numbers(value) for value in plain]
    return plain if math.isfinite(plain) else None


def json_text(content: dict[str, Any]) -> str:
    """Strict JSON: no NaN, no infinity."""
    return json.dumps(content, indent=2, allow_nan=False)


def write_witness(path: str, result: Bound) -> None:
    """The bounds, and the points that attain the lower ones, as ``.npz``."""
    arrays: dict[str, np.ndarray] = {"lower": result.lower, "upper": result.upper}
    if result.witnesses is not None:
        arrays |= {
            "points": result.witnesses.points,
            "values": result.witnesses.values,
            "at_kink": result.witnesses.at_kink,
        }
    write_arrays(path, arrays)


def write_arrays(path: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Named arrays as ``.npz``, in a file of exactly this name."""
    with writing(path) as target, target.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for its own options


@contextlib.contextmanager
def writing(path: str) -> Iterator[Path]:
    """The path of a file to write, which is named afterwards; a failure is one sentence. A folder that is made for it
    is named as well."""
    target = Path(path)
    try:
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True)
            note(f"Made the folder {target.parent}.")
        yield target
        note(f"Written: {shown(path)}")
    except OSError as error:
        raise InvalidInput(
            f"Cannot write {shown(path)} ({error.strerror}): name a file in a folder you may write to."
        ) from None
