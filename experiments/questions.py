"""What else people ask: certified radii, norms of all outputs together, the whole space, and which exact method.

    python -m experiments.questions [--only radius,norms,exact,everywhere] [--full --reference DIR --data-root DIR]

Every cell runs on one thread in float64, is a row of the results store (study ``questions``), and is printed with the
seconds of the processor that it took. Values are ours only.

``radius``: certified radii in l_inf, of a network on digits; with --reference of public networks for MNIST, which lie
beside the reference networks, and the first three test images. ``norms``: operator norms of the Jacobian of all
outputs, of random networks, one of them of LipBaB's shape 10-30-30-30-3 on [0, 0.1]^10; with --reference of trained
ones too.
``exact``: ``exact`` beside the methods that it picks from, and the largest ratio of its time to that of the best of
them. ``everywhere``: constants on R^n, of tiny networks, where all patterns are tried by another linear program, and of
networks trained on tables, with ReLU and GroupSort. Ends with 1 if a value contradicts another.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import scipy.optimize
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import lipcompare
from experiments import measured
from experiments.data import data_root, dataset
from experiments.measured import Measured, Outcome
from experiments.study import Choices, add_options, choices, guarded, progress_console
from lipcompare import Box, Network, Norm, Problem, Space, Status
from lipcompare.errors import InvalidInput, nearest
from lipcompare.jacobian import RELAXATIONS
from lipcompare.network import Activate, Affine, Input, relu
from lipcompare.network.linear_maps import Dense
from lipcompare.preactivation import Tightening
from lipcompare.propagation import propagate
from lipcompare.quadratic.joint import joint_bound
from lipcompare.questions import certified_radius, exact_operator_norms, operator_norm_bounds
from lipcompare.regions.pieces import affine_pieces
from lipcompare.store.database import Store
from lipcompare.study.run import Setting, Study, Task

NAME = "questions"
NORMS = ("inf", "2", "1")

DIGITS = ("vnncomp/mnist_fc/mnist-net_256x2.onnx", "converted/auto_LiRPA_mnist_fc_3layer.onnx")
RADIUS = ("interval", "crown", "alpha-crown", "auto")
"""Methods of certified radii."""

SPECTRAL = (("mlp3_w16", 0.1), ("mlp3_w32", 0.3), ("mlp_d4_w32", 0.1))
PUBLISHED = (("iris_4_5_5_3", 1.0), ("sdnet_10_20_15_10_3", 0.1))
"""Networks of LipBaB's authors, and the upper end of the box, whose lower one is 0."""
SHAPE = (10, 30, 30, 30, 3)
PUBLISHED_FORM = "Gen-Local CF"
NORM_METHODS = (PUBLISHED_FORM, "closed form", "program", "lbp", "sdp", "bab")
"""The first is the closed form of ECLipsE-Gen-Local with its own ranges of slopes, by the published formulas and in
plain floating point: not a bound that is proved here, and no end of an interval."""

EXACT = ("exact", "milp", "lipbab", "bab", "enumerate")
RANDOM = (((6, 8, 8, 3), 0.1), ((6, 8, 8, 3), 0.3), ((6, 16, 16, 3), 0.1), ((6, 10, 10, 10, 3), 0.1))
REFERENCE = ("mlp3_w16", "mlp_d2_w32", "mlp3_w32", "mlp_d3_w32", "mlp_d4_w32", "mlp_d5_w32", "mlp_d6_w32", "mlp_d7_w32",
             "mlp_d8_w32", "mlp3_w64", "mlp3_w128")  # fmt: skip
RADII = (0.02, 0.1, 0.3)
SOME = ("mlp3_w16", "mlp_d2_w32", "mlp3_w32", "mlp_d4_w32")
"""Reference networks of a reduced run."""
SLOWEST = 1.3
"""What ``exact`` should not take more than, in times of the best method."""

TINY = ((2, 3, 3, 2), (1, 3, 4, 1), (3, 4, 2), (2, 2, 2, 2, 1))
TABLES = {"iris": (4, 6, 6, 3), "abalone": (8, 10, 10, 1), "wine": (11, 12, 12, 1)}
MISSED = 1e-9
"""Relative difference from brute force that rounding accounts for."""

T = TypeVar("T")


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What it returns, and the processor's seconds."""
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def settings(question: str, methods: Sequence[str], chosen: Choices) -> list[Setting]:
    """One for every method that was asked for."""
    made = [Setting(NAME, {"question": question, "method": m}, series=m) for m in methods]
    return [s for s in made if not chosen.methods or s.label in chosen.methods]


def radius(chosen: Choices, console: Console) -> Measured:
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

    return Measured(Study(NAME, tasks, settings("radius", RADIUS, chosen), chosen.limits(60.0)), work, at_once=3)


def present(path: Path) -> Path:
    """The path of a file that has to be there."""
    if not path.is_file():
        raise InvalidInput(f"There is no {path}: --reference names the folder of the reference networks.")
    return path


def reference(root: Path, name: str, eps: float, norm: str) -> Problem:
    """A reference network around its input."""
    path = present(root / f"{name}.npz")
    with np.load(path) as file:
        center = file["x0"]
    return Problem.around(lipcompare.load(path), center, eps, norm=norm)


def corner(network: Network, reach: float, norm: str) -> Problem:
    """A network on ``[0, reach]^n``."""
    low = torch.zeros(1, network.in_size, dtype=torch.float64)
    return Problem(network, Box(low, low + reach), Norm(norm))


def norms(chosen: Choices, console: Console) -> Measured:
    """Operator norms of the Jacobian of all outputs; for p = 2 the closed form and the program over the gates too."""
    cases = [("random 8-12-12-4", Problem.around(dense(0, (8, 12, 12, 4)), 0.0, 0.1, norm="2"))]
    root = chosen.reference
    if root is not None:
        cases = [(f"{name}@{eps}", reference(root, name, eps, "2")) for name, eps in SPECTRAL]
        folder = root.parent / "data" / "networks" / "lipbab"
        cases += [
            (name, corner(lipcompare.load(present(folder / f"{name}.npz")), reach, norm))
            for name, reach in PUBLISHED
            for norm in NORMS
        ]
    seeds = 3 if chosen.full else 1
    cases += [(f"random {_shape(SHAPE)} #{s}", corner(dense(s, SHAPE), 0.1, n)) for s in range(seeds) for n in NORMS]
    tasks = [Task(problem, {"question": "norms", "case": c, "norm": problem.norm.value}) for c, problem in cases]
    limits = chosen.limits(30.0, 300.0)

    def work(some: Sequence[Task], setting: Setting) -> list[Outcome]:
        return [_operator_norm(task.problem, str(setting.options["method"]), limits.time) for task in some]

    return Measured(Study(NAME, tasks, settings("norms", NORM_METHODS, chosen), limits), work)


def _operator_norm(problem: Problem, method: str, limit: float) -> Outcome:
    network, box, norm = problem.network, problem.box, problem.norm
    assert isinstance(box, Box)
    if method in (PUBLISHED_FORM, "closed form", "program"):
        if norm is not Norm.TWO:
            return Outcome(0.0, status=Status.UNSUPPORTED, message="It is for p = 2.")
        if method == PUBLISHED_FORM:
            value, seconds = timed(lambda: published_form(network, box))
            return Outcome(seconds, {"formula": value})
        upper, seconds = timed(lambda: _joint(problem, method == "program"))
        return Outcome(seconds, upper=upper, proves="upper")
    if method == "bab":
        found, seconds = timed(lambda: exact_operator_norms(network, box, norm, gap=1e-3, time_limit=limit))
    else:
        found, seconds = timed(lambda: operator_norm_bounds(network, box, norm, method, time_limit=limit))
    proves = "exact" if method == "bab" else "interval"
    ends = float(found.lower[0]), float(found.upper[0])
    return Outcome(seconds, {}, *ends, proves, found.status, found.status.value)


def published_form(network: Network, box: Box) -> float:
    """ECLipsE-Gen-Local's closed form for a ReLU network of dense layers (Xu and Sivaranjani 2025).

    From the inputs on, ``M`` measures changes: those of the input have length at most that of the box's diagonal, which
    with ``W M^-1 W^T`` gives each neuron's range and so its slopes; ``M = l I - l^2 / 4 S W M^-1 W^T S`` with ``S`` the
    sums of the ends of the slopes and ``l`` twice the inverse of the largest eigenvalue of ``S W M^-1 W^T S``.
    """
    value, reach = box.interval.center[0].double(), box.interval.radius[0].double().norm()
    layers = [node for node in network.nodes if isinstance(node, Affine)]
    metric = torch.eye(network.in_size, dtype=torch.float64)
    for node in layers:
        weight = node.maps[0].matrix()
        inner = weight @ torch.linalg.solve(metric, weight.mT)
        if node is layers[-1]:
            return float(torch.linalg.eigvalsh(inner)[-1].sqrt())
        value = weight @ value + (0.0 if node.bias is None else node.bias)
        slopes = (value + reach * inner.diagonal().sqrt() > 0).double()
        inner = slopes.unsqueeze(-1) * inner * slopes
        if not bool(slopes.any()):
            return 0.0  # nothing passes
        scale = 2 / torch.linalg.eigvalsh(inner)[-1]
        metric = scale * torch.eye(len(inner), dtype=torch.float64) - scale**2 / 4 * inner
        value = value.relu()
    raise InvalidInput("A network without layers has no closed form.")


def _joint(problem: Problem, solve: bool) -> float:
    with torch.no_grad():
        found = propagate(problem, Tightening.CROWN, RELAXATIONS["lbp"], joint=False, memory=2**30)
        bound = joint_bound(problem.network, found.gates, problem.functionals, found.gradients, solve=solve)
    return float(bound.upper[0])


def exact(chosen: Choices, console: Console) -> Measured:
    """``exact`` beside the methods that it picks from."""
    root = chosen.reference
    if root is None:
        cases = [
            (f"random {_shape(sizes)}@{eps:g}", Problem.around(dense(1, sizes), 0.0, eps, norm=norm))
            for sizes, eps in RANDOM
            for norm in NORMS
        ]
    else:
        names = REFERENCE if chosen.full else SOME
        radii = RADII if chosen.full else RADII[:2]
        cases = [(f"{n}@{eps:g}", reference(root, n, eps, norm)) for eps in radii for n in names for norm in NORMS]
    tasks = [Task(problem, {"question": "exact", "case": c, "norm": problem.norm.value}) for c, problem in cases]
    limits = chosen.limits(5.0)

    def work(some: Sequence[Task], setting: Setting) -> list[Outcome]:
        return [_bounded(task.problem, str(setting.options["method"]), limits.time) for task in some]

    return Measured(Study(NAME, tasks, settings("exact", EXACT, chosen), limits), work)


def _bounded(problem: Problem, method: str, limit: float) -> Outcome:
    found, seconds = timed(lambda: lipcompare.bound(problem, method, time_limit=limit))
    taken = {"taken": found.detail.split(".")[0]} if method == "exact" else {}
    ends = float(found.overall_lower[0]), float(found.overall_upper[0])
    return Outcome(seconds, taken, *ends, "exact", found.status, found.status.value)


def ratios(frame: pd.DataFrame) -> dict[str, float]:
    """Per case that any method closes the ratio of ``exact``'s time to the best; infinite where it leaves it open."""
    found = {}
    for task, rows in frame[frame["label.question"] == "exact"].groupby("task"):
        closed = rows[rows["status"] == Status.EXACT.name.lower()].set_index("series")["seconds"]
        best = closed.drop("exact", errors="ignore").min()
        if np.isfinite(best):
            found[str(task)] = float(closed.get("exact", np.inf) / best)
    return found


def dense(seed: int, sizes: Sequence[int]) -> Network:
    """A network with random weights."""
    random = np.random.default_rng(seed)
    nodes: list[Input | Affine | Activate] = [Input(sizes[0])]
    for i, (before, after) in enumerate(itertools.pairwise(sizes)):
        weight = torch.from_numpy(random.normal(size=(after, before)) * (2 / before) ** 0.5)
        nodes.append(Affine((len(nodes) - 1,), (Dense(weight),), torch.from_numpy(0.3 * random.normal(size=after))))
        if i < len(sizes) - 2:
            nodes.append(Activate(len(nodes) - 1, relu(), after))
    return Network(tuple(nodes), (sizes[0],), (sizes[-1],))


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
    for _ in range(300):
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


def everywhere(chosen: Choices, console: Console) -> Measured:
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
                case = f"{name} {_shape(sizes)} {activation.__name__}"
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


def _shape(sizes: Sequence[int]) -> str:
    return "-".join(map(str, sizes))


PARTS: dict[str, measured.Build] = {"radius": radius, "norms": norms, "exact": exact, "everywhere": everywhere}


def check(chosen: Choices, console: Console) -> int:
    """1 if a value is not that of brute force, or a lower end is above another's upper one, else 0."""
    with Store(chosen.store, read_only=True) as store:
        frame = store.frame(NAME)
    wrong = []
    if "label.missed" in frame:
        wrong += frame[frame["label.missed"] > MISSED]["task"].tolist()
    for task, rows in frame[frame["lower"].notna() & frame["upper"].notna()].groupby("task"):
        if rows["lower"].max() > rows["upper"].min() * (1 + MISSED):
            wrong.append(task)
    for task in wrong:
        console.print(f"CONTRADICTION {task}")
    return int(bool(wrong))


def show(chosen: Choices, parts: Sequence[str], console: Console) -> None:
    """What the store has, a table per question."""
    with Store(chosen.store, read_only=True) as store:
        frame = store.frame(NAME)
    for part in parts:
        table = Table("case", "p", "method", "seconds", "result", title=part, title_justify="left")
        rows = frame[(frame["label.question"] == part) & frame["status"].notna()]
        for _, row in rows.iterrows():
            norm = row.get("label.norm")
            case, p = str(row["label.case"]), norm if isinstance(norm, str) else "inf"
            table.add_row(case, p, row["series"], f"{row['seconds']:.2f}", _said(row))
        console.print(table)
        if part == "radius" and len(rows):
            means = rows.groupby(["label.case", "series"])[["seconds", "label.radius"]].agg(["mean", "sum"])
            for (case, method), row in means.iterrows():
                mean, total = row["label.radius", "mean"], row["seconds", "sum"]
                console.print(f"{case}, {method}: mean radius {mean:.6f} in {total:.2f} s")
        if part == "exact" and (found := ratios(frame)):
            worst = max(found, key=lambda task: found[task])
            late = sum(ratio > SLOWEST for ratio in found.values())
            console.print(
                f"exact takes at most {found[worst]:.2f} times as long as the best method ({worst}); "
                f"more than {SLOWEST} times in {late} of {len(found)} cases"
            )


def _said(row: pd.Series) -> str:
    """The result of a row in words."""
    if pd.notna(row.get("label.radius")):
        return f"{row['label.radius']:.6f}"
    if pd.notna(row.get("label.formula")):
        return f"{row['label.formula']:.5g} by the formula"
    low, high = row["lower"], row["upper"]
    ends = f"{low:.5g} to {high:.5g}" if pd.notna(low) and pd.notna(high) else f"at most {high:.5g}"
    if pd.isna(high):
        ends = "nothing proved"
    taken = row.get("label.taken")
    extra = [row["status"], taken if isinstance(taken, str) else ""]
    if pd.notna(row.get("label.missed")):
        extra.append(f"brute force missed by {row['label.missed']:.1e}")
    return ", ".join([ends, *filter(None, extra)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute what the store lacks and print it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--only", default=",".join(PARTS), help="questions, separated by commas (default: all)")
    given = parser.parse_args(arguments)
    console = progress_console()

    def work() -> int:
        chosen, parts = choices(given), given.only.split(",")
        for part in parts:
            if part not in PARTS:
                raise InvalidInput(f"Unknown question {part!r}.{nearest(part, PARTS)}")
        for part in parts:
            if measured.compute(PARTS[part], chosen, console):
                return 130
        show(chosen, parts, Console())
        return check(chosen, console)

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
