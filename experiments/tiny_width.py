"""Value and time against width: MLPs 16-w-w-10 on synthetic data, by every method.

python -m experiments.tiny_width
python -m experiments.tiny_width --full --jobs 8

Then: python -m figures.tiny_width
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from experiments.study import Choices, main
from experiments.tiny import RADII, sweep
from lipcompare.study.run import Study

NAME = "tiny_width"


def studies(chosen: Choices, console: Console) -> Sequence[Study]:
    """Widths 16 to 64 at one radius, or 16 to 256 at three."""
    widths = (16, 32, 64, 128, 256) if chosen.full else (16, 32, 64)
    radii = RADII if chosen.full else (0.3,)
    return [sweep(NAME, "width", {f"mlp3_w{w}": w for w in widths}, radii, chosen, console)]


if __name__ == "__main__":
    sys.exit(main(studies, __doc__))
