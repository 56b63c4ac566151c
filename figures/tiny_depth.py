"""Value and time against depth, per method: figure and table.

python -m figures.tiny_depth

Reads what python -m experiments.tiny_depth computed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from figures import sweeps
from figures.style import Settings, main


def draw(settings: Settings) -> Iterator[Path]:
    """One figure and one table per radius."""
    return sweeps.draw(settings, "tiny_depth", "depth", "linear layers", "MLPs 16-32-...-32-10")


if __name__ == "__main__":
    sys.exit(main(draw, __doc__))
