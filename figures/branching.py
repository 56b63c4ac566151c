"""Interval against time for every bound and heuristic of branch and bound, and the subdomains each needs.

python -m figures.branching

Reads what ``python -m experiments.branching`` computed.
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

from figures.style import (
    GREY,
    PAGE,
    Look,
    Results,
    Settings,
    handle,
    line_style,
    looks,
    main,
    new_figure,
    save,
    save_table,
    style,
)
from lipcompare.display.frames import two_digits
from lipcompare.display.style import entitle, plain_log
from lipcompare.report.facts import quickest
from lipcompare.report.tables import Cell, Table
from lipcompare.rounding import upper_text

NOTE = (
    "Certified upper bound at the end, seconds, and subdomains visited. Bold: the smallest upper bound. †: stopped at "
    "the time limit."
)


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
        axes.set_ylabel("certified upper bound, l_inf")
    handles = [handle(name, styles[name]) for name in names]
    handles.append(Line2D([], [], label="best lower bound", color=GREY, linewidth=0.8, linestyle=":"))
    handles.append(handle("cut short", Look(GREY, "o", hollow=True), line=False))
    made.legend(handles=handles, loc="outside lower center", ncols=3)
    ends = frame[frame["nodes"].notna()]
    entitle(made, quickest(ends.assign(study="branching", task=ends["problem"], series=ends["variant"])))
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
            cells += [Cell(f"{two_digits(end['seconds'])}{mark}"), Cell(f"{end['nodes']:.0f}")]
        rows.append((name, cells))
    columns = ("at most", "s", "subdomains")
    return Table("Branch and bound by bound and heuristic", headings(labels), rows, NOTE, columns, corner="variant")


def points(results: Results) -> pd.DataFrame:
    """A row per point of every trace, and as the last of each run its end with the number of subdomains and status."""
    names = {"task": "problem", "series": "variant"}
    ends = results.frame.rename(columns=names)
    nodes = ends["message"].str.extract(r"(\d+) subdomains?", expand=False).astype(float)
    columns = ["problem", "variant", "seconds", "lower", "upper"]
    ends = ends.assign(nodes=nodes.fillna(0), problem=ends["label.problem"])
    trace = results.trace.merge(results.frame[["task", "series", "label.problem"]], on=["task", "series"])
    trace = trace.rename(columns=names).assign(problem=trace["label.problem"])
    return pd.concat([trace[columns], ends[[*columns, "nodes", "status"]]], ignore_index=True)


def draw(settings: Settings) -> Iterator[Path]:
    """The figure and the table."""
    frame = points(Results.read(settings, "branching"))
    with style():
        yield from save(figure(frame), settings, "branching")
    yield from save_table(table(frame), settings, "branching")


if __name__ == "__main__":
    sys.exit(main(draw, __doc__))
