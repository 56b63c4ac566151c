"""What the three studies on synthetic data share: networks of one family at the centre of the unit cube."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console

from experiments.study import EVERYTHING, Choices, each
from lipcompare import Problem
from lipcompare.study.run import Setting, Study, Task

CENTER = 0.5
RADII = (0.02, 0.1, 0.3)
REDUCED_SECONDS = 5.0


def sweep(
    name: str,
    axis: str,
    models: Mapping[str, int],
    radii: Sequence[float],
    chosen: Choices,
    console: Console,
    settings: Sequence[Setting] = EVERYTHING,
    seconds: float = REDUCED_SECONDS,
) -> Study:
    """Every model of a family, by name and size, at every radius, by every method.

    Args:
        axis: name of the size, such as ``width``.
    """
    tasks = []
    for size, network, accuracy in each(models, chosen):
        console.print(f"{name}: {network.name} ({network.neurons} neurons), test accuracy {accuracy:.1%}")
        for eps in radii:
            problem = Problem.around(network, CENTER, eps)
            labels: dict[str, str | int | float | bool] = {"model": network.name, axis: size, "eps": eps}
            tasks.append(Task(problem, labels, {"accuracy": accuracy}))
    return Study(name, tasks, chosen.settings(settings), chosen.limits(seconds), chosen.device)
