"""Value and time against the width of a CNN: two convolutions of w channels on 1x8x8 synthetic images, by every method.

python -m experiments.tiny_cnn
python -m experiments.tiny_cnn --full --jobs 8

Then: python -m figures.tiny_cnn
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from experiments.study import Choices, main
from experiments.tiny import RADII, sweep
from lipcompare.study.run import Study

NAME = "tiny_cnn"


def studies(chosen: Choices, console: Console) -> Sequence[Study]:
    """Two to eight channels at one radius, or two to sixteen at three."""
    widths = (2, 4, 8, 16) if chosen.full else (2, 4, 8)
    radii = RADII if chosen.full else (0.1,)
    return [sweep(NAME, "width", {f"cnn_w{w}": w for w in widths}, radii, chosen, console)]


if __name__ == "__main__":
    sys.exit(main(studies, __doc__))
