"""Value and time against the channels of CNNs, per method: figure and table.

python -m figures.tiny_cnn

Reads what ``python -m experiments.sweeps tiny_cnn`` computed.
"""

from __future__ import annotations

import sys
from functools import partial

from figures.style import main
from figures.sweeps import Axis, draw_sweep

AXIS = Axis("width", "channels", "CNNs with two convolutions, radius {}", "width {}")
draw = partial(draw_sweep, "tiny_cnn", AXIS)

if __name__ == "__main__":
    sys.exit(main(draw, __doc__))
