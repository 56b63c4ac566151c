"""What the rows of a results store say, in numbers and in words: which ran, what is best known, what contradicts it.

All take frames of :class:`~lipcompare.store.database.Store`; ``comparable`` makes one of what
:func:`lipcompare.compare` returns.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lipcompare.display.frames import two_digits

RAN = ("complete", "exact", "time_limit", "node_limit", "memory_limit", "numerical")
"""Statuses of cells that may have proved something."""

CUT_SHORT = ("time_limit", "node_limit", "memory_limit")

_SAME = 5e-3
"""Relative difference of two bounds that nobody would call tighter."""

ROUNDING = 1e-9
"""Relative difference of two bounds that contradicts nothing."""

_ZERO = 1e-12
"""A constant below this is that of a network that is dead in the box; no logarithmic axis shows it."""


def finished(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that ran, with ``value``: the upper bound, or the lower one of a method that proves no other."""
    rows = frame[frame["status"].isin((*RAN, "out_of_memory", "crashed"))].copy()
    only_lower = (rows["proves"] == "lower").to_numpy()
    value = np.where(only_lower, rows["lower"], rows["upper"]).astype(float)
    rows["value"] = np.where(np.isfinite(value) & (value > _ZERO), value, np.nan)
    return rows


def comparable(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of a store, or those of a comparison in its columns: a problem is known by its name and the example."""
    if "series" in frame:
        return frame
    task = frame["problem"] + " #" + frame["example"].astype(str)
    return pd.DataFrame(frame).assign(study="", task=task, problem_hash=task, series=frame["method"], time_limit=np.nan)


def distinct(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per problem and series: a problem of two studies counts once."""
    return frame.drop_duplicates(["problem_hash", "series"])


def best_known(frame: pd.DataFrame) -> pd.Series:
    """Per problem (its hash) the largest lower bound of any cell; NaN where nobody has proved one."""
    ran = frame[frame["status"].isin(RAN)]
    lower = ran.groupby("problem_hash")["lower"].max()
    return lower.where(lower > _ZERO).rename("best")


def contradictions(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows whose upper bound is below what another method attained on the same problem: none, unless of a bug."""
    rows = frame[frame["status"].isin(RAN)]
    rows = rows.join(best_known(rows), on="problem_hash")
    return rows[rows["upper"] * (1 + ROUNDING) < rows["best"]]


def tightness(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with an upper bound, with ``ratio``: the bound over the best known lower one, where there is one."""
    rows = finished(frame)
    rows = rows.join(best_known(frame), on="problem_hash")
    rows = rows[np.isfinite(rows["upper"]) & rows["best"].notna()]
    return rows.assign(ratio=rows["upper"] / rows["best"])


def smallest(points: Mapping[str, pd.DataFrame]) -> pd.Series:
    """The smallest value of any series, by the index that they share."""
    return pd.concat([p["value"] for p in points.values()]).groupby(level=0).min() if points else pd.Series(dtype=float)


def headline(bounds: Mapping[str, tuple[float, float]]) -> str:
    """Which upper bound is the smallest, how much smaller than the paper's (or the next), and at what cost.

    Args:
        bounds: value and seconds by series, those that have both.
    """
    finite = {name: (v, s) for name, (v, s) in bounds.items() if np.isfinite(v) and v > 0 and s > 0}
    if len(finite) < 2:
        return ""
    first, second = sorted(finite, key=lambda name: finite[name])[:2]
    other = "paper" if "paper" in finite and first != "paper" else second
    ratio, times = finite[other][0] / finite[first][0], finite[first][1] / finite[other][1]
    if ratio < 1 + _SAME:
        return f"{first} and {other} prove the same"
    cost = "the same time" if 0.8 < times < 1.25 else f"{two_digits(times)} times the time"
    return f"{first} is {ratio:.3g} times tighter than {other}, in {cost}"


def quickest(frame: pd.DataFrame) -> str:
    """Which series is exact on most problems, and if several are, in the least time in all; nothing if none is.

    Args:
        frame: a row per problem (study and task) and series, with status and seconds.
    """
    several = frame.groupby(["study", "task"]).ngroups
    ends = frame.assign(closed=frame["status"] == "exact").groupby("series")[["closed", "seconds"]].sum()
    best = ends.sort_values(["closed", "seconds"], ascending=[False, True]).iloc[0]
    closed, seconds = int(best["closed"]), two_digits(float(best["seconds"]))
    if not closed:
        return ""
    on = "" if several == 1 else f" on {closed} of {several} problems"
    return f"{best.name} is exact{on}, in {seconds} s{' together' if several > 1 else ''}"
