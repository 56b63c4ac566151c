"""Share of test examples proved monotone, per feature and method.

    python -m figures.monotonicity [--data results/monotonicity.csv] [--out results/figures]

Reads what ``python -m experiments.monotonicity`` wrote; writes monotonicity.pdf, .svg and .png.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

COLOURS = {"increasing": "#0072B2", "decreasing": "#D55E00", "constant": "#999999", "neither": "#F0E442"}
"""Okabe and Ito's palette; undecided is left white."""
FORMATS = ("pdf", "svg", "png")


def draw(frame: pd.DataFrame) -> Figure:
    """One panel per method, one stacked bar per feature: increasing, decreasing, constant, neither."""
    methods, features = list(dict.fromkeys(frame["method"])), list(dict.fromkeys(frame["feature"]))
    figure = Figure(figsize=(2.2 + 2.4 * len(methods), 0.9 + 0.38 * len(features)), layout="constrained")
    panels = figure.subplots(1, len(methods), sharey=True, squeeze=False)[0]
    y = np.arange(len(features))
    for axes, method in zip(panels, methods, strict=True):
        part = frame[frame["method"] == method].set_index("feature").loc[features]
        start = np.zeros(len(features))
        for answer, colour in COLOURS.items():
            width = 100 * part[answer].to_numpy(float)
            axes.barh(y, width, left=start, color=colour, height=0.7, label=answer)
            start = start + width
        axes.set_title(method, fontsize=10)
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of examples")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(y, features)
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=8, frameon=False)
    return figure


def main(arguments: list[str] | None = None) -> int:
    """Draw; 2 if there is nothing to draw from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("results/monotonicity.csv"), help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("results/figures"), help="folder (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    if not chosen.data.exists():
        advice = "run python -m experiments.monotonicity first, or name the file with --data."
        print(f"No {chosen.data}: {advice}", file=sys.stderr)
        return 2
    figure = draw(pd.read_csv(chosen.data))
    chosen.out.mkdir(parents=True, exist_ok=True)
    for suffix in FORMATS:
        figure.savefig(chosen.out / f"monotonicity.{suffix}", dpi=200)
    print(f"{chosen.out}/monotonicity: {', '.join(FORMATS)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
