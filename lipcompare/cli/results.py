"""``lipcompare results``, ``report`` and ``plot``: what a results store holds, as a list, a page or a picture."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

import pandas as pd
import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from lipcompare.budget import duration
from lipcompare.cli import output as cli_output
from lipcompare.cli.errors import console, errors
from lipcompare.errors import InvalidInput
from lipcompare.report import pages, plots
from lipcompare.rounding import lower_text, upper_text
from lipcompare.store import export as store_export
from lipcompare.store.database import Store
from lipcompare.store.filter import PENDING, STATUSES, Filter

WHICH, OUT = "Which cells", "The output"

StoreFile = Annotated[
    str, typer.Argument(metavar="FILE", help="A results store that a study wrote (.sqlite).", show_default=False)
]
Studies = Annotated[
    list[str] | None, typer.Option("--study", "-s", help="Of this study; may be repeated.", rich_help_panel=WHICH)
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task", "-k", help='With this text in the problem\'s name, such as "width=32"; may be repeated.',
        rich_help_panel=WHICH,
    ),
]  # fmt: skip
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method", "-m", help="Of this method, by its name or by its name in the study; may be repeated.",
        rich_help_panel=WHICH,
    ),
]  # fmt: skip
Statuses = Annotated[
    list[str] | None,
    typer.Option(
        "--status", help=f"That ended in this way: {', '.join(STATUSES)}; may be repeated.", rich_help_panel=WHICH
    ),
]

_EXIT_CODES = """[bold]Exit codes[/bold]

  0  done
  2  bad input; one sentence on stderr says what to change
130  interrupted"""

_BRIEF = {"complete": "complete", "exact": "exact to the gap", PENDING: PENDING}

_INTERRUPTED = "Interrupted; run the command again."


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (results, report, plot):
        app.command(epilog=_EXIT_CODES)(command)


def results(
    file: StoreFile,
    study: Studies = None,
    task: Tasks = None,
    method: Methods = None,
    status: Statuses = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", help="Rows to show; 0 shows all.", rich_help_panel=OUT)
    ] = 20,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of tables.", rich_help_panel=OUT)
    ] = False,
    export: Annotated[
        str | None,
        typer.Option(
            help="Write the rows, with options and provenance, to a .csv or .parquet file.", metavar="FILE",
            rich_help_panel=OUT,
        ),
    ] = None,
    trace: Annotated[
        bool,
        typer.Option("--trace", help="Export a row per trace point instead: seconds, lower, upper.",
                     rich_help_panel=OUT),
    ] = False,
    forget: Annotated[
        bool,
        typer.Option("--forget", help="Delete these cells, so that the study's next run computes them again.",
                     rich_help_panel=OUT),
    ] = False,
) -> None:  # fmt: skip
    """List, filter and export the rows of a results store.

    A cell is one problem put to one method. Every number shown is proved; "-"
    says that nothing is, and the status says in words why a method stopped.

    [bold]Examples[/bold]

    lipcompare results results.sqlite
    lipcompare results results.sqlite --study images --method sdp --method lbp
    lipcompare results results.sqlite --status time_limit --status crashed
    lipcompare results results.sqlite --study images --export images.csv
    lipcompare results results.sqlite --trace --export trace.parquet
    lipcompare results results.sqlite -s images -k example=3 -m LipMIP --forget
    """
    with errors(_INTERRUPTED):
        wanted = _filter(study, task, method, status)
        _check(limit, export, trace=trace, forget=forget, wanted=wanted)
        with Store(file, read_only=True) as store:
            frame = store.frame()
            rows = wanted.select(frame)
            points = _trace_of(store.trace(), rows)
        if forget:
            with Store(file) as store:
                count = store.forget(rows.loc[rows["status"].notna(), "key"])
            console().print(f"{count} cells deleted from {escape(file)}: run their study again.", soft_wrap=True)
            return
        if export is not None:
            store_export.write(points if trace else rows, export)
        if json:
            typer.echo(cli_output.json_text({"store": file, "rows": _plain(rows)}))
        else:
            _show(file, rows, len(frame), limit)
        if export is not None and not json:
            console().print(f"{len(points) if trace else len(rows)} rows written to {escape(export)}.")


def report(
    file: StoreFile,
    out: Annotated[
        str, typer.Option("--out", "-o", help="Folder for the page and the raw rows.", rich_help_panel=OUT)
    ] = "report",
) -> None:
    """Write a results store down as one web page.

    The page needs no network: what ran where, tables with the best values
    marked, pictures, and why each cell that did not finish stopped. The raw
    rows lie beside it as CSV files.

    [bold]Examples[/bold]

    lipcompare report results.sqlite
    lipcompare report results.sqlite -o results/report
    """
    with errors(_INTERRUPTED):
        page = pages.write_report(file, out)
        console().print(f"Written: {escape(str(page))}, rows.csv and trace.csv.", soft_wrap=True)


def plot(
    file: StoreFile,
    out: Annotated[
        str,
        typer.Option(
            "--out", "-o", help="The picture's file: .pdf, .svg or .png.", metavar="FILE", show_default=False,
            rich_help_panel=OUT,
        ),
    ],
    kind: Annotated[
        str, typer.Option(help=f"What to draw: {', '.join(pages.PLOTS)}.", rich_help_panel=OUT)
    ] = "pareto",
    study: Studies = None,
    task: Tasks = None,
    method: Methods = None,
    status: Statuses = None,
) -> None:  # fmt: skip
    """Draw one picture of a results store.

    [bold]Kinds[/bold]

    values     the interval that each method proves, and its time
    sweep      value and time against width, depth or radius
    pareto     tightness against time, all problems
    profile    share of the problems solved to a gap, against time
    traces     the interval of each method over time
    statuses   how the cells of each method ended

    [bold]Examples[/bold]

    lipcompare plot results.sqlite -o pareto.pdf
    lipcompare plot results.sqlite --kind sweep --study tiny_width -o width.svg
    lipcompare plot results.sqlite --kind values -k width=32 -s tiny_width -o w.png
    lipcompare plot results.sqlite --kind traces -m LipMIP -m bab -o traces.png
    """
    with errors(_INTERRUPTED):
        plots.check_format(out)
        figure = pages.plot(file, kind, wanted=_filter(study, task, method, status))
        with cli_output.writing(out) as path:
            plots.save(figure, path)
        console().print(f"Written: {escape(out)}", soft_wrap=True)


def _show(file: str, rows: pd.DataFrame, total: int, limit: int) -> None:
    out = console()
    if rows.empty:
        out.print(f"None of the {total} cells of {escape(file)} is such.")
        return
    shown = rows if limit == 0 else rows.head(limit)
    several = rows["study"].nunique() > 1
    if several:
        out.print(_studies_table(rows))
    out.print(_rows_table(shown, study=several))
    if len(shown) < len(rows):
        out.print(
            f"{len(shown)} of {len(rows)} rows: --limit 0 shows all; --study, --task, --method and --status choose."
        )


def _filter(
    study: list[str] | None, task: list[str] | None, method: list[str] | None, status: list[str] | None
) -> Filter:
    """The filter of the command line, where statuses may be written with spaces as they are shown."""
    words = tuple(text.replace(" ", "_") for text in status or ())
    return Filter(tuple(study or ()), tuple(task or ()), tuple(method or ()), words)


def _check(limit: int, export: str | None, *, trace: bool, forget: bool, wanted: Filter) -> None:
    """Options that do not go together, before anything is read."""
    if limit < 0:
        raise InvalidInput("--limit cannot be negative; 0 shows all rows.")
    if trace and export is None:
        raise InvalidInput("--trace goes with --export FILE; lipcompare plot --kind traces draws traces.")
    if export is not None:
        store_export.check_format(export)
    if forget and wanted == Filter():
        raise InvalidInput("--forget needs --study, --task, --method or --status; delete the file for all.")
    if forget and export is not None:
        raise InvalidInput("--forget and --export exclude each other: export first, then forget.")


def _trace_of(trace: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    return trace.merge(rows[["study", "task", "series"]], on=["study", "task", "series"])


def _plain(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON knows them: an infinite or missing number is null, options and versions are objects."""
    plain: list[dict[str, Any]] = json.loads(rows.to_json(orient="records"))
    for row in plain:
        for name in ("options", "versions", "rows_lower", "rows_upper"):
            row[name] = None if row[name] is None else json.loads(row[name])
    return plain


def _studies_table(rows: pd.DataFrame) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("study")
    for name in ("problems", "methods", "cells", "finished", "computing"):
        table.add_column(name, justify="right")
    for study, part in rows.groupby("study", sort=False):
        done = part["status"].notna()
        counts = (part["task"].nunique(), part["series"].nunique(), len(part), int(done.sum()))
        table.add_row(escape(str(study)), *map(str, counts), duration(float(part.loc[done, "seconds"].sum())))
    return table


def _rows_table(rows: pd.DataFrame, *, study: bool) -> Table:
    """A line per cell; numbers are rounded away from the truth."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in (*(["study"] if study else []), "problem", "method"):
        table.add_column(name, overflow="fold")
    for name in ("at least", "at most", "gap", "time"):
        table.add_column(name, justify="right")
    table.add_column("status", overflow="fold")
    for row in rows.to_dict("records"):
        status = PENDING if pd.isna(row["status"]) else str(row["status"])
        names = [row["study"]] if study else []
        names += [row["task"], row["series"]]
        table.add_row(*map(escape, names), *_numbers(row, status), escape(_BRIEF.get(status) or str(row["message"])))
    return table


def _numbers(row: dict[Any, Any], status: str) -> tuple[str, str, str, str]:
    if status == PENDING:
        return "-", "-", "-", "-"
    low, high = float(row["lower"]), float(row["upper"])
    gap = (high - low) / high if low > 0 and high < math.inf else math.inf
    return (
        lower_text(low) if high > 0 else "0",
        upper_text(high),
        cli_output.gap_text(gap if high > 0 else 0.0),
        cli_output.seconds_text(float(row["seconds"])),
    )
