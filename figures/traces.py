"""Interval against time for the methods that improve while they run, on a few problems of the study.

python -m figures.traces

Reads what the scripts in experiments computed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from figures.style import Results, Settings, main, save, style
from lipcompare.report.figures.store import over_time

STUDIES = ("tiny_width", "tiny_depth", "tiny_cnn")
PANELS = 3
LEAST_POINTS = 3


def draw(settings: Settings) -> Iterator[Path]:
    """Of every study the problem on which the methods say most on the way."""
    results = Results.read(settings, *STUDIES)
    counts = results.trace.groupby(["study", "task", "series"]).size()
    anytime = counts[counts >= LEAST_POINTS].groupby(["study", "task"]).agg(["size", "sum"]).reset_index()
    best = anytime.sort_values(["size", "sum"], ascending=False).drop_duplicates("study").head(PANELS)
    chosen = best[["study", "task"]]
    trace = results.trace.merge(chosen, on=["study", "task"])
    kept = set(counts[counts >= LEAST_POINTS].reset_index().merge(chosen, on=["study", "task"])["series"]) | {
        "sdp",
        "paper",
    }
    frame = results.frame.merge(chosen, on=["study", "task"])
    titles = {r.task: f"{r.network}, radius {r.radius:.2g}" for r in frame.itertuples()}
    with style():
        figure = over_time(trace[trace["series"].isin(kept)], frame, titles=titles)
        yield from save(figure, settings, "traces")


if __name__ == "__main__":
    sys.exit(main(draw, __doc__))
