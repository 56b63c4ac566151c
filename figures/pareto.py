"""Over all problems of the study: tightness against time, and how many problems are solved to a gap in what time.

python -m figures.pareto

Reads what the scripts in experiments computed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from figures.style import Results, Settings, main, save, style
from lipcompare.errors import LipcompareError
from lipcompare.report.figures.store import pareto, profile

STUDIES = ("tiny_width", "tiny_depth", "tiny_cnn", "radius", "images")


def draw(settings: Settings) -> Iterator[Path]:
    """The Pareto plot and the performance profile."""
    results = Results.read(settings, *STUDIES)
    frame = results.frame
    if frame.empty:
        raise LipcompareError("The store has no rows of the study.")
    with style():
        yield from save(pareto(frame, title="All problems of the study"), settings.out, "pareto")
        yield from save(profile(frame, results.trace), settings.out, "profile")


if __name__ == "__main__":
    sys.exit(main(draw, __doc__))
