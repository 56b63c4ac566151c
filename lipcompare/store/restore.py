"""Rows and traces that were exported, back into a store: a published study goes on where it ended."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lipcompare.budget import TracePoint
from lipcompare.errors import InvalidInput
from lipcompare.store.database import Label, Member, Origin, Record, Store
from lipcompare.store.export import FORMATS, csv_text
from lipcompare.store.repair import JSON, REAL

_PLACE = ("study", "task", "series")
_POINT = ("seconds", "lower", "upper")
_LABEL = "label."
_WHOLE = frozenset(field.name for field in dataclasses.fields(Record) if field.type == "int")
_ORIGIN = tuple(field.name for field in dataclasses.fields(Origin))
_RECORD = tuple(field.name for field in dataclasses.fields(Record) if field.name not in ("origin", "trace"))


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a file brought that the store did not have: places in studies, and finished cells."""

    members: int
    cells: int


def restore(store: Store, rows: str | Path, trace: str | Path | None = None) -> Restored:
    """Put the rows of an exported file into a store. What it has already stays as it is, also where it means another
    question by the same name.

    A file knows no types of labels: one that reads as a number is a number until the study runs again.

    Args:
        rows: what ``lipcompare results --export`` or ``python -m figures.record`` wrote, of one study or several.
        trace: what ``--trace --export`` wrote of the same studies; without it the cells have no traces.

    Raises:
        InvalidInput: no such file, or not one of these.
        StoreError: the store cannot be written.
    """
    frame = _read(rows, (*_PLACE, *_RECORD, *_ORIGIN), "rows")
    points = _points(trace) if trace is not None else {}
    given = frame.to_dict("records")
    finished = [row for row in given if not pd.isna(row["status"])]
    if not finished:
        raise InvalidInput(f"{rows} has no finished row.")
    questions = {(row["study"], row["task"]): str(row["problem_hash"]) for row in finished}
    try:
        cells = [_record(row, points) for row in finished]
        # What no finished row tells is told by the study, when it runs again.
        members = [(str(row["study"]), _member(row, questions.get((row["study"], row["task"]), ""))) for row in given]
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{rows} has a row that is not what was exported ({error}).") from error
    return _keep(store, cells, members)


def _keep(store: Store, cells: list[Record], members: list[tuple[str, Member]]) -> Restored:
    """What the store lacks: a study that ran on since the export keeps its newer places and cells."""
    known, there = store.done(), store.places()
    lacking = []
    for study, member in members:
        problem, series = there.get((study, member.task), (member.problem, set[str]()))
        if problem == member.problem and member.series not in series:
            lacking.append((study, member))
    for study in dict.fromkeys(name for name, _ in lacking):
        store.declare(study, [member for name, member in lacking if name == study])
    new = {cell.key: cell for cell in cells if cell.key not in known}
    for cell in new.values():
        store.put(cell)
    return Restored(len(lacking), len(new))


def _read(path: str | Path, columns: tuple[str, ...], what: str) -> pd.DataFrame:
    """An exported file as a frame, with the texts that were exported."""
    path = Path(path)
    if path.suffix not in FORMATS:
        raise InvalidInput(f"Cannot import {path}: the file's ending must be .csv or .parquet.")
    try:
        if path.suffix == ".csv":
            # The texts of a file are texts: "NA" and "nan" may be names. Numbers round as they were written.
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_values={})
            frame = frame.replace({"": None}).map(csv_text)
        else:
            frame = pd.read_parquet(path, engine="pyarrow")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror or error}).") from error
    except (ValueError, ImportError) as error:  # pandas' own errors of parsing are ValueErrors
        raise InvalidInput(f"{path} is not an exported file of {what} ({error}).") from error
    missing = [name for name in columns if name not in frame]
    if missing:
        raise InvalidInput(f"{path} is not an exported file of {what}: it has no column {', '.join(missing)}.")
    return frame


def _points(path: str | Path) -> dict[tuple[str, ...], list[TracePoint]]:
    """The points of each cell's trace, by its place."""
    frame = _read(path, (*_PLACE, "step", *_POINT), "traces")
    try:
        frame = frame.astype({"step": int})
        grouped = frame.sort_values("step", kind="stable").groupby(list(_PLACE), sort=False)
        return {
            tuple(map(str, place)): [TracePoint(*point) for point in _ends(group).itertuples(index=False)]
            for place, group in grouped
        }
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{path} has a point that is not what was exported ({error}).") from error


def _ends(group: pd.DataFrame) -> pd.DataFrame:
    """Seconds and ends as numbers; an end that is not proved is the trivial one."""
    return group[list(_POINT)].astype(float).fillna({"lower": 0.0, "upper": math.inf})


def _record(row: Mapping[Any, Any], points: Mapping[tuple[str, ...], list[TracePoint]]) -> Record:
    values: dict[str, Any] = {}
    for name in (*_RECORD, *_ORIGIN):
        values[name] = _value(name, row[name])
    # An end that is not proved is missing in a file, and the trivial one in the store.
    values["lower"] = 0.0 if math.isnan(values["lower"]) else values["lower"]
    values["upper"] = math.inf if math.isnan(values["upper"]) else values["upper"]
    for name in ("rows_lower", "rows_upper"):
        values[name] = [math.inf if end is None else float(end) for end in values[name]]
    origin = Origin(**{name: values.pop(name) for name in _ORIGIN})
    trace = points.get(tuple(str(row[name]) for name in _PLACE), ())
    return Record(**values, origin=origin, trace=trace)


def _value(name: str, value: Any) -> Any:
    if name in JSON:
        return json.loads(value)
    if name in _WHOLE:
        return int(float(value))
    if name in REAL:
        return math.nan if pd.isna(value) else float(value)
    return "" if pd.isna(value) else str(value)


def _member(row: Mapping[Any, Any], problem: str) -> Member:
    labels = {
        str(name).removeprefix(_LABEL): _label(value)
        for name, value in row.items()
        if str(name).startswith(_LABEL) and not pd.isna(value)
    }
    return Member(str(row["task"]), str(row["series"]), str(row["key"]), problem, labels)


def _label(value: Label) -> Label:
    """A label of a file: a number where it reads as one."""
    if not isinstance(value, str):
        return value
    if value in ("True", "False"):
        return value == "True"
    try:
        number = float(value)
    except ValueError:
        return value
    return int(number) if number.is_integer() else number
