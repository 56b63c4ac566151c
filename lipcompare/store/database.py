"""The results store: one SQLite file with a row per cell and per trace point, safe to kill and to share.

A *cell* is one question put to one method with one set of options and limits; its key is a hash of all that, so a cell
is computed once, however many studies ask for it. *Members* say which cells make up a study and what they are called
there. The store knows nothing of methods: it takes and gives plain values.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lipcompare.budget import TracePoint
from lipcompare.result import Status, proved
from lipcompare.store.repair import JSON, REAL, Saved, salvage
from lipcompare.store.schema import DamagedStore, StoreError, connect, damage_sentence, in_words, transaction

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Member", "Origin", "Record", "Store", "StoreError"]

Label = str | int | float | bool

_AGAIN = frozenset({Status.UNAVAILABLE.name.lower(), Status.INTERRUPTED.name.lower()})
"""Statuses that say nothing about the cell, only about the moment: a later run tries again."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a result was computed.

    Attributes:
        versions: of the packages that took part.
        revision: of the git checkout that the code ran from, or nothing.
        cpu, gpu, platform: the machine in words.
    """

    versions: Mapping[str, str]
    revision: str = ""
    cpu: str = ""
    gpu: str = ""
    platform: str = ""


@dataclasses.dataclass(frozen=True)
class Record:
    """A finished cell: the question, the limits, the answer and its origin, in plain values."""

    key: str
    network: str
    network_hash: str
    problem_hash: str
    inputs: int
    outputs: int
    neurons: int
    radius: float
    norm: str
    method: str
    options: Mapping[str, Any]
    lower: float
    upper: float
    rows_lower: Sequence[float]
    rows_upper: Sequence[float]
    proves: str
    status: str
    message: str
    seconds: float
    time_limit: float
    memory_limit: int
    gap: float
    seed: int
    threads: int
    device: str
    dtype: str
    origin: Origin
    finished: str
    trace: Sequence[TracePoint] = ()


@dataclasses.dataclass(frozen=True)
class Member:
    """A cell's place in a study.

    Attributes:
        task: name of the question, unique within the study.
        series: what the method with these options is called in tables and figures.
        key: of the cell.
        problem: hash of the question.
        labels: further names and numbers to group and plot by: model, width, eps, example, ...
    """

    task: str
    series: str
    key: str
    problem: str
    labels: Mapping[str, Label]


def certificates_of(store: str | Path) -> Path:
    """The folder of the certificates of a store's rows."""
    path = Path(store)
    return path.with_name(f"{path.name}.certificates")


def certificate_file(folder: Path, key: str) -> Path:
    """The certificate of a row, if there is one."""
    return folder / f"{key}.npz"


class Store:
    """An open results store; a context manager. One object belongs to one thread.

    Of a damaged store that is only read, the rows that are whole are given.

    Attributes:
        saved: how much of a damaged store is whole; None unless it is damaged.

    Raises:
        StoreError: from any method, when the file cannot be read or written. A write is all or nothing.
    """

    def __init__(self, path: str | Path, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self._read_only = read_only
        self._connection = connect(self.path, read_only=read_only)
        self.saved: Saved | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def declare(self, study: str, members: Iterable[Member]) -> None:
        """Say what a study is made of.

        A member takes the place of one of the same task and series. Others stay, unless the task's name now stands for
        another question: two questions never mix under one name.
        """
        rows = [
            (study, m.task, m.series, position, m.key, _json(m.labels), m.problem) for position, m in enumerate(members)
        ]
        questions = {(study, row[1], row[6]) for row in rows}
        insert = "INSERT OR REPLACE INTO members (study, task, series, position, key, labels, problem) VALUES "
        with in_words(self.path), transaction(self._connection):
            self._connection.executemany("DELETE FROM members WHERE study = ? AND task = ? AND problem != ?", questions)
            self._connection.executemany(insert + "(?, ?, ?, ?, ?, ?, ?)", rows)

    def done(self) -> set[str]:
        """Keys of the cells that need no further run."""
        with in_words(self.path):
            rows = self._connection.execute("SELECT key, status FROM cells")
            return {row["key"] for row in rows if row["status"] not in _AGAIN}

    def put(self, record: Record) -> None:
        """Keep a finished cell. Where two writers finished the same one, the first stays."""
        values = _columns(record)
        names = ", ".join(values)
        slots = ", ".join("?" * len(values))
        with in_words(self.path), transaction(self._connection):
            old = self._connection.execute("SELECT status FROM cells WHERE key = ?", (record.key,)).fetchone()
            if old is not None and old["status"] not in _AGAIN:
                return
            self._connection.execute("DELETE FROM cells WHERE key = ?", (record.key,))  # and its trace with it
            self._connection.execute(f"INSERT INTO cells ({names}) VALUES ({slots})", tuple(values.values()))  # noqa: S608  # the names are a dataclass's own
            self._connection.executemany(
                "INSERT INTO trace VALUES (?, ?, ?, ?, ?)",
                [(record.key, step, *map(float, point)) for step, point in enumerate(record.trace)],
            )

    def forget(self, keys: Iterable[str]) -> int:
        """Delete cells with their traces, so that the next run computes them again; how many."""
        with in_words(self.path), transaction(self._connection):
            wanted = [(key,) for key in dict.fromkeys(keys)]
            return self._connection.executemany("DELETE FROM cells WHERE key = ?", wanted).rowcount

    def studies(self) -> pd.DataFrame:
        """Per study: cells, and how many of them are finished."""
        return self._frame(
            "SELECT m.study, count(*) AS cells, count(c.key) AS finished, sum(c.seconds) AS seconds "
            "FROM members m LEFT JOIN cells c USING (key) GROUP BY m.study ORDER BY m.study"
        )

    def frame(self, study: str | None = None, *, labels: bool = True) -> pd.DataFrame:
        """A row per member of a study (of all studies if None), in order; unfinished cells have no status.

        Columns: study, task, series, those of :class:`Record` but the trace and the rows (the origin's fields by
        themselves, options and versions as JSON), and with ``labels`` a column ``label.NAME`` per label. An end that is
        not proved is NaN.
        """
        frame = self._frame(
            "SELECT m.study, m.task, m.series, m.position, m.labels, m.key AS cell, c.* FROM members m "
            "LEFT JOIN cells c USING (key) WHERE ? IS NULL OR m.study = ? ORDER BY m.study, m.position",
            (study, study),
        )
        frame = frame.drop(columns=["key", "position"]).rename(columns={"cell": "key"})
        given = [json.loads(text) for text in frame.pop("labels")]
        if labels and given:
            import pandas as pd

            extra = pd.DataFrame(given, index=frame.index)
            frame = frame.join(extra.rename(columns="label.{}".format))
        return frame

    def places(self) -> dict[tuple[str, str], tuple[str, set[str]]]:
        """By study and task: the hash of the question, and the series that there are."""
        found: dict[tuple[str, str], tuple[str, set[str]]] = {}
        with in_words(self.path):
            for row in self._connection.execute("SELECT study, task, series, problem FROM members"):
                found.setdefault((row["study"], row["task"]), (row["problem"], set()))[1].add(row["series"])
        return found

    def rows(self, study: str) -> pd.DataFrame:
        """A row per finished member and functional: task, series, row, lower, upper."""
        frame = self._frame(
            "SELECT m.task, m.series, c.rows_lower, c.rows_upper FROM members m "
            "JOIN cells c USING (key) WHERE m.study = ? ORDER BY m.position",
            (study,),
        )
        frame = frame.rename(columns={"rows_lower": "lower", "rows_upper": "upper"})
        for end in ("lower", "upper"):
            frame[end] = [[math.inf if v is None else float(v) for v in json.loads(text)] for text in frame[end]]
        frame["row"] = [list(range(len(values))) for values in frame["lower"]]
        frame = frame.explode(["row", "lower", "upper"], ignore_index=True)
        frame = frame.astype({"row": int, "lower": float, "upper": float})
        lower, upper = proved(frame["lower"].to_numpy(), frame["upper"].to_numpy())
        return frame.assign(lower=lower, upper=upper)

    def trace(self, study: str | None = None) -> pd.DataFrame:
        """A row per trace point of the members of a study: study, task, series, step, seconds, lower, upper."""
        return self._frame(
            "SELECT m.study, m.task, m.series, t.step, t.seconds, t.lower, t.upper FROM members m "
            "JOIN trace t USING (key) WHERE ? IS NULL OR m.study = ? ORDER BY m.study, m.position, t.step",
            (study, study),
        )

    def _frame(self, query: str, values: Sequence[object] = ()) -> pd.DataFrame:
        """The rows of a query, whole ones alone if the store turns out to be damaged."""
        try:
            return self._rows(query, values)
        except DamagedStore:
            if not self._read_only or self.saved is not None:
                raise
            whole, self.saved = salvage(self.path)
            self._connection.close()
            self._connection = whole
            return self._rows(query, values)

    def _rows(self, query: str, values: Sequence[object]) -> pd.DataFrame:
        import pandas as pd  # a worker process, which only writes, does without

        with in_words(self.path):
            cursor = self._connection.execute(query, values)
            columns = [column[0] for column in cursor.description]
            frame = pd.DataFrame([tuple(row) for row in cursor], columns=columns)
        try:
            for name in ("labels", *JSON):
                for text in frame[name].dropna().unique() if name in frame else ():
                    json.loads(text)
            # Where no cell is finished the numbers would be None.
            frame = frame.astype({name: float for name in REAL if name in frame})
        except (TypeError, ValueError) as error:
            raise DamagedStore(damage_sentence(self.path, str(error))) from error
        if "lower" in frame and "upper" in frame:
            lower, upper = proved(frame["lower"].to_numpy(), frame["upper"].to_numpy())
            frame = frame.assign(lower=lower, upper=upper)
        return frame


def _columns(record: Record) -> dict[str, Any]:
    """The record as columns of the table ``cells``."""
    values = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    del values["trace"]
    origin = values.pop("origin")
    values |= {f.name: getattr(origin, f.name) for f in dataclasses.fields(origin)}
    for name in ("options", "versions", "rows_lower", "rows_upper"):
        values[name] = _json(values[name])
    return values


def _json(value: object) -> str:
    """Strict JSON: an infinite number becomes null."""
    if isinstance(value, Mapping):
        return json.dumps(dict(value), sort_keys=True, allow_nan=False)
    assert isinstance(value, Sequence)
    return json.dumps([v if math.isfinite(v) else None for v in value], allow_nan=False)
