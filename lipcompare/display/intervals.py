"""Figures of results: one result, methods side by side, and intervals over time. Drawn without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import CARETLEFT, CARETRIGHT
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from lipcompare.budget import TracePoint
from lipcompare.display.style import literal, new_figure
from lipcompare.errors import InvalidInput
from lipcompare.rounding import lower_text, upper_text

_UPPER, _LOWER, _BAND, _TIME = "#0072B2", "#D55E00", "#BBBBBB", "#555555"
"""Two of Okabe and Ito's colours, which differ in lightness too, and greys."""

_LOG_FROM = 5.0
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""


_MOST_ROWS = 20


class Told(Protocol):
    """A result, as far as its course over time goes (:class:`lipcompare.Bound`)."""

    @property
    def method(self) -> str: ...

    @property
    def seconds(self) -> float: ...

    @property
    def trace(self) -> Sequence[TracePoint]: ...


def one_result(
    lower: np.ndarray, upper: np.ndarray, points: Sequence[TracePoint], seconds: float, *, title: str = ""
) -> Figure:
    """The interval of every row, and the largest of them over time where there is more than its end.

    Args:
        lower, upper: (rows,), NaN where nothing is proved.
        points: of the trace.
        seconds: when the run ended.
    """
    rows = min(len(lower), _MOST_ROWS)
    several = len([p for p in points if p.lower > 0 or np.isfinite(p.upper)]) > 2
    figure = new_figure(8.0 if several else 5.0, max(2.2, 0.9 + 0.22 * rows))
    panels = figure.subplots(1, 2 if several else 1, squeeze=False)[0]
    left, low, high = panels[0], lower[:rows], upper[:rows]
    y = np.arange(rows)
    _value_axis(left, np.concatenate([low[low > 0], high[high > 0]]))
    floor, ceiling = left.get_xlim()
    known = ~(np.isnan(low) & np.isnan(high))
    left.hlines(y[known], np.fmax(low, floor)[known], np.fmin(high, ceiling)[known], color=_BAND, linewidth=5, zorder=1)
    left.scatter(high, y, marker=CARETLEFT, s=50, color=_UPPER, label="at most", zorder=3)
    left.scatter(low, y, marker=CARETRIGHT, s=50, color=_LOWER, label="at least", zorder=3)
    left.set_yticks(y)
    left.set_ylim(rows - 0.4, -0.6)
    left.set_xlim(floor, ceiling)
    left.set_ylabel("functional" if rows == len(lower) else f"functional, the first {rows} of {len(lower)}")
    left.set_xlabel("norm of the gradient, at most")
    if several:
        _courses(panels[1], [("", points, seconds)])
        panels[1].set_ylabel("largest of them")
    for axes in panels:
        axes.grid(color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=8, loc="best")
    figure.suptitle(literal(title), fontsize=10, x=0.01, ha="left")
    return figure


def comparison(frame: pd.DataFrame, *, title: str = "") -> Figure:
    """Per method the interval it proves and the time it takes.

    Args:
        frame: what :func:`lipcompare.compare` returns. Several problems or examples are averaged, as in the paper.
        title: above the figure.
    """
    if frame.empty:
        raise InvalidInput("There is nothing to plot: the comparison has no rows.")
    methods = list(dict.fromkeys(frame["method"]))
    # Of a mean both ends hold still where an example has none: 0 and infinity are its own.
    frame = frame.assign(lower=frame["lower"].fillna(0.0), upper=frame["upper"].fillna(np.inf))
    table = frame.groupby("method", sort=False)[["lower", "upper", "seconds"]].mean().loc[methods]
    figure = new_figure(8.0, 1.3 + 0.42 * len(methods))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    y = np.arange(len(methods))
    lower, upper, seconds = (table[name].to_numpy(float) for name in ("lower", "upper", "seconds"))
    known_low, known_high = lower > 0, np.isfinite(upper)
    proved = known_low | known_high
    ends = np.concatenate([lower[known_low], upper[known_high & (upper > 0)]])
    _value_axis(left, ends)
    floor, ceiling = left.get_xlim()
    start = np.where(known_low, lower, floor)
    stop = np.where(known_high, upper, ceiling)
    left.hlines(y[proved], start[proved], stop[proved], color=_BAND, linewidth=5, zorder=1)
    for which, values, marker, color, name in (
        (known_high, upper, CARETLEFT, _UPPER, "at most"),
        (known_low, lower, CARETRIGHT, _LOWER, "at least"),
    ):
        left.scatter(values[which], y[which], marker=marker, s=60, color=color, label=name, zorder=3)
        text, side = (upper_text, 1) if marker == CARETLEFT else (lower_text, -1)
        for k in y[which]:
            left.annotate(
                text(values[k], 4),
                (values[k], k),
                (side * 10, 0),
                textcoords="offset points",
                ha="left" if side > 0 else "right",
                va="center",
                fontsize=8,
            )
    for k in y[~proved]:
        left.text(0.5, k, "nothing proved", transform=left.get_yaxis_transform(), ha="center", va="center", color=_TIME)
    if known_low.any():
        left.axvline(lower[known_low].max(), color=_LOWER, linewidth=1, linestyle=":", zorder=0)
    left.set_xlim(floor, ceiling)
    left.set_yticks(y, [literal(name) for name in methods])
    left.set_ylim(len(methods) - 0.4, -0.6)
    several = len(frame) > len(methods)
    left.set_xlabel("local Lipschitz constant" + (", mean" if several else ""))
    right.scatter(seconds[proved], y[proved], color=_TIME, s=30)
    if proved.any() and seconds[proved].max() > _LOG_FROM * seconds[proved].min() > 0:
        _make_logarithmic(right)
    right.set_xlabel("seconds")
    right.margins(x=0.15)
    right.tick_params(left=False)
    for axes in (left, right):
        axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(literal(title), fontsize=10, x=0.01, ha="left")
    if ends.size:
        figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    return figure


def trace(results: Sequence[Told], *, title: str = "") -> Figure:
    """Lower and upper bounds over time, a line style per method; over a batch the largest of each end."""
    if not results:
        raise InvalidInput("There is nothing to plot: give at least one result.")
    figure = new_figure(6.4, 3.6)
    axes = figure.subplots()
    _courses(axes, [(r.method if len(results) > 1 else "", r.trace, r.seconds) for r in results])
    axes.set_ylabel("local Lipschitz constant")
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(literal(title), fontsize=10, loc="left")
    return figure


def _courses(axes: Axes, courses: Sequence[tuple[str, Sequence[TracePoint], float]]) -> None:
    """Both ends over time, of each name, with its points and the time of its end."""
    styles = ("-", "--", "-.", ":")
    values = [v for _, points, _ in courses for p in points for v in (p.lower, p.upper) if 0 < v < np.inf]
    _value_axis(axes, np.array(values), vertical=True)
    for k, (name, trace, seconds) in enumerate(courses):
        style = styles[k % len(styles)]
        for end, color, marker in (("upper", _UPPER, "v"), ("lower", _LOWER, "^")):
            points = [(p.seconds, getattr(p, end)) for p in trace if 0 < getattr(p, end) < np.inf]
            if points:
                x, y = zip(*points, (max(seconds, points[-1][0]), points[-1][1]), strict=True)
                label = f"{literal(name)} {end} bound".strip()
                axes.step(
                    x,
                    y,
                    where="post",
                    color=color,
                    linestyle=style,
                    marker=marker,
                    markersize=5,
                    markevery=[0],
                    label=label,
                )
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds")
    if values:
        axes.legend(frameon=False, fontsize=9)


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure; the ending says the format (.png, .pdf, .svg).

    Raises:
        InvalidInput: a format that cannot be written.
    """
    check_format(path)
    figure.savefig(path, dpi=150)


def check_format(path: str | Path) -> None:
    """Raises InvalidInput if the ending of a file is none that :func:`save` writes."""
    if Path(path).suffix.lower() not in (".png", ".pdf", ".svg"):
        raise InvalidInput(f"Cannot draw {path}: the file's ending must be .png, .pdf or .svg.")


def _value_axis(axes: Axes, values: np.ndarray, *, vertical: bool = False) -> None:
    """Scale and limits that show all values with some room, logarithmic if they spread widely."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    wide = low > 0 and high > _LOG_FROM * low
    limits = (low / 2, high * 2) if wide else (0.0, high * 1.15)
    if vertical:
        axes.set_ylim(*limits)
    else:
        axes.set_xlim(*limits)
    if wide:
        _make_logarithmic(axes, vertical=vertical)


def _make_logarithmic(axes: Axes, *, vertical: bool = False) -> None:
    """A logarithmic scale with plain numbers: 100, 200, 500 within three decades, else one per decade."""
    if vertical:
        axes.set_yscale("log")
    else:
        axes.set_xscale("log")
    axis = axes.yaxis if vertical else axes.xaxis
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
