"""Value and time against the radius of the box, per method: figure and table.

python -m figures.radius

Reads what ``python -m experiments.sweeps radius`` computed.
"""

from __future__ import annotations

import sys
from functools import partial

from figures.style import main
from figures.sweeps import Axis, draw_sweep

AXIS = Axis("eps", "radius in l_inf", "{}, by radius", "radius {}", per="model")
draw = partial(draw_sweep, "radius", AXIS)

if __name__ == "__main__":
    sys.exit(main(draw, __doc__))
