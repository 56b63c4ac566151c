"""Value and time against depth: MLPs 16-32-...-32-10 on synthetic data, by every method.

python -m experiments.tiny_depth
python -m experiments.tiny_depth --full --jobs 8

Then: python -m figures.tiny_depth
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from experiments.study import Choices, main
from experiments.tiny import RADII, sweep
from lipcompare.study.run import Study

NAME = "tiny_depth"


def studies(chosen: Choices, console: Console) -> Sequence[Study]:
    """Two to six linear layers at one radius, or two to eight at three."""
    depths = range(2, 9) if chosen.full else (2, 3, 4, 6)
    radii = RADII if chosen.full else (0.1,)
    return [sweep(NAME, "depth", {f"mlp_d{d}_w32": d for d in depths}, radii, chosen, console)]


if __name__ == "__main__":
    sys.exit(main(studies, __doc__))
