"""What ``lipcompare results``, ``report`` and ``plot`` do: a results store as a list, a page or a picture."""

from __future__ import annotations

import json
import math
from typing import Any

import pandas as pd
import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from lipcompare.budget import counted, duration
from lipcompare.cli.asked import PlotOptions, ReportOptions, ResultsOptions
from lipcompare.cli.errors import console, note
from lipcompare.cli.options import Which
from lipcompare.cli.printing.bounds import json_text, seconds_text, writing
from lipcompare.display.intervals import check_format, save
from lipcompare.errors import InvalidInput
from lipcompare.report import pages
from lipcompare.rounding import gap_text, lower_text, upper_text
from lipcompare.store import export
from lipcompare.store.database import Store
from lipcompare.store.filter import PENDING, Filter
from lipcompare.store.repair import Saved, repair
from lipcompare.store.restore import restore

_BRIEF = {"complete": "complete", "exact": "exact to the gap", PENDING: PENDING}


def results(given: ResultsOptions) -> None:
    """List, export, import, forget or repair."""
    _check(given)
    if given.imported is not None:
        with Store(given.file) as store:
            came = restore(store, given.imported, given.import_trace)
        sentence = f"{counted(came.cells, 'cell')} put into {escape(given.file)}, {counted(came.members, 'name')} of"
        console().print(f"{sentence} problems and series with them. What was there stayed.", soft_wrap=True)
        return
    if given.repair:
        kept, saved = repair(given.file)
        sentence = f"{escape(given.file)} is repaired: {saved}. The damaged file is {escape(str(kept))}."
        console().print(sentence, soft_wrap=True)
        return
    wanted = _filter(given.which)
    with Store(given.file, read_only=True) as store:
        frame = store.frame()
        rows = wanted.select(frame)
        points = _trace_of(store.trace(), rows)
        _tell(given.file, store.saved)
    if given.forget:
        with Store(given.file) as store:
            number = store.forget(rows.loc[rows["status"].notna(), "key"])
        sentence = f"{counted(number, 'cell')} deleted from {escape(given.file)}: run their study again."
        console().print(sentence, soft_wrap=True)
        return
    if given.export is not None:
        export.write(points if given.trace else rows, given.export)
    if given.json:
        typer.echo(json_text({"store": given.file, "rows": _plain(rows)}))
    elif given.export is not None:
        written = len(points) if given.trace else len(rows)
        console().print(f"{counted(written, 'row')} written to {escape(given.export)}.", soft_wrap=True)
    else:
        _show(given.file, rows, len(frame), given.limit)


def report(given: ReportOptions) -> None:
    """Write the page."""
    with Store(given.file, read_only=True) as store:
        page = pages.write_report(store, given.out)
        _tell(given.file, store.saved)
    console().print(f"Written: {escape(str(page))}, rows.csv and trace.csv.", soft_wrap=True)


def plot(given: PlotOptions) -> None:
    """Draw the picture."""
    check_format(given.out)
    with Store(given.file, read_only=True) as store:
        figure = pages.plot(store, given.kind, wanted=_filter(given.which))
        _tell(given.file, store.saved)
    with writing(given.out) as path:
        save(figure, path)


def _tell(file: str, saved: Saved | None) -> None:
    """Say so if what was read is only a part of what was there."""
    if saved is not None:
        note(f"{file} is damaged; {saved}, and these alone are used. lipcompare results {file} --repair keeps them.")


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


def _filter(which: Which) -> Filter:
    """The filter of the command line, where statuses may be written with spaces as they are shown."""
    words = tuple(text.replace(" ", "_") for text in which.status or ())
    return Filter(tuple(which.study or ()), tuple(which.task or ()), tuple(which.method or ()), words)


def _check(given: ResultsOptions) -> None:
    """Options that do not go together, before anything is read."""
    if given.limit < 0:
        raise InvalidInput("--limit cannot be negative; 0 shows all rows.")
    if given.trace and given.export is None:
        raise InvalidInput("--trace goes with --export FILE; lipcompare plot --kind traces draws traces.")
    if given.export is not None:
        export.check_format(given.export)
    if given.forget and _filter(given.which) == Filter():
        raise InvalidInput("--forget needs --study, --task, --method or --status; delete the file for all.")
    alone = not (given.forget or given.export is not None or given.json or _filter(given.which) != Filter())
    if given.repair and not (alone and given.imported is None):
        raise InvalidInput("--repair goes alone: list, export or forget afterwards.")
    if given.imported is not None and not alone:
        raise InvalidInput("--import goes alone: list, export or forget afterwards.")
    if given.import_trace is not None and given.imported is None:
        raise InvalidInput("--import-trace goes with --import FILE: traces belong to rows.")
    if given.forget and given.export is not None:
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
    for study, cells in rows.groupby("study", sort=False):
        done = cells["status"].notna()
        counts = (cells["task"].nunique(), cells["series"].nunique(), len(cells), int(done.sum()))
        table.add_row(escape(str(study)), *map(str, counts), duration(float(cells.loc[done, "seconds"].sum())))
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
    gap = (high - low) / high if low > 0 and high > 0 else math.nan
    return (
        "0" if high == 0 else lower_text(low),
        upper_text(high),
        gap_text(0.0 if high == 0 else gap),
        seconds_text(float(row["seconds"])),
    )
