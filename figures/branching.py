"""Interval against time for every bound and heuristic of branch and bound, and the subdomains each needs.

    python -m figures.branching [--data results/branching.csv] [--out results/figures]

Reads what ``python -m experiments.branching`` wrote; writes branching.pdf, .svg and .png and branching_table.csv.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito's palette: distinct for every common kind of colour vision."""
STYLES = ("-", "--", "-.", ":")
FORMATS = ("pdf", "svg", "png")


def draw(frame: pd.DataFrame) -> Figure:
    """One panel per problem: upper bounds over time, and the best lower bound."""
    labels = list(dict.fromkeys(frame["problem"]))
    figure = Figure(figsize=(max(6.5, 4.3 * len(labels)), 4.2), layout="constrained")
    panels = figure.subplots(1, len(labels), squeeze=False)[0]
    names = list(dict.fromkeys(frame["variant"]))
    for axes, label in zip(panels, labels, strict=True):
        here = frame[frame["problem"] == label]
        for k, name in enumerate(names):
            part = here[here["variant"] == name].sort_values("seconds")
            if part.empty:
                continue
            style = {"color": COLOURS[k % len(COLOURS)], "linestyle": STYLES[k % len(STYLES)], "linewidth": 1.4}
            axes.step(part["seconds"].clip(lower=1e-2), part["upper"], where="post", label=name, **style)
            closed = part[part["status"] == "exact"]
            axes.plot(closed["seconds"], closed["upper"], "o", markersize=4, color=style["color"])
        axes.axhline(here["lower"].max(), color="#777777", linewidth=0.8, linestyle=":", label="best lower bound")
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("{x:g}")
        axes.set_title(label, fontsize=10)
        axes.set_xlabel("seconds (dot: closed)")
        axes.set_ylabel("certified upper bound")
        axes.grid(color="#DDDDDD", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    handles, texts = panels[0].get_legend_handles_labels()
    figure.legend(handles, texts, fontsize=7, frameon=False, loc="outside lower center", ncols=min(4, 1 + len(labels)))
    return figure


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """How every run ended."""
    ends = frame[frame["nodes"].notna()]
    columns = ["problem", "variant", "lower", "upper", "seconds", "nodes", "status"]
    return ends[columns].astype({"nodes": int}).reset_index(drop=True)


def main(arguments: list[str] | None = None) -> int:
    """Draw; 2 if there is nothing to draw from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("results/branching.csv"), help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("results/figures"), help="folder (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    if not chosen.data.exists():
        advice = "run python -m experiments.branching first, or name the file with --data."
        print(f"No {chosen.data}: {advice}", file=sys.stderr)
        return 2
    frame = pd.read_csv(chosen.data)
    chosen.out.mkdir(parents=True, exist_ok=True)
    figure = draw(frame)
    for suffix in FORMATS:
        figure.savefig(chosen.out / f"branching.{suffix}", dpi=200)
    summary = table(frame)
    summary.to_csv(chosen.out / "branching_table.csv", index=False)
    print(summary.to_string(index=False, float_format=lambda v: f"{v:.5g}"))
    print(f"Written to {chosen.out}: branching.pdf, .svg, .png and branching_table.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
