"""Pictures of any results store: sweeps, tightness against time, performance profiles, intervals over time, statuses.

All take frames of :class:`~lipcompare.store.database.Store` and draw what is in them; a number is averaged or divided
by the best known one at most. ``pareto`` and ``profile`` take what :func:`lipcompare.compare` returns, too. A cell that
proves nothing leaves no point in a plot of values, and a ringed one at the time it took in a plot of times.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lipcompare.display.intervals import comparison
from lipcompare.display.style import (
    GREY,
    PAGE,
    Look,
    entitle,
    handle,
    line_style,
    literal,
    looks,
    new_figure,
    ordered,
    plain_log,
    style,
)
from lipcompare.errors import InvalidInput
from lipcompare.report.facts import (
    CUT_SHORT,
    ROUNDING,
    best_known,
    comparable,
    distinct,
    finished,
    headline,
    quickest,
    smallest,
    tightness,
)

_LEAST_SECONDS = 1e-4
"""Where axes of seconds begin at the least: no method is done sooner."""
_LEAST_EXCESS = 1e-4
"""The gap at which exact methods stop unless told otherwise."""

_ENDS: dict[str, Literal["-", ":"]] = {"upper": "-", "lower": ":"}
"""Lines of the two ends of an interval over time; the methods differ in colours and markers there."""

_FAR = 4.0
"""Times the best bound: what is further off is left out of pictures of intervals over time."""

_UPRIGHT = 6
"""Ticks whose labels stand beside each other; those of more are turned, or they would run into each other."""


@style()
def sweep(frame: pd.DataFrame, x: str, label: str, *, logarithmic: bool = True, title: str = "") -> Figure:
    """Value, tightness and time of every series against the column ``x``; several tasks of equal ``x`` are averaged.

    Ringed: the method was cut short, by its time limit for instance. Vertical bars: intervals not closed. Crosses above
    the values: no bound. Where lines lie on each other, the first is the widest; the panel in the middle, of values
    over the smallest upper bound there, tells them apart.

    Args:
        label: the axis in words.
        title: what the problems are; what the picture says of them is above it.
    """
    rows = finished(frame)
    _require(rows)
    names = ordered(list(rows["series"]))
    look_of = looks(names)
    figure = new_figure(PAGE, 3.4, between=0.05)
    panels = figure.subplots(1, 3)
    points = {name: _points(rows[rows["series"] == name], x) for name in names}
    best = smallest({name: p for name, p in points.items() if _upper(rows, name)})
    for name, size in zip(names, np.linspace(1.5, 0.85, len(names)), strict=True):
        _value_line(panels[0], points[name], look_of[name], size)
        ratio = (points[name]["value"] / best.reindex(points[name].index)).dropna()
        panels[1].plot(ratio.index, ratio, **line_style(look_of[name]), linewidth=1.1 * size, markersize=4.5 * size)
        _time_line(panels[2], points[name], look_of[name])
    for axes, what in zip(panels, (constant_label(rows), "bound / smallest upper bound", "seconds"), strict=True):
        axes.set_xlabel(label)
        axes.set_ylabel(what)
        plain_log(axes, "y")
        ticks = sorted(rows[x].unique())
        if logarithmic:
            axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
        if len(ticks) > _UPRIGHT:
            axes.tick_params("x", labelrotation=90)
        axes.minorticks_off()
    for limit in sorted(rows["time_limit"].unique()):
        panels[2].axhline(limit, color=GREY, linewidth=0.8, linestyle=":")
    handles = [legend_handle(name, look_of[name], rows) for name in names]
    if rows["status"].isin((*CUT_SHORT, "out_of_memory", "crashed")).any():
        ring: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "markersize": 8, "markeredgewidth": 0.7}
        handles.append(Line2D([], [], label="cut short", color=GREY, linestyle="none", **ring))
        handles.append(Line2D([], [], label="its interval", color=GREY, marker="|", linestyle="none", markersize=8))
        handles.append(Line2D([], [], label="no bound", color=GREY, marker="1", linestyle="none", markersize=8))
    handles.append(Line2D([], [], label="time limit", color=GREY, linewidth=0.8, linestyle=":"))
    figure.legend(handles=handles, loc="outside right center")
    last = rows[x].max()
    ends = {name: p.loc[last, ["value", "seconds"]] for name, p in points.items() if last in p.index}
    message = headline({n: (float(e["value"]), float(e["seconds"])) for n, e in ends.items() if _upper(rows, n)})
    entitle(figure, f"At {label} {last:g} {message}" if message else title, title if message else "")
    return figure


def _upper(rows: pd.DataFrame, name: str) -> bool:
    """Whether a series proves upper bounds."""
    return bool(set(rows.loc[rows["series"] == name, "proves"]) - {"nothing", "lower"})


def _points(rows: pd.DataFrame, x: str) -> pd.DataFrame:
    """Per ``x`` the means over its tasks; a value only where every task has one."""
    grouped = rows.groupby(x, sort=True)
    points = grouped[["seconds"]].mean()
    for column in ("lower", "upper", "value"):
        points[column] = grouped[column].agg(lambda v: v.mean(skipna=False))
    points["proves"] = grouped["proves"].first()
    points["short"] = grouped["status"].agg(lambda s: s.isin([*CUT_SHORT, "out_of_memory", "crashed"]).any())
    return points


def _value_line(axes: Axes, points: pd.DataFrame, look: Look, size: float) -> None:
    known = points[points["value"].notna()]
    axes.plot(known.index, known["value"], **line_style(look), linewidth=1.1 * size, markersize=4.5 * size)
    short = known[known["short"]]
    _ring(axes, short.index.to_numpy(), short["value"].to_numpy())
    silent = points[points["short"] & points["value"].isna()]
    axes.plot(silent.index, np.full(len(silent), 0.97), transform=axes.get_xaxis_transform(), linestyle="none",
              marker="1", color=look.color, markersize=8)  # fmt: skip
    opened = short[(short["lower"] > 0) & np.isfinite(short["upper"])]
    axes.vlines(opened.index, opened["lower"], opened["upper"], color=look.color, linewidth=0.8, alpha=0.7)


def _time_line(axes: Axes, points: pd.DataFrame, look: Look) -> None:
    seconds = points["seconds"].clip(lower=_LEAST_SECONDS)
    axes.plot(points.index, seconds, **line_style(look))
    short = (points["short"] | ~np.isfinite(points["upper"]) & (points["proves"] != "lower")).to_numpy()
    _ring(axes, points.index.to_numpy()[short], seconds.to_numpy()[short])


def _ring(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """A ring around points whose method was cut short."""
    axes.plot(x, y, linestyle="none", marker="o", markersize=8, markerfacecolor="none", color=GREY, markeredgewidth=0.7)


@style()
def values(frame: pd.DataFrame) -> Figure:
    """The interval and the time of every series: means over the tasks, where each of them has a value."""
    rows = distinct(finished(frame))
    _require(rows)
    rows = rows.set_index("series").loc[ordered(list(rows["series"]))]
    problems = rows["problem_hash"].nunique()
    title = str(rows["task"].iloc[0]) if problems == 1 else f"means over {problems} problems"
    return comparison(rows.reset_index().assign(method=lambda r: r["series"]), title=title)


@style()
def pareto(frame: pd.DataFrame, *, title: str = "") -> Figure:
    """Tightness against time: a faint point per cell, a large one per series at the geometric means.

    Tightness is what the upper bound has too much, as a share or multiple of the best known lower bound; less than
    ``_LEAST_EXCESS`` is drawn there.
    """
    rows = distinct(tightness(comparable(frame)))
    _require(rows)
    names = ordered(list(rows["series"]))
    look_of = looks(names)
    tasks = rows["problem_hash"].nunique()
    figure = new_figure(PAGE * 0.75, 3.4)
    axes = figure.subplots()
    handles, means, whole = [], [], {}
    for name in names:
        cells, look = rows[rows["series"] == name], look_of[name]
        seconds, ratio = cells["seconds"].clip(lower=_LEAST_SECONDS), cells["ratio"].clip(lower=1.0)
        small: dict[str, Any] = {"s": 9, "marker": look.marker, "color": look.color, "alpha": 0.3, "linewidths": 0.7}
        if look.hollow:
            small["facecolors"] = "none"
        axes.scatter(seconds, _excess(ratio), **small)
        mean = (float(np.exp(np.log(seconds).mean())), float(_excess(np.exp(np.log(ratio).mean()))))
        drawn = {**line_style(look), "linestyle": "none", "markersize": 8, "zorder": 3}
        axes.plot(*mean, markeredgewidth=1.2, **drawn)
        if len(cells) == tasks:
            means.append(mean)
            whole[name] = (float(np.exp(np.log(ratio).mean())), mean[0])
        count = "" if len(cells) == tasks else f" ({len(cells)} of {tasks})"
        handles.append(handle(f"{name}{count}", look, line=False))
    front = _front(means)
    if len(front) > 1:
        axes.step(*zip(*front, strict=True), where="post", color=GREY, linewidth=0.8, linestyle="--", zorder=0)
        handles.append(Line2D([], [], color=GREY, linewidth=0.8, linestyle="--", label="front (all problems)"))
    plain_log(axes, "x")
    plain_log(axes, "y")
    ticks = [t for t in (10.0**k for k in range(-4, 9)) if t < 2 * axes.get_ylim()[1]]
    words = [f"{100 * t:,g}%" for t in ticks]
    axes.set_yticks(ticks, [f"≤ {w}" if t == _LEAST_EXCESS else w for t, w in zip(ticks, words, strict=True)])
    limits = sorted(rows["time_limit"].dropna().unique())  # a comparison does not say
    for limit in limits:
        axes.axvline(limit, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
    if limits:
        handles.append(Line2D([], [], color=GREY, linewidth=0.8, linestyle=":", label="time limit"))
    axes.set_xlabel("seconds per problem")
    axes.set_ylabel("upper bound over best lower bound, less 1")
    figure.legend(handles=handles, loc="outside right center", title="geometric means", alignment="left")
    message = headline(whole)
    counted = f"{title}: " if title else ""
    entitle(figure, f"Over all problems {message}" if message else title, f"{counted}{tasks} problems")
    return figure


def _excess(ratio: Any) -> Any:
    return np.maximum(ratio - 1.0, _LEAST_EXCESS)


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no other beats in both coordinates, from left to right."""
    front: list[tuple[float, float]] = []
    for point in sorted(points):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


@style()
def profile(
    frame: pd.DataFrame, trace: pd.DataFrame | None = None, *, gaps: Sequence[float] = (0.01, 0.1, 0.5)
) -> Figure:
    """Share of the problems whose upper bound is within a gap of the best known value, against time.

    Args:
        frame: of a store, or what :func:`lipcompare.compare` returned.
        trace: of the same store; without it a bound is there from the end of its run on.
    """
    frame = comparable(frame)
    cells = distinct(frame).join(best_known(frame), on="problem_hash")
    keys = ["study", "task", "series"]
    problems = cells[[*keys, "problem_hash", "best"]]
    points = (cells[[*keys, "seconds", "upper"]] if trace is None else trace).merge(problems, on=keys)
    tasks = problems[problems["best"].notna()]["problem_hash"].nunique()
    points = points[np.isfinite(points["upper"]) & points["best"].notna()]
    proving = frame[frame["proves"].isin(["upper", "interval", "exact"])]
    names = ordered(list(proving["series"]))
    if not names or not tasks:
        raise InvalidInput("There is nothing to draw: no problem has a certified upper and a certified lower bound.")
    look_of = looks(names)
    figure = new_figure(PAGE, 2.7)
    panels = figure.subplots(1, len(gaps), sharey=True, squeeze=False)[0]
    solved: list[dict[str, int]] = []
    begin, ends = 5 * _LEAST_SECONDS, max(float(frame["seconds"].max()), 1e-2)
    for axes, gap in zip(panels, gaps, strict=True):
        reached = points[points["upper"] * (1 - gap) <= points["best"] * (1 + ROUNDING)]
        times = reached.groupby(["series", "problem_hash"])["seconds"].min()
        solved.append({name: len(times.loc[name]) for name in names if name in times.index.get_level_values(0)})
        for name in names:
            found = np.sort(times.loc[name].to_numpy()) if name in times.index.get_level_values(0) else np.array([])
            x = np.concatenate([[begin], found.clip(min=begin), [ends]])
            y = np.concatenate([np.arange(len(found) + 1), [len(found)]]) / tasks * 100
            look = look_of[name]
            axes.step(x, y, where="post", **{**line_style(look), "markevery": [len(x) - 1]}, clip_on=False)
        axes.set_title(f"within {gap:.0%} of the best known")
        axes.set_xlim(begin, ends)
        plain_log(axes, "x")
        axes.set_xlabel("seconds")
    panels[0].set_ylim(-3, 103)
    panels[0].set_ylabel(f"% of {tasks} problems")
    if solved[0]:  # at the smallest gap, which says most
        count = max(solved[0].values())
        who = ", ".join(name for name in names if solved[0].get(name) == count)
        verb = "comes" if who.count(",") == 0 else "come"
        message = f"{who} {verb} within {gaps[0]:.0%} of the best known value on {count} of {tasks} problems"
        entitle(
            figure, message, "Share of the problems whose upper bound is within a gap of the best known value, by time"
        )
    figure.legend(handles=[legend_handle(n, look_of[n], frame) for n in names], loc="outside right center")
    return figure


@style()
def over_time(trace: pd.DataFrame, frame: pd.DataFrame, *, titles: dict[str, str] | None = None) -> Figure:
    """Per task a panel with the interval of every series over time: upper bounds as they fall, lower as they rise.

    A panel shows what is within ``_FAR`` of the best bounds: others would press the rest together. The title says who
    is exact (:func:`quickest`).
    """
    tasks = list(dict.fromkeys(trace[["study", "task"]].itertuples(index=False, name=None)))
    if not tasks:
        raise InvalidInput("There is nothing to draw: no trace points.")
    said = (np.isfinite(trace["upper"]) & (trace["upper"] > 0)) | (trace["lower"] > 0)
    names = ordered(list(trace.loc[said, "series"]))
    look_of = looks(names)
    figure = new_figure(PAGE, 2.9)
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for axes, (study, task) in zip(panels, tasks, strict=True):
        curves = trace[(trace["study"] == study) & (trace["task"] == task)]
        rows = frame[(frame["study"] == study) & (frame["task"] == task)].set_index("series")
        axes.set_yscale("log")  # before limits are set: those of a linear axis may begin below 0
        for name in names:
            curve = curves[curves["series"] == name]
            if curve.empty:
                continue
            last = float(rows.loc[name, "seconds"]) if name in rows.index else 0.0
            for end in ("upper", "lower"):
                proved = curve[np.isfinite(curve[end]) & (curve[end] > 0)]
                if proved.empty:
                    continue
                x = np.append(proved["seconds"].to_numpy(), max(last, proved["seconds"].iloc[-1])).clip(min=1e-3)
                y = np.append(proved[end].to_numpy(), proved[end].iloc[-1])
                drawn = {**line_style(look_of[name]), "linestyle": _ENDS[end], "markevery": [len(x) - 1]}
                axes.step(x, y, where="post", **drawn)
        _near(axes, curves)
        axes.set_title(textwrap.fill(literal((titles or {}).get(task, task)), 72 // len(tasks)))
        axes.set_xlabel("seconds")
        plain_log(axes, "x")
        plain_log(axes, "y")
    panels[0].set_ylabel(constant_label(frame))
    handles = [legend_handle(n, dataclasses.replace(look_of[n], line="-"), frame) for n in names]
    handles += [Line2D([], [], color=GREY, linestyle=line, label=f"{end} bound") for end, line in _ENDS.items()]
    figure.legend(handles=handles, loc="outside right center")
    if message := quickest(frame.merge(trace[["study", "task"]].drop_duplicates())):
        entitle(figure, message)
    return figure


def _near(axes: Axes, points: pd.DataFrame) -> None:
    """Limits of a logarithmic axis around the best bounds; none where there are no others outside."""
    uppers = points.loc[np.isfinite(points["upper"]) & (points["upper"] > 0), "upper"]
    lowers = points.loc[points["lower"] > 0, "lower"]
    if not uppers.empty and uppers.max() > _FAR * uppers.min():
        axes.set_ylim(top=_FAR * uppers.min())
    if not lowers.empty and lowers.min() * _FAR < lowers.max():
        axes.set_ylim(bottom=lowers.max() / _FAR)


_STATUS_LOOKS = {
    "exact": ("#0072B2", ""), "complete": ("#56B4E9", ""), "time_limit": ("#E69F00", "//"),
    "node_limit": ("#E69F00", ".."), "memory_limit": ("#E69F00", "xx"), "numerical": ("#F0E442", "--"),
    "unsupported": ("#DDDDDD", ""), "unavailable": ("#DDDDDD", ".."), "licence_too_small": ("#DDDDDD", "\\\\"),
    "out_of_memory": ("#D55E00", "xx"), "crashed": ("#000000", ""), "pending": ("#FFFFFF", ""),
}  # fmt: skip


@style()
def statuses(frame: pd.DataFrame) -> Figure:
    """Per series how many cells ended in which way."""
    rows = frame.assign(status=frame["status"].fillna("pending"))
    names = ordered(list(rows["series"]))
    counts = rows.groupby(["series", "status"]).size().unstack(fill_value=0).reindex(names)
    figure = new_figure(PAGE, 0.7 + 0.2 * len(names))
    axes = figure.subplots()
    start = np.zeros(len(names))
    for status, (color, hatch) in _STATUS_LOOKS.items():
        if status in counts:
            width = counts[status].to_numpy(float)
            axes.barh(range(len(names)), width, left=start, color=color, hatch=hatch, edgecolor="black", linewidth=0.4,
                      height=0.75, label=status.replace("_", " "))  # fmt: skip
            start = start + width
    axes.set_yticks(range(len(names)), [literal(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("cells")
    axes.grid(visible=False, axis="y")
    figure.legend(loc="outside right center")
    return figure


def constant_label(rows: pd.DataFrame) -> str:
    """What the values are: the constant, and the norm on the input that it is about."""
    norms = sorted(rows["norm"].dropna().unique())
    return "local Lipschitz constant" + (f" for l_{norms[0]}" if len(norms) == 1 else "")


def legend_handle(name: str, look: Look, rows: pd.DataFrame) -> Line2D:
    """The entry of a series; one that only proves lower bounds says so."""
    proves = set(rows.loc[rows["series"] == name, "proves"]) - {"nothing"}
    return handle(f"{name} (at least)" if proves == {"lower"} else name, look)


def _require(rows: pd.DataFrame) -> None:
    if rows.empty or not rows["value"].notna().any():
        raise InvalidInput("There is nothing to draw: no cell has proved anything yet.")
