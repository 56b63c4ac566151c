"""Value and time against the depth of MLPs, per method: figure and table.

python -m figures.tiny_depth

Reads what ``python -m experiments.sweeps tiny_depth`` computed.
"""

from __future__ import annotations

import sys
from functools import partial

from figures.style import main
from figures.sweeps import Axis, draw_sweep

AXIS = Axis("depth", "linear layers", "MLPs 16-32-...-32-10, radius {}", "depth {}")
draw = partial(draw_sweep, "tiny_depth", AXIS)

if __name__ == "__main__":
    sys.exit(main(draw, __doc__))
