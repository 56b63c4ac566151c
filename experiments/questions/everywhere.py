"""Constants on all inputs: of tiny networks, against brute force, and of networks trained on tables."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import scipy.optimize
import torch
from rich.console import Console
from torch import Tensor, nn

import lipcompare
from experiments.measured import Measured, Outcome
from experiments.questions.cells import NAME, NORMS, settings, shape, timed
from experiments.study import Choices
from lipcompare import Network, Norm, Problem, Space
from lipcompare.regions.pieces import affine_pieces
from lipcompare.study.run import Setting, Study, Task
from lipcompare.testing.networks import dense

TINY = ((2, 3, 3, 2), (1, 3, 4, 1), (3, 4, 2), (2, 2, 2, 2, 1))
TABLES = {"iris": (4, 6, 6, 3), "abalone": (8, 10, 10, 1), "wine": (11, 12, 12, 1)}
STEPS = 300
"""Of Adam, on all rows of a table at once."""


class GroupSort(nn.Module):
    """Pairs of neighbours in order."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., even number) -> the same."""
        pairs: Tensor = x.unflatten(-1, (-1, 2)).sort(-1).values
        return pairs.flatten(-2)


def table_network(name: str, activation: type[nn.Module], seed: int = 0) -> Network:
    """A network of the size of a table: on iris itself, or on a table of a smooth function made here."""
    sizes = TABLES[name]
    if name == "iris":
        from sklearn.datasets import load_iris

        x, y = load_iris(return_X_y=True)
        inputs, labels = torch.from_numpy((x - x.mean(0)) / x.std(0)), torch.from_numpy(y)
    else:
        random = torch.Generator().manual_seed(seed)
        inputs = torch.randn(400, sizes[0], generator=random, dtype=torch.float64)
        directions = torch.randn(sizes[0], 3, generator=random, dtype=torch.float64) / sizes[0] ** 0.5
        labels = (2 * inputs @ directions).sin().sum(-1, keepdim=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Linear(a, b).double() for a, b in itertools.pairwise(sizes)]
    module = nn.Sequential(*itertools.chain(*((layer, activation()) for layer in layers[:-1])), layers[-1])
    loss = nn.CrossEntropyLoss() if name == "iris" else nn.MSELoss()
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(module(inputs), labels).backward()
        optimizer.step()
    return lipcompare.load(module.requires_grad_(False), name=f"{name} {activation.__name__}")


def brute_force(problem: Problem) -> float:
    """The largest dual norm over all patterns whose closed region in R^n a linear program finds."""
    network, best = problem.network, 0.0
    sizes = [network.nodes[k].size for k in network.activations]
    for bits in itertools.product([0.0, 1.0], repeat=sum(sizes)):
        slopes = dict(zip(network.activations, torch.tensor(bits, dtype=torch.float64).split(sizes), strict=True))
        pieces = affine_pieces(network, slopes)
        signs = {k: (2 * slopes[k] - 1).numpy() for k in pieces}
        A = np.concatenate([-piece.matrix.numpy() * signs[k][:, None] for k, piece in pieces.items()])
        b = np.concatenate([piece.offset.numpy() * signs[k] for k, piece in pieces.items()])
        if scipy.optimize.linprog(np.zeros(A.shape[1]), A, b, bounds=(None, None)).status == 0:
            gradient = network.pull_back(slopes, problem.functionals[0])
            best = max(best, float(problem.norm.dual.of(gradient).max()))
    return best


def build(chosen: Choices, console: Console) -> Measured:
    """Exact constants on R^n: tiny networks against brute force, then networks on tables."""
    count = 100 if chosen.full else 8
    tasks = []
    for seed in range(count):
        sizes, norm = TINY[seed % 4], NORMS[seed % 3]
        labels = {"question": "everywhere", "case": f"tiny #{seed}", "norm": norm}
        tasks.append(Task(Problem(dense(seed, sizes), Space.of(sizes[0]), Norm(norm)), labels))
    for name, sizes in TABLES.items():
        for activation in (nn.ReLU, GroupSort) if chosen.full or name == "iris" else (nn.ReLU,):
            network = table_network(name, activation)
            for norm in ("inf", "2"):
                case = f"{name} {shape(sizes)} {activation.__name__}"
                labels = {"question": "everywhere", "case": case, "norm": norm}
                tasks.append(Task(Problem(network, Space.of(sizes[0]), Norm(norm)), labels))
    limits = chosen.limits(60.0)

    def work(some: Sequence[Task], setting: Setting) -> list[Outcome]:
        return [_on_all_inputs(task, str(setting.options["method"]), limits.time) for task in some]

    return Measured(Study(NAME, tasks, settings("everywhere", ["bab"], chosen), limits), work)


def _on_all_inputs(task: Task, method: str, limit: float) -> Outcome:
    tiny = str(task.labels["case"]).startswith("tiny")
    gap = 1e-11 if tiny else 1e-4
    found, seconds = timed(lambda: lipcompare.bound(task.problem, method, gap=gap, time_limit=limit))
    ends = float(found.overall_lower[0]), float(found.overall_upper[0])
    facts = {}
    if tiny:
        truth = brute_force(task.problem)
        facts["missed"] = float(np.abs(np.array(ends) - truth).max()) / max(truth, 1e-300)
    return Outcome(seconds, facts, *ends, "exact", found.status, found.status.value)
