"""Value and time against the radius of the box: an MLP 16-32-32-10 on synthetic data, by every method.

python -m experiments.radius

Then: python -m figures.radius
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from experiments.study import Choices, main
from experiments.tiny import sweep
from lipcompare.study.run import Study

NAME = "radius"


def studies(chosen: Choices, console: Console) -> Sequence[Study]:
    """Four radii on one network, or nine on three."""
    radii = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0) if chosen.full else (0.01, 0.05, 0.2, 0.5)
    models = {"mlp3_w32": 3, "mlp3_w64": 3, "mlp_d5_w32": 5} if chosen.full else {"mlp3_w32": 3}
    return [sweep(NAME, "layers", models, radii, chosen, console, seconds=4.0)]


if __name__ == "__main__":
    sys.exit(main(studies, __doc__))
