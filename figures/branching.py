"""Interval against time for every bound and heuristic of branch and bound, and the subdomains each needs.

    python -m figures.branching [--data results/branching.csv] [--out results/figures]

Reads what ``python -m experiments.branching`` wrote.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import from_csv
from figures.style import (
    GREY,
    PAGE,
    Look,
    handle,
    line_style,
    looks,
    new_figure,
    save,
    save_table,
    style,
)
from lipcompare.report.style import plain_log
from lipcompare.report.tables import Cell, Table
from lipcompare.rounding import upper_text

NOTE = (
    "Certified upper bound at the end, seconds, and subdomains visited. Bold: the smallest upper bound. †: stopped at "
    "the time limit."
)
TITLE = "Branch and bound: upper bounds over time"


def figure(frame: pd.DataFrame) -> Figure:
    """One panel per problem: upper bounds over time, and the best lower bound."""
    labels, names = list(dict.fromkeys(frame["problem"])), list(dict.fromkeys(frame["variant"]))
    styles = looks(names)
    across = min(2, len(labels))
    down = -(-len(labels) // across)
    made = new_figure(PAGE, 2.9 * down)
    panels = made.subplots(down, across, squeeze=False)
    for axes, label, heading in zip(panels.flat, labels, headings(labels), strict=False):
        here = frame[frame["problem"] == label]
        for name in names:
            part = here[here["variant"] == name].sort_values("seconds")
            _line(axes, part, styles[name])
        axes.axhline(here["lower"].max(), color=GREY, linewidth=0.8, linestyle=":")
        plain_log(axes, "x")
        plain_log(axes, "y")
        axes.set_title(heading)
    for axes in panels.flat[len(labels) :]:
        axes.set_axis_off()
    for axes in panels[-1]:
        axes.set_xlabel("seconds")
    for axes in panels[:, 0]:
        axes.set_ylabel("certified upper bound")
    handles = [handle(name, styles[name]) for name in names]
    handles.append(Line2D([], [], label="best lower bound", color=GREY, linewidth=0.8, linestyle=":"))
    handles.append(handle("cut short", Look(GREY, "o", hollow=True), line=False))
    made.legend(handles=handles, loc="outside lower center", ncols=3)
    made.suptitle(TITLE, x=0.01, ha="left", fontsize=9)
    return made


def _line(axes: Axes, part: pd.DataFrame, look: Look) -> None:
    """The upper bound as it falls, with the method's marker at its end, ringed unless the interval closed."""
    seconds = part["seconds"].clip(lower=1e-2).to_numpy()
    upper = part["upper"].to_numpy()
    known = np.isfinite(upper)
    if not known.any():
        return
    drawn = {**line_style(look), "markevery": [int(known.sum()) - 1]}
    axes.step(seconds[known], upper[known], where="post", **drawn)
    if part["status"].iloc[-1] != "exact":
        axes.plot(
            seconds[known][-1:], upper[known][-1:], "o", markersize=8, markerfacecolor="none", color=GREY,
            markeredgewidth=0.7,
        )  # fmt: skip


def headings(labels: Sequence[str]) -> list[str]:
    """Names of problems, NETWORK@RADIUS in the file, in words."""
    return [label.replace("@", ", radius ") for label in labels]


def table(frame: pd.DataFrame) -> Table:
    """How every run ended: a row per variant, three columns per problem."""
    ends = frame[frame["nodes"].notna()].set_index(["problem", "variant"])
    labels, names = list(dict.fromkeys(frame["problem"])), list(dict.fromkeys(frame["variant"]))
    best = ends["upper"].groupby("problem").min()
    rows = []
    for name in names:
        cells: list[Cell] = []
        for label in labels:
            end = ends.loc[(label, name)]
            mark = "" if end["status"] == "exact" else "†"
            cells.append(Cell(upper_text(end["upper"]), end["upper"] <= best[label] * (1 + 1e-4)))
            cells += [Cell(f"{end['seconds']:.2g}{mark}"), Cell(f"{end['nodes']:.0f}")]
        rows.append((name, cells))
    columns = ("at most", "s", "subdomains")
    return Table("Branch and bound by bound and heuristic", headings(labels), rows, NOTE, columns, corner="variant")


def draw(frame: pd.DataFrame, out: Path) -> Iterator[Path]:
    """The figure and the table."""
    with style():
        yield from save(figure(frame), out, "branching")
    yield from save_table(table(frame), out, "branching")


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw; 2 if there is nothing to draw from."""
    return from_csv.main(draw, "branching", __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
