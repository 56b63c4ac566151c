"""Time against size per solver, and value per tightening, from the solver-swap ablation.

    python -m figures.solver_swap [--data results/solver_swap.csv] [--out results/figures]

Reads what ``python -m experiments.solver_swap`` wrote; writes solver_swap.pdf, .svg and .png and the table as
solver_swap_table.csv.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito's palette: distinct for every common kind of colour vision."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LEVELS = ("interval", "crown", "alpha-crown", "signs", "lp", "milp")
SHOWN = "alpha-crown"
FORMATS = ("pdf", "svg", "png")
PROVED = ("optimal", "cutoff")


def draw(frame: pd.DataFrame) -> Figure:
    """Left: seconds of a solve against its number of binaries, per solver. Right: what tightening buys HiGHS."""
    figure = Figure(figsize=(8.6, 3.7), layout="constrained")
    left, right = figure.subplots(1, 2)
    limit = float(frame["time_limit"].max())
    level = SHOWN if SHOWN in set(frame["tightening"]) else str(frame["tightening"].iloc[0])
    names = list(dict.fromkeys(frame["solver"]))
    for k, name in enumerate(names):
        part = frame[(frame["solver"] == name) & (frame["tightening"] == level)].sort_values("binaries")
        _curve(left, part, "binaries", name, k)
    _finish(left, limit, f"Solvers ({level} big-Ms)", "binary variables")
    best = "highs" if "highs" in names else names[0]
    rows = frame[frame["solver"] == best]
    order = list(dict.fromkeys(frame["problem"]))
    for k, level in enumerate(found for found in LEVELS if found in set(rows["tightening"])):
        part = rows[rows["tightening"] == level]
        part = part.assign(place=part["problem"].map(order.index)).sort_values("place")
        _curve(right, part, "place", level, k)
    right.set_xticks(range(len(order)), [label.split("@")[0].replace("random_", "") for label in order], rotation=30)
    _finish(right, limit, f"Tightening of big-Ms ({best})", "network")
    return figure


def _curve(axes: Axes, part: pd.DataFrame, x: str, label: str, k: int) -> None:
    """One line; solves that proved their value are filled, the others hollow, refusals are left out."""
    ran = part[part["seconds"].notna() & ~part["status"].isin(["licence_too_small", "no_licence", "unsupported"])]
    if ran.empty:
        return
    colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
    seconds = ran["seconds"].clip(lower=1e-3)
    axes.plot(ran[x], seconds, color=colour, linewidth=1.2, alpha=0.8, label=label, marker=marker, markersize=5,
              markerfacecolor="white")  # fmt: skip
    done = ran["status"].isin(PROVED).to_numpy()
    proved = (ran[x].to_numpy()[done], seconds.to_numpy()[done])
    axes.plot(*proved, linestyle="none", color=colour, marker=marker, markersize=5)


def _finish(axes: Axes, limit: float, title: str, x: str) -> None:
    axes.set_yscale("log")
    axes.axhline(limit, color="#777777", linewidth=0.8, linestyle=":")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel("seconds (hollow: not proved; dotted: limit)", fontsize=8)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Per solver and tightening: programs, how many were proved, refused, median seconds, largest gap left."""
    value, bound = frame["value"].astype(float), frame["bound"].astype(float)
    with np.errstate(invalid="ignore"):
        gap = ((bound - value) / bound).where(np.isfinite(bound) & value.notna(), np.inf)
    refused = frame["status"].isin(["licence_too_small", "no_licence", "unsupported"])
    groups = frame.assign(gap=gap.where(~refused), proved=frame["status"].isin(PROVED), refused=refused)
    result = groups.groupby(["solver", "tightening"], sort=False).agg(
        programs=("problem", "size"),
        proved=("proved", "sum"),
        refused=("refused", "sum"),
        median_seconds=("seconds", "median"),
        total_seconds=("seconds", "sum"),
        largest_gap=("gap", "max"),
    )
    return result.reset_index()


def main(arguments: list[str] | None = None) -> int:
    """Draw; 2 if there is nothing to draw from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("results/solver_swap.csv"), help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("results/figures"), help="folder (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    if not chosen.data.exists():
        advice = "run python -m experiments.solver_swap first, or name the file with --data."
        print(f"No {chosen.data}: {advice}", file=sys.stderr)
        return 2
    frame = pd.read_csv(chosen.data)
    chosen.out.mkdir(parents=True, exist_ok=True)
    figure = draw(frame)
    for suffix in FORMATS:
        figure.savefig(chosen.out / f"solver_swap.{suffix}", dpi=200)
    summary = table(frame)
    summary.to_csv(chosen.out / "solver_swap_table.csv", index=False)
    print(summary.to_string(index=False, float_format=lambda v: f"{v:.3g}"))
    print(f"Written to {chosen.out}: solver_swap.pdf, .svg, .png and solver_swap_table.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
