"""Value and time against the width of a CNN, per method: figure and table.

python -m figures.tiny_cnn

Reads what python -m experiments.tiny_cnn computed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from figures import sweeps
from figures.style import Settings, main


def draw(settings: Settings) -> Iterator[Path]:
    """One figure and one table per radius."""
    return sweeps.draw(settings, "tiny_cnn", "width", "channels", "CNNs with two convolutions")


if __name__ == "__main__":
    sys.exit(main(draw, __doc__))
