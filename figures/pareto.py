"""Over all problems of the study: tightness against time, and how many problems are solved to a gap in what time.

python -m figures.pareto            # both
python -m figures.pareto profile

Reads what the scripts in experiments computed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from figures.style import Results, Settings, main, save, style
from lipcompare.report.figures.store import pareto, profile

STUDIES = ("tiny_width", "tiny_depth", "tiny_cnn", "radius", "images")


def draw_pareto(settings: Settings) -> Iterator[Path]:
    """Tightness against time."""
    frame = Results.read(settings, *STUDIES).frame
    with style():
        yield from save(pareto(frame, title="MLPs and CNNs of all sweeps, and images"), settings, "pareto")


def draw_profile(settings: Settings) -> Iterator[Path]:
    """The performance profile."""
    results = Results.read(settings, *STUDIES)
    with style():
        yield from save(profile(results.frame, results.trace), settings, "profile")


DRAWS: dict[str, Callable[[Settings], Iterator[Path]]] = {"pareto": draw_pareto, "profile": draw_profile}

if __name__ == "__main__":
    sys.exit(main(DRAWS, __doc__))
