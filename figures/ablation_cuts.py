"""What cuts buy the semidefinite bound: figure and table.

python -m figures.ablation_cuts

Reads what ``python -m experiments.ablations`` computed.
"""

from __future__ import annotations

import sys
from functools import partial

from figures.ablations import draw_ablation, variants
from figures.style import main

draw = partial(draw_ablation, "ablation_cuts", "Cuts", variants)

if __name__ == "__main__":
    sys.exit(main(draw, __doc__))
