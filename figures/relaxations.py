"""Illustrations: the relaxations of a gate (the paper's chords, RecurJac's interval) and of the absolute value.

python -m figures.relaxations

Draws what lipcompare's own functions return for one interval; needs no results.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes

from figures.style import GREY, PAGE, Settings, looks, main, new_figure, save, style
from lipcompare.jacobian.lines import LineRule, chords, constants
from lipcompare.jacobian.norms import absolute_chord
from lipcompare.network.interval import Interval

LOWER, UPPER = -1.0, 2.0
SHADE = "#E6E6E6"


def gate(axes: Axes, rule: LineRule, name: str, title: str) -> None:
    """The set of (J, aJ) with a in [0, 1], and the two lines around it."""
    x = np.linspace(LOWER, UPPER, 301)
    axes.fill_between(x, np.minimum(x, 0), np.maximum(x, 0), color=SHADE, label="$u = aJ$, $0 ≤ a ≤ 1$")
    one = torch.ones((), dtype=torch.float64)
    lines = rule(Interval(LOWER * one, UPPER * one), Interval(0 * one, one))
    middle, spread, far = float(lines.slope), float(lines.slope_spread), float(lines.offset_spread)
    center = 0.0 if lines.offset is None else float(lines.offset)
    color = looks([name])[name].color
    for sign, line, label in ((1, "-", "upper line"), (-1, "--", "lower line")):
        axes.plot(x, (middle + sign * spread) * x + center + sign * far, color=color, linestyle=line, label=label)
    _axes(axes, title, "$u$")


def absolute(axes: Axes) -> None:
    """|J| and the chord above it."""
    x = np.linspace(LOWER, UPPER, 301)
    one = torch.ones((), dtype=torch.float64)
    slope, intercept = (float(v) for v in absolute_chord(Interval(LOWER * one, UPPER * one)))
    color = looks(["paper"])["paper"].color
    axes.fill_between(x, np.abs(x), slope * x + intercept, color=SHADE)
    axes.plot(x, np.abs(x), color="black", label="$|J|$")
    axes.plot(x, slope * x + intercept, color=color, label="upper line")
    _axes(axes, "Norm: $|J|$", "$|J|$")


def _axes(axes: Axes, title: str, label: str) -> None:
    axes.axhline(0, color=GREY, linewidth=0.5)
    axes.axvline(0, color=GREY, linewidth=0.5)
    axes.set_xticks([LOWER, 0, UPPER], ["$L$", "0", "$U$"])
    axes.set_xlabel("incoming gradient $J$")
    axes.set_ylabel(label)
    axes.set_title(title)
    axes.set_yticks([LOWER, 0, UPPER] if label == "$u$" else [0, -LOWER, UPPER])
    axes.set_yticklabels(["$L$", "0", "$U$"] if label == "$u$" else ["0", "$-L$", "$U$"])
    axes.set_ylim(-1.3 if label == "$u$" else -0.3, 2.3)
    axes.grid(visible=False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.25), ncols=2, columnspacing=1.0, handlelength=1.5)


def draw(settings: Settings) -> Iterator[Path]:
    """Three panels."""
    with style():
        figure = new_figure(PAGE, 2.5)
        first, second, third = figure.subplots(1, 3)
        gate(first, chords, "paper", "Gate: the paper's chords")
        gate(second, constants, "RecurJac", "Gate: RecurJac's interval")
        absolute(third)
        yield from save(figure, settings, "relaxations")


if __name__ == "__main__":
    sys.exit(main(draw, __doc__))
