"""One self-contained HTML page about a results store: what ran where, tables, pictures, statuses, the rows as files."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from lipcompare.budget import duration
from lipcompare.certificates import checked
from lipcompare.display.frames import two_digits
from lipcompare.display.style import ordered, style
from lipcompare.errors import InvalidInput, nearest
from lipcompare.report.facts import contradictions, distinct
from lipcompare.report.figures.store import over_time, pareto, profile, statuses, sweep, values
from lipcompare.report.tables import Table, by_group
from lipcompare.report.templating import render
from lipcompare.result import interval_text
from lipcompare.rounding import lower_text, upper_text
from lipcompare.store import export
from lipcompare.store.database import Store, certificate_file, certificates_of
from lipcompare.store.filter import Filter
from lipcompare.store.schema import in_words

PLOTS = ("values", "sweep", "pareto", "profile", "traces", "statuses")
_AXES = ("width", "depth", "eps", "layers", "size")
_MOST_GROUPS = 8
_MOST_ROWS = 400
_ROOM = 1e-5
"""What a certificate may prove less than its row says and still be a proof of it: a tree's multipliers are rounded."""


@dataclasses.dataclass(frozen=True)
class Listing:
    """A plain table of a page.

    Attributes:
        kinds: of every column the class of its cells: a number, ``text`` in one line, or ``wrap`` for long text.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[object]]
    kinds: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure inside a page, or why there is none.

    Attributes:
        svg: in base64.
    """

    title: str
    svg: str = ""
    missing: str = ""

    @classmethod
    def of(cls, title: str, draw: Callable[[], Figure]) -> Picture:
        try:
            with style():
                out = io.BytesIO()
                draw().savefig(out, format="svg", metadata={"Date": None})
        except InvalidInput as error:
            return cls(title, missing=str(error))
        return cls(title, base64.b64encode(out.getvalue()).decode())


@dataclasses.dataclass(frozen=True)
class Section:
    """What a page says of one study."""

    name: str
    summary: str
    finished: int
    tables: Sequence[Table]
    pictures: Sequence[Picture]
    troubles: Listing
    cells: Listing


def write_report(store: Store, out: str | Path) -> Path:
    """Write ``index.html`` and the raw rows (``rows.csv``, ``trace.csv``) into a folder; the page's path.

    Raises:
        StoreError: the store cannot be read, or the folder not be written.
        InvalidInput: the store has no study.
    """
    folder = Path(out)
    frame, trace = store.frame(), store.trace()
    if frame.empty:
        raise InvalidInput(f"{store.path} has no study to report on: run one first.")
    damage = "" if store.saved is None else f"The store is damaged; {store.saved}, and these alone are shown."
    with in_words(folder):
        folder.mkdir(parents=True, exist_ok=True)
        export.write(frame, folder / "rows.csv")
        export.write(trace, folder / "trace.csv")
        page = folder / "index.html"
        frame = frame.assign(verified=_verified(frame, certificates_of(store.path)))
        page.write_text(_page(store.path.name, frame, trace, damage), encoding="utf-8")
    return page


def plot(store: Store, kind: str, *, wanted: Filter = Filter()) -> Figure:
    """One picture of a store.

    Args:
        kind: one of ``PLOTS``.
        wanted: the cells to draw.

    Raises:
        InvalidInput: an unknown kind, or nothing to draw.
    """
    if kind not in PLOTS:
        raise InvalidInput(f"Unknown plot {kind!r}.{nearest(kind, PLOTS)}")
    frame, trace = wanted.select(store.frame()), store.trace()
    if frame.empty:
        raise InvalidInput(f"No cell of {store.path} is such: drop a condition, or run a study first.")
    trace = trace.merge(frame[["study", "task", "series"]], on=["study", "task", "series"])
    with style():
        if kind == "statuses":
            return statuses(frame)
        frame = frame[frame["status"].notna()]
        if kind == "values":
            return values(frame)
        if kind == "pareto":
            return pareto(frame)
        if kind == "profile":
            return profile(frame, trace)
        if kind == "traces":
            return over_time(_richest(trace, 3), frame)
        drawn = next(_sweeps(frame), None)
    if drawn is None:
        raise InvalidInput(f"Nothing varies along one of {', '.join(_AXES)}: there is no sweep to draw.")
    return drawn[1]


def _page(name: str, frame: pd.DataFrame, trace: pd.DataFrame, damage: str) -> str:
    studies = list(dict.fromkeys(frame["study"]))
    wrong = contradictions(frame)
    return render(
        "page.html",
        name=name,
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        progress=_progress(frame),
        contradicted=len(wrong),
        consistency=_consistency(wrong),
        damage=damage,
        origins=_origins(frame),
        overall=_overall(frame, trace),
        studies=[_study(s, frame[frame["study"] == s], trace[trace["study"] == s]) for s in studies],
    )


def _verified(frame: pd.DataFrame, folder: Path) -> list[str]:
    """What ``lipverify`` says now of the certificate of every row, in a word or two; nothing where there is none."""
    words: dict[str, str] = {}
    for row in frame[frame["status"].notna()].itertuples():
        path = certificate_file(folder, row.key)
        if row.key in words or not path.exists():
            continue
        found = checked(path)
        if found is None:
            words[row.key] = "not checked: lipverify is not installed"
        elif found.failures:
            words[row.key] = "REFUSED"
        else:
            lower, upper = max(found.lower), max(found.upper)
            # A row without an end has NaN there, which nothing is below or above.
            whole = not lower < row.lower * (1 - _ROOM) and not upper > row.upper * (1 + _ROOM)
            words[row.key] = "verified" if whole else f"verified {interval_text(lower, upper)}"
    return [words.get(key, "") for key in frame["key"]]


def _progress(frame: pd.DataFrame) -> str:
    done = int(frame["status"].notna().sum())
    seconds = frame["seconds"].sum()
    return (
        f"{_count(frame['study'].nunique(), 'study', 'studies')}, {_count(len(frame), 'cell', 'cells')}, "
        f"{done} of them finished; {duration(seconds)} of computing."
    )


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _consistency(wrong: pd.DataFrame) -> str:
    """Whether the methods agree: every upper bound against the largest lower bound on the same problem."""
    if wrong.empty:
        return "On every problem all upper bounds are above all lower bounds."
    names = ", ".join(f"{r.series} on {r.study} {r.task}" for r in wrong.head(5).itertuples())
    contradict = _count(len(wrong), "upper bound contradicts", "upper bounds contradict")
    return f"{contradict} a lower bound, which is a bug: {names}"


def _origins(frame: pd.DataFrame) -> Listing:
    """A line per distinct machine and set of versions."""
    columns = ["platform", "cpu", "gpu", "device", "dtype", "threads", "versions", "revision"]
    lines = []
    for key, rows in frame[frame["status"].notna()].groupby(columns, sort=False):
        platform, cpu, gpu, device, dtype, threads, versions, revision = key
        packages = ", ".join(f"{k} {v}" for k, v in json.loads(str(versions)).items())
        commit = str(revision)[:12] or "-"
        lines.append([platform, cpu, gpu or "-", device, dtype, f"{threads:g}", packages, commit, len(rows)])
    heads = ["system", "processor", "GPU", "device", "precision", "threads", "packages", "revision", "cells"]
    kinds = ["wrap" if head == "packages" else "text" for head in heads]
    return Listing(heads, lines, kinds)


def _overall(frame: pd.DataFrame, trace: pd.DataFrame) -> list[Picture]:
    done = distinct(frame[frame["status"].notna()])
    # The variants of a single study would crowd the pictures of all; problems that few methods met would bend shares.
    counts = done["series"].value_counts()
    done = done[done["series"].isin(counts[counts >= counts.max() / 2].index)]
    methods = done.groupby("problem_hash")["series"].transform("nunique")
    done = done[methods >= methods.max() / 2]
    traces = trace.merge(done[["study", "task", "series"]], on=["study", "task", "series"])
    return [
        Picture.of("How the cells of each method ended", lambda: statuses(frame)),
        Picture.of("Tightness against time", lambda: pareto(done)),
        Picture.of("Share of problems solved to a gap, against time", lambda: profile(done, traces)),
    ]


def _study(name: str, frame: pd.DataFrame, trace: pd.DataFrame) -> Section:
    done = frame[frame["status"].notna()]
    limits = ", ".join(f"{v:g} s" for v in sorted(done["time_limit"].unique()))
    # A network has one name per study, though another study may have computed the cell under another name.
    models = ", ".join(dict.fromkeys(map(str, done.get("label.model", done["network"]))))
    summary = (
        f"{_count(done['problem_hash'].nunique(), 'problem', 'problems')} on {models}; "
        f"{_count(frame['series'].nunique(), 'method', 'methods')}; time limit {limits}. "
        f"{len(done)} of {len(frame)} cells finished."
    )
    if done.empty:
        summary = f"None of {_count(len(frame), 'cell', 'cells')} finished."
        return Section(
            name=name, summary=summary, finished=0, tables=[], pictures=[], troubles=_troubles(done), cells=_cells(done)
        )
    pictures = [Picture.of(title, lambda figure=figure: figure) for title, figure in _drawn(done)]  # type: ignore[misc]  # bound now
    rich = _richest(trace, 3)
    if not rich.empty:
        pictures.append(Picture.of("Interval over time", lambda: over_time(rich, done)))
    tables = [by_group(done, group, "Value and time per method", heading=heading) for group, heading in _groups(done)]
    return Section(
        name=name,
        summary=summary,
        finished=len(done),
        tables=tables,
        pictures=pictures,
        troubles=_troubles(done),
        cells=_cells(done),
    )


def _groups(frame: pd.DataFrame) -> Iterator[tuple[list[str], str]]:
    """By which labels to group a table: those that vary, examples aside."""
    labels = [c for c in frame.columns if c.startswith("label.") and c not in ("label.example", "label.accuracy")]
    varying = [c for c in labels if frame[c].notna().all() and frame[c].nunique() > 1]
    # Of labels that vary together one is enough.
    grouping: list[str] = []
    for c in varying:
        if not grouping or frame.groupby(grouping)[c].nunique().max() > 1:
            grouping.append(c)
    if not grouping:
        grouping = ["network"]
    if frame.groupby(grouping).ngroups <= _MOST_GROUPS:
        yield grouping, ", ".join(f"{c.removeprefix('label.')} {{}}" for c in grouping)
        return
    yield [grouping[0]], f"{grouping[0].removeprefix('label.')} {{}}"


def _sweeps(frame: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """A sweep along the first numeric label that varies, for every value of the others."""
    for axis in _AXES:
        column = f"label.{axis}"
        if column not in frame or frame[column].isna().any() or frame[column].nunique() < 2:
            continue
        others = [
            f"label.{o}" for o in _AXES
            if o != axis and f"label.{o}" in frame and frame[f"label.{o}"].nunique() > 1
        ]  # fmt: skip
        if others and frame.groupby(others[0])[column].nunique().max() < 2:
            continue
        groups = frame.groupby(others) if others else [((), frame)]
        for key, rows in groups:
            values = key if isinstance(key, tuple) else (key,)
            title = ", ".join(f"{o.removeprefix('label.')} {v:g}" for o, v in zip(others, values, strict=True))
            yield title or f"by {axis}", sweep(rows, column, axis, title=title)
        return


def _drawn(frame: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    with style():
        try:
            yield from _sweeps(frame)
        except InvalidInput:  # nothing was proved in some group
            return


def _richest(trace: pd.DataFrame, count: int) -> pd.DataFrame:
    """The traces of the tasks that have the most points on the way, where there are any."""
    sizes = trace.groupby(["study", "task", "series"]).size()
    several = sizes[sizes > 2].groupby(["study", "task"]).sum().sort_values(ascending=False)
    return trace.merge(several.head(count).reset_index()[["study", "task"]], on=["study", "task"])


def _troubles(frame: pd.DataFrame) -> Listing:
    """What did not go well, one line per series and sentence; what several sentences share where counts differ."""
    bad = frame[~frame["status"].isin(["complete", "exact"])]
    bad = bad.assign(why=bad["message"].str.replace(r" \d+ [\w ]+(, \d+ [\w ]+)*\.$", "", regex=True))
    lines = []
    for series in ordered(list(bad["series"])):
        for (status, why), rows in bad[bad["series"] == series].groupby(["status", "why"], sort=False):
            message = rows["message"].iloc[0] if len(rows) == 1 else why
            lines.append([series, str(status).replace("_", " "), len(rows), message])
    return Listing(["method", "status", "cells", "why"], lines, ["text", "text", "", "wrap"])


def _cells(frame: pd.DataFrame) -> Listing:
    """The cells, the first of them if they are very many."""
    lines = [
        [
            r.task, r.series, lower_text(r.lower), upper_text(r.upper), two_digits(r.seconds),
            r.status.replace("_", " "), r.verified,
        ]
        for r in frame.head(_MOST_ROWS).itertuples()
    ]  # fmt: skip
    heads = ["problem", "method", "at least", "at most", "seconds", "status", "certificate"]
    return Listing(heads, lines, ["text", "text", "", "", "", "text", "text"])
