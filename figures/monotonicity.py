"""Share of test examples proved monotone, per feature and method: figure and table.

python -m figures.monotonicity

Reads what ``python -m experiments.monotonicity`` computed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from figures.style import PAGE, Results, Settings, main, new_figure, save, save_table, style
from lipcompare.display.frames import two_digits
from lipcompare.display.style import entitle, paper_name
from lipcompare.report.tables import Cell, Table

LOOKS = {
    "increasing": ("#0072B2", "//"), "decreasing": ("#D55E00", "\\\\"), "constant": ("#999999", ""),
    "neither": ("#F0E442", ".."), "undecided": ("#FFFFFF", ""),
}  # fmt: skip
"""Okabe and Ito's colours, and hatches that tell the answers apart in grey."""

NOTE = (
    "Per cent of the test examples whose output is proved increasing (decreasing) in the feature, the others fixed, "
    "and seconds per example. Bold: the largest share of the methods."
)


def caption(frame: pd.DataFrame) -> str:
    """The data and the number of examples."""
    return f"Monotonicity on {frame['data'].iloc[0]}, {frame['examples'].iloc[0]} test examples"


def message(frame: pd.DataFrame) -> str:
    """Which method decides most, beside the paper's (or the least); the features count the same."""
    decided = (1 - frame.set_index("method")["undecided"]).groupby("method", sort=False).mean().sort_values()
    best, other = decided.index[-1], "lbp" if "lbp" in decided.index else decided.index[0]
    said = f"{paper_name(str(best))} decides {100 * decided[best]:.0f}% of the directions"
    return said if best == other else f"{said}, {paper_name(str(other))} {100 * decided[other]:.0f}%"


def figure(frame: pd.DataFrame) -> Figure:
    """One panel per method, one stacked bar per feature."""
    methods, features = list(dict.fromkeys(frame["method"])), list(dict.fromkeys(frame["feature"]))
    made = new_figure(PAGE, 1.1 + 0.27 * len(features))
    panels = made.subplots(1, len(methods), sharey=True, squeeze=False)[0]
    y = np.arange(len(features))
    for axes, method in zip(panels, methods, strict=True):
        part = frame[frame["method"] == method].set_index("feature").loc[features]
        start = np.zeros(len(features))
        for answer, (color, hatch) in LOOKS.items():
            width = 100 * part[answer].to_numpy(float)
            axes.barh(y, width, left=start, color=color, hatch=hatch, edgecolor="black", linewidth=0.4, height=0.7,
                      label=answer)  # fmt: skip
            start = start + width
        axes.set_title(paper_name(method))
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of examples")
        axes.grid(visible=False, axis="y")
    panels[0].set_yticks(y, features)
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside right center")
    entitle(made, message(frame), caption(frame))
    return made


def table(frame: pd.DataFrame) -> Table:
    """A row per feature, a group of columns per method."""
    methods, features = list(dict.fromkeys(frame["method"])), list(dict.fromkeys(frame["feature"]))
    found = frame.set_index(["feature", "method"])
    rows = []
    for feature in features:
        cells: list[Cell] = []
        for method in methods:
            mine = found.loc[(feature, method)]
            cells += [_share(mine, answer, found.loc[feature][answer]) for answer in ("increasing", "decreasing")]
            cells.append(Cell(two_digits(mine["seconds"])))
        rows.append((feature, cells))
    columns = ("increasing", "decreasing", "s")
    return Table(caption(frame), [paper_name(m) for m in methods], rows, NOTE, columns, corner="feature")


def _share(row: pd.Series, answer: str, among: pd.Series) -> Cell:
    share = float(row[answer])
    return Cell(f"{100 * share:.1f}", best=share > 0 and share == float(among.max()))


def shares(results: Results) -> pd.DataFrame:
    """A row per method and feature: the shares of the answers, and seconds per example."""
    rows = results.frame
    latest = rows[rows["label.data"] == rows["label.data"].iloc[-1]]
    groups = latest.groupby(["series", "label.feature"], sort=False)
    found = pd.DataFrame({answer: groups["label.answer"].agg(lambda a, answer=answer: (a == answer).mean())
                          for answer in LOOKS})  # fmt: skip
    found = found.assign(seconds=groups["seconds"].mean(), examples=groups.size(), data=latest["label.data"].iloc[0])
    return found.reset_index(names=["method", "feature"])


def draw(settings: Settings) -> Iterator[Path]:
    """The figure and the table."""
    frame = shares(Results.read(settings, "monotonicity"))
    with style():
        yield from save(figure(frame), settings, "monotonicity")
    yield from save_table(table(frame), settings, "monotonicity")


if __name__ == "__main__":
    sys.exit(main(draw, __doc__))
