"""Upper bounds and their times against depth, width and radius, one line per relaxation.

python -m figures.relaxation_sweeps

Reads what ``python -m experiments.relaxations`` computed.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from figures.style import PAGE, Look, Results, Settings, handle, line_style, looks, main, new_figure, save, style
from lipcompare.display.style import entitle, ordered, paper_name, plain_log
from lipcompare.report.facts import headline

_EPS = 0.1
_CUTS = "+cuts"
EXACT = "exact"
"""The series whose cells are there for the exact values."""


@dataclasses.dataclass(frozen=True)
class Sweep:
    """One column of panels: the rows that it shows, against what."""

    axis: str
    label: str
    title: str
    rows: pd.DataFrame


def sweeps(frame: pd.DataFrame) -> list[Sweep]:
    """Depth at the commonest width, width in two hidden layers, and radius for one network."""
    width = frame.groupby("width")["depth"].nunique().idxmax()
    middle = frame[frame["eps"] == _EPS]
    # Two networks may have the same shape: each sweep takes the one that comes with its own family.
    deep = middle[middle["width"] == width].sort_values("network", ascending=False)
    deep = deep.drop_duplicates(["depth", "method"])
    wide = middle[middle["depth"] == 3].sort_values("network").drop_duplicates(["width", "method"])
    return [
        Sweep("depth", "linear layers", f"Depth: width {width}, radius {_EPS:g}", deep),
        Sweep("width", "neurons per hidden layer", f"Width: 3 linear layers, radius {_EPS:g}", wide),
        Sweep("eps", "radius", f"Radius: {(name := _telling(frame))}", frame[frame["network"] == name]),
    ]


def _telling(frame: pd.DataFrame) -> str:
    """Of the networks whose exact values are known for most radii, the one where the linear bound is loosest."""
    linear = frame[frame["method"] == "lbp"].dropna(subset=["exact"])
    if linear.empty:
        return str(frame["network"].iloc[0])
    known = linear.groupby("network")["eps"].nunique()
    loose = (linear["upper"] / linear["exact"]).groupby(linear["network"]).max()
    return str(loose[known == known.max()].idxmax())


def panel(axes: Axes, sweep: Sweep, value: str, styles: dict[str, Look]) -> None:
    """One line per method; stars where the exact value is known."""
    for name, look in styles.items():
        part = sweep.rows[sweep.rows["method"] == name].sort_values(sweep.axis)
        axes.plot(part[sweep.axis], part[value], **line_style(look))
    exact = sweep.rows.dropna(subset=["exact"]).drop_duplicates(sweep.axis)
    if value == "upper":
        axes.plot(exact[sweep.axis], exact["exact"], color="black", marker="*", linestyle="none", zorder=3)
    plain_log(axes, "y")
    if sweep.axis != "depth":
        axes.set_xscale("log")
        ticks = sorted(sweep.rows[sweep.axis].unique())
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axes.set_xticks([], minor=True)
    axes.set_xlabel(sweep.label)


def bounds(results: Results) -> pd.DataFrame:
    """A row per network, radius and method, with the exact value where it is known beforehand or was proved."""
    rows = results.frame
    proved = rows[(rows["series"] == EXACT) & (rows["status"] == "exact")].set_index("task")["upper"]
    exact = rows["task"].map(proved)
    if "label.exact" in rows:
        exact = rows["label.exact"].fillna(exact)
    labels = {"network": "label.model", "depth": "label.depth", "width": "label.width", "eps": "label.eps"}
    columns = {**labels, "method": "series", **{name: name for name in ("upper", "seconds", "status")}}
    frame = pd.DataFrame({name: rows[column] for name, column in columns.items()}).assign(exact=exact)
    return frame[frame["method"] != EXACT]


def message(frame: pd.DataFrame) -> str:
    """Which relaxation is the tightest on all networks and radii, in the geometric mean, and at what cost.

    Those that bounded all of them are compared, without cuts, which are a part of the time put into one of them.
    """
    plain = frame[~frame["method"].str.endswith(_CUTS)]
    most = plain.groupby("method").size().max()
    bounded = plain[np.isfinite(plain["upper"]) & (plain["upper"] > 0)]
    logs = np.log(bounded[["upper", "seconds"]]).assign(method=bounded["method"]).groupby("method")
    means = np.exp(logs.mean()[logs.size() == most])
    return headline({paper_name(str(n)): (float(m["upper"]), float(m["seconds"])) for n, m in means.iterrows()})


def draw(settings: Settings) -> Iterator[Path]:
    """Bounds above, times below."""
    frame = bounds(Results.read(settings, "relaxations"))
    names = ordered(list(frame["method"]))
    styles = looks(names)
    for name in names:
        base = styles.get(name.removesuffix(_CUTS))
        if name.endswith(_CUTS) and base is not None:
            styles[name] = dataclasses.replace(base, line="--", hollow=True)
    with style():
        figure = new_figure(PAGE, 4.6)
        panels = figure.subplots(2, 3)
        for column, sweep in enumerate(sweeps(frame)):
            panel(panels[0, column], sweep, "upper", styles)
            panel(panels[1, column], sweep, "seconds", styles)
            panels[0, column].set_title(sweep.title)
        entitle(figure, message(frame))
        panels[0, 0].set_ylabel("certified upper bound, l_inf")
        panels[1, 0].set_ylabel("seconds, one thread")
        entries = [handle(paper_name(name), look) for name, look in styles.items()]
        if frame["exact"].notna().any():
            entries.append(Line2D([], [], color="black", marker="*", linestyle="none", label="exact"))
        figure.legend(handles=entries, loc="outside lower center", ncols=5)
        yield from save(figure, settings, "relaxation_sweeps")


if __name__ == "__main__":
    sys.exit(main(draw, __doc__))
