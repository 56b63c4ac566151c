"""Solver swap: time against size per solver, and what tightening the big-Ms buys; figure and table.

python -m figures.solver_swap

Reads what ``python -m experiments.solver_swap`` computed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.style import (
    GREY,
    PAGE,
    Look,
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
from lipcompare.display.frames import two_digits
from lipcompare.display.style import entitle, plain_log
from lipcompare.report.tables import Cell, Table

LEVELS = ("interval", "crown", "alpha-crown", "signs", "lp", "milp")
SHOWN = "alpha-crown"
PROVED = ("optimal", "cutoff")
REFUSED = ("licence_too_small", "no_licence", "unsupported")
NOTE = (
    "Programs whose optimum was proved within the time limit, of all (without those that a licence refused), and the "
    "seconds for all together. Bold: most programs proved, then least time."
)


def caption(frame: pd.DataFrame) -> str:
    """The programs and the limit."""
    return (
        f"LipMIP through every solver, {frame['problem'].nunique()} programs, at most {frame['time_limit'].max():g} s"
    )


def message(frame: pd.DataFrame) -> str:
    """The quickest of the solvers that proved most programs, beside the default one (or the slowest of them)."""
    ran = frame[~frame["status"].isin(REFUSED)]
    found = ran.assign(proved=ran["status"].isin(PROVED)).groupby("solver")[["proved", "seconds"]].sum()
    most = found[found["proved"] == found["proved"].max()].sort_values("seconds")
    if most.empty or not most["proved"].iloc[0]:
        return "No solver proved a program"
    best, other = most.index[0], "highs" if "highs" in most.index[1:] else most.index[-1]
    if best == other:
        return f"{best} proves most programs: {int(most['proved'].iloc[0])}"
    times = two_digits(float(most.loc[other, "seconds"] / most["seconds"].iloc[0]))
    return f"{best} is {times} times faster than {other} and proves as many programs"


def figure(frame: pd.DataFrame) -> Figure:
    """Left: seconds of a solve against its number of binaries, per solver. Right: what tightening buys one solver."""
    made = new_figure(PAGE, 4.9)
    upper, lower = made.subplots(2, 1)
    limit = float(frame["time_limit"].max())
    level = SHOWN if SHOWN in set(frame["tightening"]) else str(frame["tightening"].iloc[0])
    names = list(dict.fromkeys(frame["solver"]))
    part = frame[frame["tightening"] == level]
    _curves(upper, part, "solver", names, "binaries")
    _finish(upper, limit, f"Solvers, big-Ms from {level} bounds", "binary variables", "solver", names)
    best = "highs" if "highs" in names else names[0]
    rows = frame[frame["solver"] == best]
    order = list(dict.fromkeys(frame["problem"]))
    levels = [found for found in LEVELS if found in set(rows["tightening"])]
    rows = rows.assign(place=rows["problem"].map(order.index), level=rows["tightening"].map(_bounds))
    levels = [_bounds(level) for level in levels]
    _curves(lower, rows, "level", levels, "place")
    lower.set_xticks(range(len(order)), [re.sub(r"random_w(\d+)@(.+)", r"\1, \2", label) for label in order])
    _finish(lower, limit, f"Tightening of big-Ms, solver {best}", "width of the network, radius", "big-Ms from", levels)
    entitle(made, message(frame), caption(frame))
    return made


def _bounds(level: str) -> str:
    """In words, as some levels are called like methods, whose looks they must not have."""
    return f"{level} bounds"


def _curves(axes: Axes, rows: pd.DataFrame, column: str, names: Sequence[str], x: str) -> None:
    """A line per name; solves that proved their value are filled, the others hollow, refusals are left out."""
    for name, look in looks(names).items():
        ran = rows[(rows[column] == name) & rows["seconds"].notna() & ~rows["status"].isin(REFUSED)].sort_values(x)
        seconds = ran["seconds"].clip(lower=1e-3)
        axes.plot(ran[x], seconds, **{**line_style(look), "markerfacecolor": "white"})
        done = ran["status"].isin(PROVED).to_numpy()
        axes.plot(ran[x][done], seconds[done], linestyle="none", color=look.color, marker=look.marker)


def _finish(axes: Axes, limit: float, title: str, x: str, heading: str, names: Sequence[str]) -> None:
    axes.axhline(limit, color=GREY, linewidth=0.8, linestyle=":")
    plain_log(axes, "y")
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel("seconds")
    handles = [handle(name, look) for name, look in looks(names).items()]
    handles.append(handle("hollow: not proved", Look(GREY, "o", hollow=True), line=False))
    handles.append(Line2D([], [], label="time limit", color=GREY, linewidth=0.8, linestyle=":"))
    axes.legend(handles=handles, title=heading, alignment="left", loc="center left", bbox_to_anchor=(1.0, 0.5))


def table(frame: pd.DataFrame) -> Table:
    """A row per solver, a pair of columns per way to tighten the big-Ms."""
    solvers = list(dict.fromkeys(frame["solver"]))
    levels = [level for level in LEVELS if level in set(frame["tightening"])]
    ran = frame[~frame["status"].isin(REFUSED)]
    ends = ran.assign(proved=ran["status"].isin(PROVED)).groupby(["tightening", "solver"])
    sums = ends.agg(proved=("proved", "sum"), of=("proved", "size"), seconds=("seconds", "sum"))
    best = {level: max(sums.loc[level].itertuples(), key=lambda r: (r.proved, -r.seconds)).Index for level in levels}
    rows = []
    for solver in solvers:
        cells: list[Cell] = []
        for level in levels:
            if (level, solver) not in sums.index:
                cells += [Cell("licence"), Cell("")]
                continue
            end = sums.loc[(level, solver)]
            cells += [
                Cell(f"{end['proved']:.0f}/{end['of']:.0f}", solver == best[level]),
                Cell(two_digits(end["seconds"])),
            ]
        rows.append((solver, cells))
    return Table(caption(frame), [f"big-Ms: {level}" for level in levels], rows, NOTE, ("proved", "s"), corner="solver")


def solves(results: Results) -> pd.DataFrame:
    """A row per program and solver; how the solver ended is the status."""
    columns = ("problem", "tightening", "binaries", "solver", "value", "bound", "nodes", "ended")
    frame = pd.DataFrame({name: results.frame.get(f"label.{name}") for name in columns})
    return frame.rename(columns={"ended": "status"}).join(results.frame[["seconds", "time_limit"]])


def draw(settings: Settings) -> Iterator[Path]:
    """The figure and the table."""
    frame = solves(Results.read(settings, "solver_swap"))
    with style():
        yield from save(figure(frame), settings, "solver_swap")
    yield from save_table(table(frame), settings, "solver_swap")


if __name__ == "__main__":
    sys.exit(main(draw, __doc__))
