"""Tightness against time over all problems of the sweeps and images.

python -m figures.pareto

Reads what ``python -m experiments.sweeps`` and ``python -m experiments.images`` computed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from figures.style import Results, Settings, main, save, style
from lipcompare.report.figures.store import pareto

STUDIES = ("tiny_width", "tiny_depth", "tiny_cnn", "radius", "images")


def draw(settings: Settings) -> Iterator[Path]:
    """The figure."""
    frame = Results.read(settings, *STUDIES).frame
    with style():
        yield from save(pareto(frame, title="MLPs and CNNs of all sweeps, and images"), settings, "pareto")


if __name__ == "__main__":
    sys.exit(main(draw, __doc__))
