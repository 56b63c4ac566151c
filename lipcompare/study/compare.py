"""``compare``: several methods on several problems, one after another in this process or in processes of their own."""

from __future__ import annotations

import collections
import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from lipcompare import methods
from lipcompare.api import TIME_LIMIT, bound, refused, require_limits
from lipcompare.display.frames import Comparison
from lipcompare.display.progress import Announce, watched
from lipcompare.display.progress import progress as news
from lipcompare.errors import Contradiction, InvalidInput, LipcompareError, known_keywords
from lipcompare.methods import METHODS, Method
from lipcompare.methods.base import changed_options, options_of
from lipcompare.methods.combine import intersect
from lipcompare.problem import Problem
from lipcompare.result import Bound, Status
from lipcompare.store.database import Store
from lipcompare.study.definition import CellLimits, Option, Setting, Study, Task, plain
from lipcompare.study.run import run
from lipcompare.study.tidy import options_text, relative_gap, row_proves, tidy, tidy_rows

Asked = Method | str | tuple[str, Mapping[str, Any]]
_NAME = "comparison"


@known_keywords
def compare(
    problems: Problem | Iterable[Problem] | Mapping[str, Problem],
    methods_: Iterable[Asked] | None = None,
    *,
    rows: bool = False,
    time_limit: float = TIME_LIMIT,
    gap: float = 1e-4,
    memory: int = 2**30,
    threads: int | None = None,
    jobs: int = 1,
    cluster: str | None = None,
    progress: bool | None = None,
    on_result: Callable[[str, Bound], None] | None = None,
) -> Comparison:
    """Run several methods on several problems: one row per problem, example and method, or per functional too.

    Args:
        problems: one, several, or several by name.
        methods_: names, objects, or names with options such as ``("milp", {"solver": "gurobi"})``; all methods if
            None. Where one method is there several times, its options are part of its name in the frame.
        rows: a row for every functional, named in the column ``functional`` (``3``, ``3-0``, the names of classes),
            instead of one for the largest.
        time_limit, gap, memory, threads: of each run, as of :func:`lipcompare.bound`.
        jobs: runs at a time, in processes of their own; every example is then a run.
        cluster: address of a Dask scheduler, such as ``tcp://host:8786``, whose workers run them.
        progress: show what is going on; None: on a terminal or in a notebook.
        on_result: called with the problem's name and every result; in this process only.

    Returns:
        A data frame with the columns problem, example, method, lower, upper, gap, proves, status, message, seconds (of
        the whole batch, or of the example where that is a run), device, dtype, options. An end that is not proved is
        NaN. Ctrl-C ends the comparison and keeps what was done.

    Raises:
        InvalidInput: an unknown method, or a value that does not fit.
        Contradiction: a method contradicts itself or another one. It is raised when everything has run, and its
            ``results`` is the frame.
        LipcompareError: no process starts, or the cluster cannot be reached.
    """
    require_limits(time_limit, gap, memory, threads)
    labelled = dict(_labelled(problems))
    if isinstance(methods_, (str, Method)):
        methods_ = [methods_]
    asked = METHODS if methods_ is None else methods_
    chosen = [methods.get(m[0], **m[1]) if isinstance(m, tuple) else methods.get(m) for m in asked]
    if jobs > 1 or cluster is not None:
        if on_result is not None:
            raise InvalidInput("on_result is called in this process only: leave out jobs and cluster, or on_result.")
        limits = CellLimits(time=time_limit, gap=gap, memory=4 * memory, threads=threads or 1)
        shown = progress or (progress is None and watched())
        frame, contradictions = _in_processes(
            labelled, chosen, rows, limits, jobs, cluster, Console(stderr=True, quiet=not shown)
        )
    else:
        with news() if progress or (progress is None and watched()) else contextlib.nullcontext() as announce:
            settings: dict[str, Any] = {"time_limit": time_limit, "gap": gap, "memory": memory, "threads": threads}
            frame, contradictions = _here(labelled, chosen, rows, settings, announce, on_result)
    if contradictions:
        raise Contradiction(" ".join(contradictions), results=frame)
    return frame


def _here(
    labelled: Mapping[str, Problem],
    chosen: Sequence[Method],
    by_row: bool,
    settings: Mapping[str, Any],
    announce: Announce | None,
    on_result: Callable[[str, Bound], None] | None,
) -> tuple[Comparison, list[str]]:
    """The rows, and what contradicts itself; one method after another in this process."""
    names = told_apart(chosen)
    rows: list[dict[str, Any]] = []
    contradictions: list[str] = []
    for label, problem in labelled.items():
        results: list[Bound] = []
        for k, (name, method) in enumerate(zip(names, chosen, strict=True)):
            display = None if announce is None else announce(f"{label}: {name} ({k + 1} of {len(chosen)})")
            try:
                result = bound(
                    problem,
                    method,
                    progress=False,
                    on_progress=None if display is None else display.show,
                    on_note=None if display is None else display.note,
                    **settings,
                )
            except LipcompareError as error:
                result = refused(problem, method, error)
                if isinstance(error, Contradiction):
                    contradictions.append(f"{label}: {error}")
            results.append(result)
            records = tidy_rows(label, problem, result, settings["gap"]) if by_row else tidy(label, result)
            rows.extend({**record, "method": name} for record in records)
            if on_result is not None:
                on_result(label, result)
            if result.status is Status.INTERRUPTED:
                break
        try:
            intersect(results, gap=settings["gap"])
        except Contradiction as error:
            contradictions.append(f"{label}: {error}")
        if results and results[-1].status is Status.INTERRUPTED:
            break
    return Comparison(rows), contradictions


def _in_processes(
    labelled: Mapping[str, Problem],
    chosen: Sequence[Method],
    by_row: bool,
    limits: CellLimits,
    jobs: int,
    cluster: str | None,
    console: Console,
) -> tuple[Comparison, list[str]]:
    """The rows, from a study that is forgotten afterwards, and what contradicts itself."""
    tasks = [
        Task(problem.example(b), {"problem": label, "example": b})
        for label, problem in labelled.items()
        for b in range(problem.batch)
    ]
    settings = [Setting(m.name, _given(m), series=str(k)) for k, m in enumerate(chosen)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.sqlite"
        run([Study(_NAME, tasks, settings, limits)], path, jobs=jobs, cluster=cluster, console=console)
        with Store(path, read_only=True) as store:
            cells, each = store.frame(_NAME), store.rows(_NAME)
    cells = cells[cells["status"].notna()].reset_index(drop=True)  # the others were interrupted
    contradictions = _contradictions(_shaped(cells, chosen, cells["proves"]))
    if not by_row:
        return _shaped(cells, chosen, cells["proves"]), contradictions
    names = {(label, b): problem.row_names(b) for label, problem in labelled.items() for b in range(problem.batch)}
    cells = cells.drop(columns=["lower", "upper"]).merge(each, on=["task", "series"])
    proves = [row_proves(low, high, limits.gap) for low, high in zip(cells["lower"], cells["upper"], strict=True)]
    frame = _shaped(cells, chosen, proves)
    called = [names[r.problem, r.example][row] for r, row in zip(frame.itertuples(), cells["row"], strict=True)]
    frame.insert(2, "functional", called)
    return frame, contradictions


def _shaped(rows: pd.DataFrame, chosen: Sequence[Method], proves: Sequence[str]) -> Comparison:
    """Rows of a store in the columns of a comparison."""
    frame = Comparison({"problem": rows["label.problem"], "example": rows["label.example"].astype(int)})
    names = told_apart(chosen)
    frame["method"] = [names[int(k)] for k in rows["series"]]
    frame["lower"], frame["upper"] = rows["lower"], rows["upper"]
    frame["gap"] = relative_gap(rows["lower"].to_numpy(), rows["upper"].to_numpy())
    frame["proves"] = proves
    for name in ("status", "message", "seconds", "device", "dtype"):
        frame[name] = rows[name]
    frame["options"] = [options_text(options_of(chosen[int(k)])) for k in rows["series"]]
    return frame


def told_apart(chosen: Iterable[Method]) -> list[str]:
    """The methods' names, with the options that are not the default ones where a name occurs more than once."""
    chosen = list(chosen)
    counts = collections.Counter(m.name for m in chosen)

    def name(method: Method) -> str:
        if counts[method.name] == 1:
            return method.name
        options = options_text(changed_options(method))
        return f"{method.name}({options})" if options else method.name

    return [name(m) for m in chosen]


def _given(method: Method) -> dict[str, Option]:
    """A method's options as a setting has them; one that is None is so unless it is given."""
    return {name: value for name, value in plain(options_of(method)).items() if value is not None}


def _contradictions(frame: pd.DataFrame) -> list[str]:
    """What methods prove of the same example that excludes each other; and what contradicted itself in its process."""
    own = frame[(frame["status"] == "crashed") & frame["message"].str.contains("Contradiction: ", regex=False)]
    messages = [f"{r.problem}: {r.message}" for r in own.itertuples()]
    for (label, example), rows in frame.groupby(["problem", "example"], sort=False):
        low, high = rows["lower"].max(), rows["upper"].min()
        if low > high:
            above, below = rows.loc[rows["lower"].idxmax(), "method"], rows.loc[rows["upper"].idxmin(), "method"]
            attained, proved = f"{above} attains {float(low)!r}", f"{below} proves at most {float(high)!r}"
            messages.append(f"{label}, example {example}: {attained}, {proved}: a bug.")
    return messages


def _labelled(problems: Problem | Iterable[Problem] | Mapping[str, Problem]) -> Iterator[tuple[str, Problem]]:
    if isinstance(problems, Problem):
        problems = [problems]
    named: Iterable[tuple[str | None, Any]] = (
        problems.items() if isinstance(problems, Mapping) else ((None, problem) for problem in problems)
    )
    for number, (label, problem) in enumerate(named):
        if not isinstance(problem, Problem):
            kind = type(problem).__name__
            raise InvalidInput(f"compare takes problems, not {kind}: make one with Problem.around(model, center, eps).")
        yield label or f"{problem.network.name}#{number}", problem
