"""Figures of results: methods side by side, and intervals over time. Drawn without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.markers import CARETLEFT, CARETRIGHT
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from lipcompare.errors import InvalidInput
from lipcompare.report.style import literal
from lipcompare.result import Bound
from lipcompare.rounding import lower_text, upper_text

_UPPER, _LOWER, _BAND, _TIME = "#0072B2", "#D55E00", "#BBBBBB", "#555555"
"""Two of Okabe and Ito's colours, which differ in lightness too, and greys."""

_LOG_FROM = 5.0
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""


def comparison(frame: pd.DataFrame, *, title: str = "") -> Figure:
    """Per method the interval it proves and the time it takes.

    Args:
        frame: what :func:`lipcompare.compare` returns. Several problems or examples are averaged, as in the paper.
        title: above the figure.
    """
    if frame.empty:
        raise InvalidInput("There is nothing to plot: the comparison has no rows.")
    methods = list(dict.fromkeys(frame["method"]))
    table = frame.groupby("method", sort=False)[["lower", "upper", "seconds"]].mean().loc[methods]
    figure = _figure(8.0, 1.3 + 0.42 * len(methods))
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
    for known, values, marker, color, name in (
        (known_high, upper, CARETLEFT, _UPPER, "at most"),
        (known_low, lower, CARETRIGHT, _LOWER, "at least"),
    ):
        left.scatter(values[known], y[known], marker=marker, s=60, color=color, label=name, zorder=3)
        text, side = (upper_text, 1) if marker == CARETLEFT else (lower_text, -1)
        for k in y[known]:
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


def trace(results: Sequence[Bound], *, title: str = "") -> Figure:
    """Lower and upper bounds over time, a line style per method; over a batch the largest of each end."""
    if not results:
        raise InvalidInput("There is nothing to plot: give at least one result.")
    figure = _figure(6.4, 3.6)
    axes = figure.subplots()
    styles = ("-", "--", "-.", ":")
    values = [v for r in results for p in r.trace for v in (p.lower, p.upper) if 0 < v < np.inf]
    _value_axis(axes, np.array(values), vertical=True)
    for k, result in enumerate(results):
        style, name = styles[k % len(styles)], result.method if len(results) > 1 else ""
        for end, color, marker in (("upper", _UPPER, "v"), ("lower", _LOWER, "^")):
            points = [(p.seconds, getattr(p, end)) for p in result.trace if 0 < getattr(p, end) < np.inf]
            if points:
                x, y = zip(*points, (max(result.seconds, points[-1][0]), points[-1][1]), strict=True)
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
    axes.set_ylabel("local Lipschitz constant")
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(literal(title), fontsize=10, loc="left")
    if values:
        axes.legend(frameon=False, fontsize=9)
    return figure


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


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


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
