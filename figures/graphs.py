"""Illustration: a network's forward graph and the backward graph of its gradient, coupled by the gates.

python -m figures.graphs

Needs no results.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from figures.style import GREY, PAGE, Settings, main, new_figure, save, style

BLUE, ORANGE = "#0072B2", "#D55E00"
WIDTH, HEIGHT, STEP = 1.1, 0.5, 1.55
TOP, BOTTOM = 1.25, 0.0

VALUES = ("$x$", "$z_1$", "$y_1$", "$z_2$", "$y_2$", "$c^\\top f$")
GRADIENTS = ("$J_0$", "$u_1$", "$J_1$", "$u_2$", "$J_2$", "$c$")
FORWARD = ("$A_1, b_1$", "$\\sigma$", "$A_2, b_2$", "$\\sigma$", "$A_3, b_3$")
BACKWARD = ("$A_1^\\top$", "$a_1 \\odot$", "$A_2^\\top$", "$a_2 \\odot$", "$A_3^\\top$")


def box(axes: Axes, x: float, y: float, text: str, color: str) -> None:
    """A node of a graph."""
    corner = (x - WIDTH / 2 + 0.05, y - HEIGHT / 2 + 0.05)
    outline = FancyBboxPatch(
        corner, WIDTH - 0.1, HEIGHT - 0.1, boxstyle="round,pad=0.05", facecolor="white", edgecolor=color, linewidth=1.2
    )
    axes.add_patch(outline)
    axes.text(x, y, text, ha="center", va="center", fontsize=9)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str, line: str = "-") -> None:
    """An edge of a graph."""
    drawn = FancyArrowPatch(
        start, end, shrinkA=0, shrinkB=0, arrowstyle="-|>", mutation_scale=9, color=color, linestyle=line, linewidth=1.1
    )
    axes.add_patch(drawn)


def draw(settings: Settings) -> Iterator[Path]:
    """Values from left to right above, gradients from right to left below, gates between."""
    with style():
        figure = new_figure(PAGE, 2.0)
        axes = figure.subplots()
        half = WIDTH / 2
        for k, (value, gradient) in enumerate(zip(VALUES, GRADIENTS, strict=True)):
            box(axes, k * STEP, TOP, value, BLUE)
            box(axes, k * STEP, BOTTOM, gradient, ORANGE)
        for k, (down, back) in enumerate(zip(FORWARD, BACKWARD, strict=True)):
            left, right = k * STEP + half, (k + 1) * STEP - half
            arrow(axes, (left, TOP), (right, TOP), BLUE)
            arrow(axes, (right, BOTTOM), (left, BOTTOM), ORANGE)
            axes.text((left + right) / 2, TOP + 0.1, down, ha="center", va="bottom", fontsize=7)
            axes.text((left + right) / 2, BOTTOM - 0.1, back, ha="center", va="top", fontsize=7)
        for k in (1, 3):
            arrow(axes, (k * STEP, TOP - HEIGHT / 2), (k * STEP, BOTTOM + HEIGHT / 2), GREY, "--")
            number = (k + 1) // 2
            gate = f"gate $a_{number} \\in \\partial\\sigma(z_{number})$"
            axes.text(k * STEP + 0.1, (TOP + BOTTOM) / 2, gate, ha="left", va="center", fontsize=8, color=GREY)
        axes.text(-half, TOP + 0.5, "forward: pre-activation bounds", color=BLUE, fontsize=8)
        axes.text(5 * STEP + half, BOTTOM - 0.5, "backward: bounds on the Clarke gradient, $L = \\max \\|J_0\\|_q$",
                  color=ORANGE, fontsize=8, ha="right", va="top")  # fmt: skip
        axes.set_xlim(-0.7, 5 * STEP + 0.7)
        axes.set_ylim(-0.8, 2.0)
        axes.set_axis_off()
        yield from save(figure, settings, "graphs")


if __name__ == "__main__":
    sys.exit(main(draw, __doc__))
