"""Value and time against one size, by every method: networks of one family on synthetic data, in boxes of some radii.

    python -m experiments.sweeps                       # all of them
    python -m experiments.sweeps tiny_width tiny_cnn
    python -m experiments.sweeps radius --full --jobs 8

Then: python -m figures.NAME with the name of the sweep. The sweeps are the rows of SWEEPS.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console

from experiments.study import EVERYTHING, Choices, each, main
from lipcompare import Problem
from lipcompare.study.run import Setting, Study, Task

CENTER = 0.5
RADII = (0.02, 0.1, 0.3)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A family of networks, each by its name and size, in boxes of some radii.

    Attributes:
        axis: name of the size, such as ``width``.
        models, radii: of the reduced run.
        full_models, full_radii: of the full one.
        seconds: limit of a cell in the reduced run.
    """

    axis: str
    models: Mapping[str, int]
    radii: Sequence[float]
    full_models: Mapping[str, int]
    full_radii: Sequence[float] = RADII
    seconds: float = 5.0


SWEEPS = {
    "tiny_width": Sweep(
        "width", {f"mlp3_w{w}": w for w in (16, 32, 64)}, (0.3,), {f"mlp3_w{w}": w for w in (16, 32, 64, 128, 256)}
    ),
    "tiny_depth": Sweep(
        "depth", {f"mlp_d{d}_w32": d for d in (2, 3, 4, 6)}, (0.1,), {f"mlp_d{d}_w32": d for d in range(2, 9)}
    ),
    "tiny_cnn": Sweep("width", {f"cnn_w{w}": w for w in (2, 4, 8)}, (0.1,), {f"cnn_w{w}": w for w in (2, 4, 8, 16)}),
    "radius": Sweep(
        "layers", {"mlp3_w32": 3}, (0.01, 0.05, 0.2, 0.5), {"mlp3_w32": 3, "mlp3_w64": 3, "mlp_d5_w32": 5},
        (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0), seconds=4.0,
    ),
}  # fmt: skip
"""By the name of the study that each makes."""


def sweep(name: str, of: Sweep, chosen: Choices, console: Console, settings: Sequence[Setting] = EVERYTHING) -> Study:
    """Every model at every radius, by every method."""
    models, radii = (of.full_models, of.full_radii) if chosen.full else (of.models, of.radii)
    tasks = []
    for size, network, accuracy in each(models, chosen):
        console.print(f"{name}: {network.name} ({network.neurons} neurons), test accuracy {accuracy:.1%}")
        for eps in radii:
            problem = Problem.around(network, CENTER, eps)
            labels: dict[str, str | int | float | bool] = {"model": network.name, of.axis: size, "eps": eps}
            tasks.append(Task(problem, labels, {"accuracy": accuracy}))
    return Study(name, tasks, chosen.settings(settings), chosen.limits(of.seconds), chosen.device)


def studies(chosen: Choices, console: Console, names: Sequence[str] = tuple(SWEEPS)) -> Sequence[Study]:
    """A study per sweep."""
    return [sweep(name, SWEEPS[name], chosen, console) for name in names]


if __name__ == "__main__":
    sys.exit(main(studies, __doc__, names=tuple(SWEEPS)))
