"""One self-contained HTML page about a results store: what ran where, tables, pictures, statuses, the rows as files."""

from __future__ import annotations

import base64
import datetime
import html
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from lipcompare.budget import duration
from lipcompare.errors import InvalidInput, nearest
from lipcompare.report.figures.store import (
    contradictions,
    distinct,
    over_time,
    pareto,
    profile,
    statuses,
    sweep,
    values,
)
from lipcompare.report.style import ordered, style
from lipcompare.report.tables import by_group
from lipcompare.rounding import lower_text, upper_text
from lipcompare.store import export
from lipcompare.store.database import Store
from lipcompare.store.filter import Filter
from lipcompare.store.schema import in_words

PLOTS = ("values", "sweep", "pareto", "profile", "traces", "statuses")
_AXES = ("width", "depth", "eps", "layers", "size")
_MOST_GROUPS = 8
_MOST_ROWS = 400

_CSS = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:72rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.25rem;border-bottom:1px solid #ccc;margin-top:2.5rem}h3{font-size:1.05rem}
table{border-collapse:collapse;font-size:13px;margin:1rem 0;font-variant-numeric:tabular-nums}
.caption{font-weight:600;margin:1rem 0 0}th,td{padding:.15rem .6rem;text-align:right;white-space:nowrap}
th[scope=row],th.corner,td.text,th.text{text-align:left}td.wrap{white-space:normal;text-align:left;min-width:22rem}
th.group{text-align:center}td.packages{white-space:normal;text-align:left;min-width:18rem}
thead tr:last-child{border-bottom:1px solid #888}thead tr:first-child{border-top:2px solid #444}
tbody tr:nth-child(even){background:#f5f5f5}.scroll{overflow-x:auto}.note{font-size:13px;color:#555}
img{max-width:100%;height:auto}nav a{margin-right:1rem}summary{cursor:pointer}
"""


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
    links = " ".join(f'<a href="#{html.escape(s)}">{html.escape(s)}</a>' for s in studies)
    made = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    sections = "".join(_study(s, frame[frame["study"] == s], trace[trace["study"] == s]) for s in studies)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>lipcompare: {html.escape(name)}</title><style>{_CSS}</style></head><body>"
        f"<h1>Local Lipschitz constants: {html.escape(name)}</h1>"
        f"<p>{_progress(frame)} Written {made}. Raw data: <a href='rows.csv'>rows.csv</a> (a row per cell), "
        f"<a href='trace.csv'>trace.csv</a> (a row per point of an interval over time).</p><nav>{links}</nav>"
        f"<p>{_consistency(frame)}</p><p>{html.escape(damage)}</p>"
        f"<h2>Where it ran</h2>{_origins(frame)}<h2>All studies</h2>{_overall(frame, trace)}{sections}</body></html>"
    )


def _progress(frame: pd.DataFrame) -> str:
    done = int(frame["status"].notna().sum())
    seconds = frame["seconds"].sum()
    return (
        f"{_count(frame['study'].nunique(), 'study', 'studies')}, {_count(len(frame), 'cell', 'cells')}, "
        f"{done} of them finished; {duration(seconds)} of computing."
    )


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _consistency(frame: pd.DataFrame) -> str:
    """Whether the methods agree: every upper bound against the largest lower bound on the same problem."""
    wrong = contradictions(frame)
    if wrong.empty:
        return "On every problem all upper bounds are above all lower bounds."
    names = ", ".join(f"{r.series} on {r.study} {r.task}" for r in wrong.head(5).itertuples())
    return (
        f"<b>{_count(len(wrong), 'upper bound contradicts', 'upper bounds contradict')} a lower bound, which is a bug: "
        f"{html.escape(names)}</b>"
    )


def _origins(frame: pd.DataFrame) -> str:
    """A line per distinct machine and set of versions."""
    columns = ["platform", "cpu", "gpu", "device", "dtype", "threads", "versions", "revision"]
    done = frame[frame["status"].notna()]
    lines = []
    for key, rows in done.groupby(columns, sort=False):
        platform, cpu, gpu, device, dtype, threads, versions, revision = key
        packages = ", ".join(f"{k} {v}" for k, v in json.loads(str(versions)).items())
        cells = [
            platform,
            cpu,
            gpu or "-",
            device,
            dtype,
            f"{threads:g}",
            packages,
            str(revision)[:12] or "-",
            len(rows),
        ]
        kinds = {packages: "packages"}
        lines.append("".join(f'<td class="{kinds.get(c, "text")}">{html.escape(str(c))}</td>' for c in cells))
    heads = ["system", "processor", "GPU", "device", "precision", "threads", "packages", "revision", "cells"]
    return _html_table(heads, lines)


def _overall(frame: pd.DataFrame, trace: pd.DataFrame) -> str:
    done = distinct(frame[frame["status"].notna()])
    parts = [_image(lambda: statuses(frame), "How the cells of each method ended")]
    # The variants of a single study would crowd the pictures of all; problems that few methods met would bend shares.
    counts = done["series"].value_counts()
    done = done[done["series"].isin(counts[counts >= counts.max() / 2].index)]
    methods = done.groupby("problem_hash")["series"].transform("nunique")
    done = done[methods >= methods.max() / 2]
    parts.append(_image(lambda: pareto(done), "Tightness against time"))
    kept = trace.merge(done[["study", "task", "series"]], on=["study", "task", "series"])
    parts.append(_image(lambda: profile(done, kept), "Share of problems solved to a gap, against time"))
    return "".join(parts)


def _study(name: str, frame: pd.DataFrame, trace: pd.DataFrame) -> str:
    done = frame[frame["status"].notna()]
    limits = ", ".join(f"{v:g} s" for v in sorted(done["time_limit"].unique()))
    parts = [f'<h2 id="{html.escape(name)}">{html.escape(name)}</h2>']
    # A network has one name per study, though another study may have computed the cell under another name.
    models = ", ".join(dict.fromkeys(map(str, done.get("label.model", done["network"]))))
    parts.append(
        f"<p>{_count(done['problem_hash'].nunique(), 'problem', 'problems')} on {html.escape(models)}; "
        f"{_count(frame['series'].nunique(), 'method', 'methods')}; "
        f"time limit {limits}. {len(done)} of {len(frame)} cells finished.</p>"
    )
    if done.empty:
        return "".join(parts)
    for group, heading in _groups(done):
        table = by_group(done, group, "Value and time per method", heading=heading)
        parts.append(table.html())
    for title, figure in _drawn(done):
        parts.append(_image(lambda figure=figure: figure, title))  # type: ignore[misc]  # bound now
    rich = _richest(trace, 3)
    if not rich.empty:
        parts.append(_image(lambda: over_time(rich, done), "Interval over time"))
    parts += [_troubles(done), _rows(done)]
    return "".join(parts)


def _groups(frame: pd.DataFrame) -> Iterator[tuple[list[str], str]]:
    """By which labels to group a table: those that vary, examples aside."""
    labels = [c for c in frame.columns if c.startswith("label.") and c not in ("label.example", "label.accuracy")]
    here = [c for c in labels if frame[c].notna().all() and frame[c].nunique() > 1]
    # Of labels that vary together one is enough.
    kept: list[str] = []
    for c in here:
        if not kept or frame.groupby(kept)[c].nunique().max() > 1:
            kept.append(c)
    if not kept:
        kept = ["network"]
    if frame.groupby(kept).ngroups <= _MOST_GROUPS:
        yield kept, ", ".join(f"{c.removeprefix('label.')} {{}}" for c in kept)
        return
    yield [kept[0]], f"{kept[0].removeprefix('label.')} {{}}"


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


def _image(draw: Callable[[], Figure], alt: str) -> str:
    """A picture inside the page; a sentence where there is nothing to draw."""
    try:
        with style():
            figure = draw()
            out = io.BytesIO()
            figure.savefig(out, format="svg", metadata={"Date": None})
    except InvalidInput as error:
        return f'<p class="note">{html.escape(alt)}: {html.escape(str(error))}</p>'
    data = base64.b64encode(out.getvalue()).decode()
    return f'<h3>{html.escape(alt)}</h3><img alt="{html.escape(alt)}" src="data:image/svg+xml;base64,{data}">'


def _troubles(frame: pd.DataFrame) -> str:
    """What did not go well, one line per series and sentence; what several sentences share where counts differ."""
    bad = frame[~frame["status"].isin(["complete", "exact"])]
    if bad.empty:
        return "<p>Every cell ran to its end.</p>"
    bad = bad.assign(why=bad["message"].str.replace(r" \d+ [\w ]+(, \d+ [\w ]+)*\.$", "", regex=True))
    lines = []
    for series in ordered(list(bad["series"])):
        for (status, why), rows in bad[bad["series"] == series].groupby(["status", "why"], sort=False):
            message = rows["message"].iloc[0] if len(rows) == 1 else why
            words = str(status).replace("_", " ")
            lines.append(
                f'<td class="text">{html.escape(series)}</td><td class="text">{html.escape(words)}</td>'
                f'<td>{len(rows)}</td><td class="wrap">{html.escape(str(message))}</td>'
            )
    return f"<h3>What did not run to its end</h3>{_html_table(['method', 'status', 'cells', 'why'], lines)}"


def _rows(frame: pd.DataFrame) -> str:
    lines = [
        f'<td class="text">{html.escape(str(r.task))}</td><td class="text">{html.escape(str(r.series))}</td>'
        f"<td>{lower_text(r.lower)}</td><td>{upper_text(r.upper)}</td><td>{r.seconds:.3g}</td>"
        f'<td class="text">{html.escape(str(r.status).replace("_", " "))}</td>'
        for r in frame.head(_MOST_ROWS).itertuples()
    ]
    more = "" if len(frame) <= _MOST_ROWS else f"<p>{len(frame) - _MOST_ROWS} more in rows.csv.</p>"
    heads = ["problem", "method", "at least", "at most", "seconds", "status"]
    return f"<details><summary>All {len(frame)} rows</summary>{_html_table(heads, lines)}{more}</details>"


def _html_table(heads: list[str], lines: list[str]) -> str:
    head = "".join(f'<th class="text">{html.escape(h)}</th>' for h in heads)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
