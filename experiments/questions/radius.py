"""Certified radii in l_inf of single images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console

import lipcompare
from experiments.data import data_root, dataset
from experiments.measured import Measured, Outcome
from experiments.questions.cells import NAME, present, settings, timed, verdict
from experiments.study import Choices
from lipcompare import Network, Problem
from lipcompare.questions import certified_radius
from lipcompare.study.run import Setting, Study, Task

DIGITS = ("vnncomp/mnist_fc/mnist-net_256x2.onnx", "converted/auto_LiRPA_mnist_fc_3layer.onnx")
METHODS = ("interval", "crown", "alpha-crown", "auto")
"""Methods of certified radii."""


TARGETS = {
    ("mnist-net_256x2", "crown"): (0.01208, 0.3),
    ("mnist-net_256x2", "alpha-crown"): (0.0139, 5.0),
    ("auto_LiRPA_mnist_fc_3layer", "alpha-crown"): (0.01986, 4.0),
}
"""Mean radius of the first three test images, and seconds for all of them, by network and method."""


def verdicts(frame: pd.DataFrame) -> Iterator[str]:
    """Mean radii and seconds, and what they say of the targets."""
    rows = frame[frame["label.question"] == "radius"]
    for (case, method), each in rows.groupby(["label.case", "series"], sort=False):
        mean, total = each["label.radius"].mean(), each["seconds"].sum()
        line = f"{case}, {method}: mean radius {mean:.6f} in {total:.2f} s"
        if (target := TARGETS.get((str(case), str(method)))) is not None:
            radius, seconds = target
            line += f"; at least {radius:g} in {seconds:g} s: {verdict(mean >= radius and total <= seconds)}"
        yield line


def build(chosen: Choices, console: Console) -> Measured:
    """Certified radii of single images; those of one network are found together."""
    cases: list[tuple[str, Network, np.ndarray]] = []
    if chosen.reference is None:
        network, data, _ = chosen.network("digits_mlp", console)
        images = np.asarray(data.normalised(data.test.x[:3]), dtype=np.float64).reshape(3, -1)
        cases.append(("digits_mlp", network, images))
    else:
        images = dataset("mnist", data_root(chosen.data_root)).test.x[:3].reshape(3, -1) / 255.0
        folder = chosen.reference.parent / "data" / "networks"
        cases += [(Path(p).stem, lipcompare.load(present(folder / p)), images) for p in DIGITS]
    tasks = [
        Task(Problem.around(network, image, 0.0), {"question": "radius", "case": name, "example": k})
        for name, network, images in cases
        for k, image in enumerate(images)
    ]

    def work(some: Sequence[Task], setting: Setting) -> list[Outcome]:
        network, method = some[0].problem.network, str(setting.options["method"])
        points = torch.cat([task.problem.box.lower for task in some]).numpy()
        found, seconds = timed(lambda: certified_radius(network, points, method=method))
        return [Outcome(seconds / len(some), {"radius": float(r)}, message=found.status.value) for r in found.radius]

    return Measured(Study(NAME, tasks, settings("radius", METHODS, chosen), chosen.limits(60.0)), work, at_once=3)
