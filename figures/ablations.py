"""What the ablations' figures share: means over the problems that all variants bound, and a dot per variant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from figures.style import PAGE, Results, Settings, looks, new_figure, save, save_table, style
from lipcompare.display.frames import two_digits
from lipcompare.display.style import entitle
from lipcompare.report.facts import CUT_SHORT, headline, tightness
from lipcompare.report.tables import by_group


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


def variants(table: pd.DataFrame) -> Figure:
    """A dot per variant, in the colour of its bound; ``table`` as :func:`means` has it."""
    figure = new_figure(PAGE * 0.7, 0.8 + 0.27 * len(table))
    axes = figure.subplots()
    y = np.arange(len(table))
    axes.hlines(y, 1.0, table["ratio"], color="#BBBBBB", linewidth=2)
    for k, (name, look) in enumerate(looks(list(table.index)).items()):
        ratio, seconds, short, tasks = table.loc[name, ["ratio", "seconds", "short", "tasks"]]
        axes.plot(ratio, k, marker=look.marker, color=look.color, linestyle="none")
        few = "" if tasks == table["tasks"].max() else f", {tasks} of {table['tasks'].max()} problems"
        text = f"{ratio:.3f}, {two_digits(seconds)} s{'†' if short else ''}{few}"
        axes.annotate(text, (ratio, k), (6, 0), textcoords="offset points", va="center", fontsize=6.5)
    axes.set_yticks(y, list(table.index))
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set_xlim(1.0, 1.0 + 1.6 * max(float(table["ratio"].max()) - 1.0, 1e-3))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("upper bound / best known lower bound, and seconds")
    return figure


def draw_ablation(
    name: str, title: str, figure: Callable[[pd.DataFrame], Figure], settings: Settings, *, marks: bool = True
) -> Iterator[Path]:
    """The figure and the table of one ablation.

    Args:
        figure: makes the picture of what :func:`means` returns.
        marks: whether it marks what was cut short.
    """
    own = Results.read(settings, name).frame
    # What any study of the store proves about a problem counts.
    tight = tightness(Results.read(settings).frame)
    rows = tight[tight["study"] == name]
    if not rows.empty:  # else its methods are not in this version, as the table says
        found = means(rows)
        with style():
            made = figure(found)
            _entitle(made, title, found, rows["task"].nunique(), marks)
            yield from save(made, settings, name)
    table = by_group(own, ["label.model", "label.eps"], title, heading="{}, radius {}")
    yield from save_table(table, settings, name)


def _entitle(figure: Figure, title: str, found: pd.DataFrame, tasks: int, marks: bool) -> None:
    """What it says, over how many of the problems."""
    short = "; †: some cut short" if marks and found["short"].any() else ""
    counted = int(found["tasks"].max())
    all_of = f"{counted}" if counted == tasks else f"the {counted} of {tasks}"
    over = f"over {all_of} problem{'' if tasks == 1 else 's'}" + ("" if counted == tasks else " that all bounded")
    message = headline({str(n): (float(r["ratio"]), float(r["seconds"])) for n, r in found.iterrows()})
    entitle(figure, message or title, f"{title}; geometric means {over}{short}")
