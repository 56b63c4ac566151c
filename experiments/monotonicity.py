"""How often is a network proved monotone in a feature? The paper's study on Adult.

python -m experiments.monotonicity
python -m experiments.monotonicity --full --data-root ../shared/data

A 108-512-512-512-2 network predicts whether an income is above 50K. For each test example and each of the six
continuous features the box lets that feature range over [0, 1] and fixes all others; the score of the class >50K is
proved increasing where the lower bound of its derivative is not negative, decreasing where the upper bound is not
positive. Unless --full is given and Adult's files are under the data root, a small table made here takes their place:
one feature raises the score, one lowers it, one does both. A row of the results store per example, feature and method
has the answer as a label. Then: python -m figures.monotonicity
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from torch import nn

import lipcompare
from experiments import measured
from experiments.data import Dataset, data_root, dataset
from experiments.measured import Measured, Outcome
from experiments.models import mlp
from experiments.readers import Split
from experiments.study import Choices
from experiments.train import Protocol, fit, trained
from lipcompare import Box, Network, Norm, Problem
from lipcompare.errors import InvalidInput
from lipcompare.preactivation import Tightening
from lipcompare.questions import Direction, monotonicity
from lipcompare.questions.halving import HALVINGS
from lipcompare.store.database import Store
from lipcompare.study.run import Setting, Study, Task

NAME = "monotonicity"
CONTINUOUS = 6
METHODS = {
    "ibp": ("ibp", Tightening.CROWN, 0),
    "recurjac": ("recurjac", Tightening.CROWN, 0),
    "lbp": ("lbp", Tightening.CROWN, 0),
    "lbp-halved": ("lbp", Tightening.CROWN, HALVINGS),
    "lbp-alpha": ("lbp", Tightening.ALPHA_CROWN, 0),
}
"""Bounds, what they start from and how often boxes may be halved, by the name of the series."""


def synthetic(points: int = 2000, seed: int = 0) -> Dataset:
    """Six features in [0, 1] and a label that rises with the first, falls with the second, and peaks in the third."""
    random = np.random.default_rng(seed)
    x = random.random((points, CONTINUOUS))
    score = 2 * x[:, 0] - 2 * x[:, 1] - 6 * (x[:, 2] - 0.5) ** 2 + 0.5 * x[:, 3] + 0.5
    y = (score + 0.2 * random.standard_normal(points) > 0).astype(np.int64)
    cut = int(0.7 * points)
    names = ("rising", "falling", "peaked", "slightly rising", "unused 1", "unused 2")
    return Dataset("synthetic", Split(x[:cut], y[:cut]), Split(x[cut:], y[cut:]), 2, features=names)


def feature_problem(network: Network, x: np.ndarray, feature: int) -> Problem:
    """The score of the last class over boxes in which one feature ranges over [0, 1]; x is (examples, inputs)."""
    lower = torch.as_tensor(x, dtype=torch.float64).clone()
    upper = lower.clone()
    lower[:, feature], upper[:, feature] = 0.0, 1.0
    score = torch.eye(network.out_size, dtype=torch.float64)[-1:]
    return Problem(network, Box(lower, upper), Norm.INF, score)


def build(chosen: Choices, console: Console) -> Measured:
    """Every test example and feature by every method; ten examples are bounded together."""
    module, data = _model(chosen, console)
    x = np.asarray(data.normalised(data.test.x[: chosen.count(20, 200)]), dtype=np.float64)
    network = lipcompare.load(module, input_shape=x.shape[1:], name=data.name)
    tasks = [
        Task(
            feature_problem(network, x[k : k + 1], feature),
            {"data": data.name, "feature": data.features[feature], "example": k},
            {"number": feature},
        )
        for feature in range(CONTINUOUS)
        for k in range(len(x))
    ]
    settings = [Setting(NAME, {"method": method}, series=method) for method in METHODS]
    wanted = chosen.settings(settings) if chosen.methods or chosen.full else settings[:4]
    return Measured(Study(NAME, tasks, wanted, chosen.limits(60.0)), answers, at_once=10)


def answers(tasks: Sequence[Task], setting: Setting) -> list[Outcome]:
    """One direction per task; those of one feature are bounded together."""
    bounding, tightening, halvings = METHODS[str(setting.options["method"])]
    outcomes = []
    for feature in dict.fromkeys(int(task.facts["number"]) for task in tasks):
        problems = [task.problem for task in tasks if task.facts["number"] == feature]
        lower, upper = (torch.cat([getattr(p.box, end) for p in problems]) for end in ("lower", "upper"))
        together = Problem(problems[0].network, Box(lower, upper), problems[0].norm, problems[0].functionals[0])
        started = time.perf_counter()
        found = monotonicity(together, [feature], bounding, tightening=tightening, halvings=halvings)
        seconds = (time.perf_counter() - started) / len(problems)
        outcomes += [Outcome(seconds, {"answer": d.name.lower()}, message=d.value) for d in found.directions[:, 0, 0]]
    return outcomes


def shares(frame: pd.DataFrame) -> str:
    """A line per method: the shares of the answers, in per cent of the questions."""
    lines = []
    for (data, method), answers_ in frame.dropna(subset=["label.answer"]).groupby(["label.data", "series"], sort=False):
        said = answers_["label.answer"].value_counts(normalize=True)
        parts = ", ".join(f"{d.name.lower()} {said.get(d.name.lower(), 0.0):.1%}" for d in Direction)
        lines.append(f"{data}, {method}: {parts} of {len(answers_)} questions, {answers_['seconds'].mean():.3f} s each")
    return "\n".join(lines)


def check(chosen: Choices, console: Console) -> int:
    """1 if a method proves of an example and feature what another has refuted, else 0."""
    with Store(chosen.store, read_only=True) as store:
        frame = store.frame(NAME)
    said = frame.dropna(subset=["label.answer"]).groupby("task")["label.answer"].agg(set)
    proved = {d.name.lower() for d in (Direction.INCREASING, Direction.DECREASING, Direction.CONSTANT)}
    wrong = [task for task, found in said.items() if "neither" in found and found & proved]
    for task in wrong:
        console.print(f"CONTRADICTION {task}")
    return int(bool(wrong))


def _model(chosen: Choices, console: Console) -> tuple[nn.Sequential, Dataset]:
    """Adult's network, or a smaller one on the synthetic table."""
    if chosen.full:
        try:
            data = dataset("adult", data_root(chosen.data_root))
        except InvalidInput as error:
            console.print(f"{error} Using the synthetic table instead.")
        else:
            done = trained("adult_mlp", data_root=chosen.data_root, cache=chosen.cache)
            console.print(f"adult_mlp (108-512-512-512-2): test accuracy {done.accuracy:.2%}")
            return done.module, data
    data = synthetic()
    torch.manual_seed(0)
    module = mlp(CONTINUOUS, 32, 32, 2)
    fit(module, data, Protocol(epochs=30))
    return module, data


if __name__ == "__main__":
    sys.exit(measured.main(build, __doc__, check=check))
