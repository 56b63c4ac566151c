"""What relaxation and pre-activation bounds buy: every relaxation with each of three kinds of them, figure and table.

python -m figures.ablation_relaxation

Reads what ``python -m experiments.ablations`` computed.
"""

from __future__ import annotations

import sys
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.ablations import draw_ablation
from figures.style import PAGE, handle, line_style, looks, main, new_figure
from lipcompare.display.style import plain_log

LEVELS = ("interval", "crown", "alpha-crown")


def figure(table: pd.DataFrame) -> Figure:
    """Tightness and seconds, a line per relaxation over the three kinds."""
    made = new_figure(PAGE, 2.8)
    left, right = made.subplots(1, 2)
    relaxations(left, table, "ratio")
    relaxations(right, table, "seconds")
    left.set_ylabel("upper / best known lower bound")
    right.set_ylabel("seconds")
    plain_log(left, "y")
    plain_log(right, "y")
    return made


def relaxations(axes: Axes, table: pd.DataFrame, column: str) -> None:
    """Lines over the three pre-activation bounds, one per relaxation."""
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


draw = partial(draw_ablation, "ablation_relaxation", "Relaxation and pre-activation bounds", figure, marks=False)

if __name__ == "__main__":
    sys.exit(main(draw, __doc__))
