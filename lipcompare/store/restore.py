"""Rows and traces that were exported, back into a store: a published study goes on where it ended."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lipcompare.budget import TracePoint
from lipcompare.errors import InvalidInput
from lipcompare.store.database import Member, Origin, Record, Store
from lipcompare.store.export import FORMATS, csv_text

if TYPE_CHECKING:
    import pandas as pd

_PLACE = ("study", "task", "series")
_POINT = ("seconds", "lower", "upper")
_LABEL = "label."
_JSON = ("options", "versions", "rows_lower", "rows_upper")
_WHOLE = frozenset({"inputs", "outputs", "neurons", "memory_limit", "seed", "threads"})
_REAL = frozenset({"radius", "lower", "upper", "seconds", "time_limit", "gap"})
_ORIGIN = tuple(field.name for field in dataclasses.fields(Origin))
_RECORD = tuple(field.name for field in dataclasses.fields(Record) if field.name not in ("origin", "trace"))


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a file brought: places in studies, and the finished cells among them that the store did not have."""

    members: int
    cells: int


def restore(store: Store, rows: str | Path, trace: str | Path | None = None) -> Restored:
    """Put the finished rows of an exported file into a store; cells that it has already stay as they are.

    Rows of cells that were never finished are left out: the study itself says what belongs to it when it runs again. A
    file knows no types of labels: one that reads as a number is a number until then.

    Args:
        rows: what ``lipcompare results --export`` or ``python -m figures.record`` wrote, of one study or several.
        trace: what ``--trace --export`` wrote of the same studies; without it the cells have no traces.

    Raises:
        InvalidInput: no such file, or not one of these.
        StoreError: the store cannot be written.
    """
    frame = _read(rows, (*_PLACE, *_RECORD, *_ORIGIN), "rows")
    points = _points(trace) if trace is not None else {}
    finished = frame[frame["status"].notna()]
    if finished.empty:
        raise InvalidInput(f"{rows} has no finished row.")
    try:
        cells = [_record(row, points) for row in finished.to_dict("records")]
        members = [(str(row["study"]), _member(row)) for row in finished.to_dict("records")]
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{rows} has a row that is not what was exported ({error}).") from error
    return _keep(store, cells, members)


def _keep(store: Store, cells: list[Record], members: list[tuple[str, Member]]) -> Restored:
    """What the store lacks: a study that ran on since the export keeps its newer places and cells."""
    known = store.done()
    there = set(store.frame(labels=False)[list(_PLACE)].itertuples(index=False, name=None))
    missing = [(study, member) for study, member in members if (study, member.task, member.series) not in there]
    for study in dict.fromkeys(name for name, _ in missing):
        store.declare(study, [member for name, member in missing if name == study])
    new = {cell.key: cell for cell in cells if cell.key not in known}
    for cell in new.values():
        store.put(cell)
    return Restored(len(missing), len(new))


def _read(path: str | Path, columns: tuple[str, ...], what: str) -> pd.DataFrame:
    """An exported file as a frame, with the texts that were exported."""
    import pandas as pd

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
    missing = value is None or value != value  # a missing text, or NaN
    if name in _JSON:
        return json.loads(value)
    if name in _WHOLE:
        return int(float(value))
    if name in _REAL:
        return math.nan if missing else float(value)
    return "" if missing else str(value)


def _member(row: Mapping[Any, Any]) -> Member:
    labels = {
        str(name).removeprefix(_LABEL): _label(value)
        for name, value in row.items()
        if str(name).startswith(_LABEL) and value is not None and value == value
    }
    return Member(
        str(row["task"]), str(row["series"]), str(row["key"]), labels=labels, problem=str(row["problem_hash"])
    )


def _label(value: Any) -> str | int | float | bool:
    """A label of a file: a number where it reads as one."""
    if not isinstance(value, str):
        return value if isinstance(value, (bool, int, float)) else value.item()
    if value in ("True", "False"):
        return value == "True"
    try:
        number = float(value)
    except ValueError:
        return value
    return int(number) if number.is_integer() else number
