"""What each part buys: relaxation x pre-activation bounds, cuts of the semidefinite bound, splitting heuristics.

python -m figures.ablations

Reads what python -m experiments.ablations computed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.style import (
    PAGE,
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
from lipcompare.display.style import plain_log
from lipcompare.report.figures.store import CUT_SHORT, tightness
from lipcompare.report.tables import by_group

STUDIES = {
    "ablation_relaxation": "Relaxation and pre-activation bounds",
    "ablation_cuts": "Cuts",
    "ablation_branching": "Branching heuristics",
}
LEVELS = ("interval", "crown", "alpha-crown")


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Per series the geometric means of tightness and seconds over the tasks, and whether any was cut short."""
    logs = rows.assign(ratio=np.log(rows["ratio"]), seconds=np.log(rows["seconds"].clip(lower=1e-4)))
    groups = logs.groupby("series", sort=False)
    short = groups["status"].agg(lambda s: s.isin(CUT_SHORT).any())
    return np.exp(groups[["ratio", "seconds"]].mean()).assign(short=short)


def relaxations(axes: Axes, rows: pd.DataFrame, column: str) -> None:
    """Lines over the three pre-activation bounds, one per relaxation."""
    table = means(rows)
    split = [name.rsplit(", ", 1) for name in table.index]
    kinds = list(dict.fromkeys(kind for kind, _ in split))
    for kind, look in looks(kinds).items():
        points = [(LEVELS.index(level), k) for k, (other, level) in enumerate(split) if other == kind]
        points.sort()
        axes.plot([x for x, _ in points], [table[column].iloc[k] for _, k in points], **line_style(look))
    axes.set_xticks(range(3), ["interval", "CROWN", "α-CROWN"])
    axes.set_xlim(-0.2, 2.2)
    axes.set_xlabel("pre-activation bounds")
    if column == "ratio":
        axes.legend(handles=[handle(kind, look) for kind, look in looks(kinds).items()])
    axes.set_yscale("log")


def variants(axes: Axes, rows: pd.DataFrame) -> None:
    """A dot per variant, in the colour of its bound."""
    table = means(rows)
    y = np.arange(len(table))
    axes.hlines(y, 1.0, table["ratio"], color="#BBBBBB", linewidth=2)
    for k, (name, look) in enumerate(looks(list(table.index)).items()):
        ratio, seconds, short = table.loc[name, ["ratio", "seconds", "short"]]
        axes.plot(ratio, k, marker=look.marker, color=look.color, linestyle="none")
        text = f"{ratio:.3f}, {seconds:.2g} s{'†' if short else ''}"
        axes.annotate(text, (ratio, k), (6, 0), textcoords="offset points", va="center", fontsize=6.5)
    axes.set_yticks(y, list(table.index))
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set_xlim(1.0, 1.0 + 1.6 * max(float(table["ratio"].max()) - 1.0, 1e-3))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("upper bound / best known lower bound, and seconds")


def draw(settings: Settings) -> Iterator[Path]:
    """A figure and a table per ablation."""
    results = {name: Results.read(settings, name).frame for name in STUDIES}
    # What one study proves about a problem counts in all.
    tight = tightness(pd.concat(results.values(), ignore_index=True))
    for name, title in STUDIES.items():
        rows = tight[tight["study"] == name]
        if not rows.empty:  # else its methods are not in this version, as the table says
            with style():
                yield from save(_figure(name, rows, title), settings.out, name)
        group = ["label.model", "label.eps"]
        table = by_group(results[name], group, title, heading="{}, radius {}")
        yield from save_table(table, settings.out, name)


def _figure(name: str, rows: pd.DataFrame, title: str) -> Figure:
    tasks = rows["task"].nunique()
    if name != "ablation_relaxation":
        figure = new_figure(PAGE * 0.7, 0.8 + 0.27 * rows["series"].nunique())
        variants(figure.subplots(), rows)
    else:
        figure = new_figure(PAGE, 2.8)
        left, right = figure.subplots(1, 2)
        relaxations(left, rows, "ratio")
        relaxations(right, rows, "seconds")
        left.set_ylabel("upper bound / best known lower bound")
        right.set_ylabel("seconds")
        plain_log(left, "y")
        plain_log(right, "y")
    short = "; †: some cut short" if name != "ablation_relaxation" and means(rows)["short"].any() else ""
    figure.suptitle(f"{title} (geometric means over {tasks} problems{short})", x=0.01, ha="left", fontsize=9)
    return figure


if __name__ == "__main__":
    sys.exit(main(draw, __doc__))
