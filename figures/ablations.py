"""What each part buys: relaxation x pre-activation bounds, cuts of the semidefinite bound, splitting heuristics.

python -m figures.ablations                # all of them
python -m figures.ablations ablation_cuts

Reads what python -m experiments.ablations computed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
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
from lipcompare.display.style import entitle, plain_log
from lipcompare.report.figures.store import CUT_SHORT, headline, tightness
from lipcompare.report.tables import by_group

STUDIES = {
    "ablation_relaxation": "Relaxation and pre-activation bounds",
    "ablation_cuts": "Cuts",
    "ablation_branching": "Branching heuristics",
}
LEVELS = ("interval", "crown", "alpha-crown")


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Per series the geometric means of tightness and seconds over the tasks on which all series have a bound (over its
    own where there are none such), of how many tasks, and whether any was cut short."""
    common = rows.groupby("task")["series"].nunique() == rows["series"].nunique()
    if common.any():
        rows = rows[rows["task"].map(common)]
    logs = rows.assign(ratio=np.log(rows["ratio"]), seconds=np.log(rows["seconds"].clip(lower=1e-4)))
    groups = logs.groupby("series", sort=False)
    short = groups["status"].agg(lambda s: s.isin(CUT_SHORT).any())
    return np.exp(groups[["ratio", "seconds"]].mean()).assign(short=short, tasks=groups["task"].nunique())


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
        ratio, seconds, short, tasks = table.loc[name, ["ratio", "seconds", "short", "tasks"]]
        axes.plot(ratio, k, marker=look.marker, color=look.color, linestyle="none")
        few = "" if tasks == table["tasks"].max() else f", {tasks} of {table['tasks'].max()} problems"
        text = f"{ratio:.3f}, {seconds:.2g} s{'†' if short else ''}{few}"
        axes.annotate(text, (ratio, k), (6, 0), textcoords="offset points", va="center", fontsize=6.5)
    axes.set_yticks(y, list(table.index))
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set_xlim(1.0, 1.0 + 1.6 * max(float(table["ratio"].max()) - 1.0, 1e-3))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("upper bound / best known lower bound, and seconds")


def draw(name: str, settings: Settings) -> Iterator[Path]:
    """The figure and the table of one ablation."""
    own, title = Results.read(settings, name).frame, STUDIES[name]
    # What any study of the store proves about a problem counts.
    tight = tightness(Results.read(settings).frame)
    rows = tight[tight["study"] == name]
    if not rows.empty:  # else its methods are not in this version, as the table says
        with style():
            yield from save(_figure(name, rows, title), settings, name)
    table = by_group(own, ["label.model", "label.eps"], title, heading="{}, radius {}")
    yield from save_table(table, settings, name)


DRAWS: dict[str, Callable[[Settings], Iterator[Path]]] = {name: partial(draw, name) for name in STUDIES}


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
        left.set_ylabel("upper / best known lower bound")
        right.set_ylabel("seconds")
        plain_log(left, "y")
        plain_log(right, "y")
    found = means(rows)
    short = "; †: some cut short" if name != "ablation_relaxation" and found["short"].any() else ""
    counted = int(found["tasks"].max())
    all_of = f"{counted}" if counted == tasks else f"the {counted} of {tasks}"
    over = f"over {all_of} problem{'' if tasks == 1 else 's'}" + ("" if counted == tasks else " that all bounded")
    message = headline({str(n): (float(r["ratio"]), float(r["seconds"])) for n, r in found.iterrows()})
    entitle(figure, message or title, f"{title}; geometric means {over}{short}")
    return figure


if __name__ == "__main__":
    sys.exit(main(DRAWS, __doc__))
