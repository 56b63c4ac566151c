"""Performance profile: how many problems of the sweeps and images are solved to a gap in what time.

python -m figures.profile

Reads what ``python -m experiments.sweeps`` and ``python -m experiments.images`` computed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from figures.pareto import STUDIES
from figures.style import Results, Settings, main, save, style
from lipcompare.report.figures.store import profile


def draw(settings: Settings) -> Iterator[Path]:
    """The figure."""
    results = Results.read(settings, *STUDIES)
    with style():
        yield from save(profile(results.frame, results.trace), settings, "profile")


if __name__ == "__main__":
    sys.exit(main(draw, __doc__))
