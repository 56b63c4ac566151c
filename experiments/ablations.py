"""What each part of the bounds buys: relaxation of the gate, bounds on pre-activations, cuts, splitting heuristic.

python -m experiments.ablations
python -m experiments.ablations --full --jobs 8

Then: python -m figures.ablation_cuts and so on. LipMIP's solvers are compared by python -m experiments.solver_swap.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Sequence

from rich.console import Console

from experiments.study import Choices, main
from experiments.sweeps import RADII, Sweep, sweep
from lipcompare.study.run import Setting, Study

TIGHTENINGS = ("interval", "crown", "alpha-crown")

RELAXATION = [
    Setting(method, {"tightening": level}, series=f"{name}, {level}")
    for level, (method, name) in itertools.product(
        TIGHTENINGS, (("ibp", "IBP"), ("recurjac", "RecurJac"), ("lbp", "paper"), ("sdp", "sdp"))
    )
]
CUTS = [
    Setting("sdp", series="sdp, no cuts"),
    *(Setting("sdp", {"cuts": n}, series=f"sdp, {n} cuts") for n in (100, 400)),
]
BRANCHING = [
    Setting("bab", {"bound": "lbp", "heuristic": h, "schedule": s}, series=f"lbp, {h}, {s}")
    for h, s in (("area", "classes"), ("babsr", "classes"), ("area", "queue"), ("babsr", "queue"))
] + [Setting("bab", {"bound": "sdp", "heuristic": h}, series=f"sdp, {h}") for h in ("area", "babsr", "moment", "mixed")]

NAMES = ("ablation_relaxation", "ablation_cuts", "ablation_branching")


def studies(chosen: Choices, console: Console) -> Sequence[Study]:
    """Two networks at two radii (one for branching, where 0.1 is easy), or four at three."""
    models = {"mlp3_w32": 32, "mlp_d4_w32": 32}
    full = {**models, "mlp3_w128": 128, "mlp_d6_w32": 32}
    easy = Sweep("width", models, (0.1, 0.3), full, RADII)
    cuts = dataclasses.replace(easy, seconds=20.0)
    hard = dataclasses.replace(easy, radii=(0.3,), seconds=6.0)
    return [
        sweep(NAMES[0], easy, chosen, console, RELAXATION),
        sweep(NAMES[1], cuts, chosen, console, [*CUTS, Setting("attack", series="attack")]),
        sweep(NAMES[2], hard, chosen, console, BRANCHING),
    ]


if __name__ == "__main__":
    sys.exit(main(studies, __doc__))
