"""Value and time against the width of MLPs, per method: figure and table.

python -m figures.tiny_width

Reads what ``python -m experiments.sweeps tiny_width`` computed.
"""

from __future__ import annotations

import sys
from functools import partial

from figures.style import main
from figures.sweeps import Axis, draw_sweep

AXIS = Axis("width", "hidden width", "MLPs 16-w-w-10, radius {}", "width {}")
draw = partial(draw_sweep, "tiny_width", AXIS)

if __name__ == "__main__":
    sys.exit(main(draw, __doc__))
