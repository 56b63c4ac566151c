"""What else people ask: certified radii, constants of all outputs together, the whole space, and which exact method.

    python -m experiments.questions [--only radius,spectral,exact,everywhere] [--reference DIR] [--networks DIR]

One thread, float64; seconds are the processor's, of this process. Values are ours only. ``radius`` takes the first
three test images of MNIST and public networks for them; ``spectral`` and ``exact`` the reference networks;
``everywhere`` makes its own: tiny ones, where all patterns are tried by another linear program, and some of the sizes
that tables have. What is not there is named and left out.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import scipy.optimize
import torch
from rich.console import Console
from rich.table import Table

import lipcompare
from experiments.data import data_root, dataset
from experiments.reference import DEFAULT_DATA
from lipcompare import Network, Problem, Space
from lipcompare.errors import InvalidInput, nearest
from lipcompare.jacobian import RELAXATIONS
from lipcompare.network import Activate, Affine, Input, relu
from lipcompare.network.linear_maps import Dense
from lipcompare.preactivation import Tightening
from lipcompare.propagation import propagate
from lipcompare.quadratic.joint import joint_bound
from lipcompare.questions import certified_radius, exact_operator_norms, operator_norm_bounds
from lipcompare.regions.pieces import affine_pieces

NETWORKS = DEFAULT_DATA.parent / "data" / "networks"
DIGITS = ("vnncomp/mnist_fc/mnist-net_256x2.onnx", "converted/auto_LiRPA_mnist_fc_3layer.onnx")
SPECTRAL = (("mlp3_w16", 0.1), ("mlp3_w32", 0.3), ("mlp_d4_w32", 0.1))
EXACT = (("mlp3_w16", 0.02), ("mlp3_w16", 0.1), ("mlp_d2_w32", 0.1), ("mlp3_w32", 0.02), ("mlp_d4_w32", 0.02))
TINY = ((2, 3, 3, 2), (1, 3, 4, 1), (3, 4, 2), (2, 2, 2, 2, 1))
SIZES = ((4, 6, 6, 3), (11, 12, 12, 1))

Row = Sequence[str]
T = TypeVar("T")


def timed(work: Callable[[], T]) -> tuple[T, str]:
    """What it returns, and the processor's seconds."""
    started = time.process_time()
    result = work()
    return result, f"{time.process_time() - started:.2f}"


def radius(networks: Path, digits: Path) -> Iterator[Row]:
    """Mean certified radius of three images in l_inf."""
    images = dataset("mnist", digits).test.x[:3].reshape(3, -1) / 255.0
    for path in DIGITS:
        if not (networks / path).is_file():
            yield path, "", "", f"no {networks / path}"
            continue
        network = lipcompare.load(networks / path)
        for method in ("interval", "crown", "alpha-crown", "auto"):
            found, seconds = timed(lambda n=network, m=method: certified_radius(n, images, method=m))  # type: ignore[misc]
            yield path.rsplit("/", 1)[-1], method, seconds, f"{found.radius.mean():.6f}"


def reference(root: Path, name: str, eps: float, norm: str) -> Problem:
    """A reference network around its input."""
    path = root / f"{name}.npz"
    if not path.is_file():
        raise InvalidInput(f"no {path}")
    with np.load(path) as file:
        center = file["x0"]
    return Problem.around(lipcompare.load(path), center, eps, norm=norm)


def spectral(root: Path) -> Iterator[Row]:
    """The l2 constant of all outputs: closed form and program over the gates, and branch and bound on it."""
    for name, eps in SPECTRAL:
        problem, case = reference(root, name, eps, "2"), f"{name}@{eps}"
        for label, solve in (("closed form", False), ("program", True)):
            bound, seconds = timed(lambda p=problem, s=solve: _joint(p, s))  # type: ignore[misc]
            yield case, label, seconds, f"at most {bound:.4f}"
        for method in ("lbp", "sdp"):
            found, seconds = timed(lambda p=problem, m=method: operator_norm_bounds(p.network, p.box, 2, m))  # type: ignore[misc]
            yield case, f"{method} and search", seconds, f"{found.lower[0]:.4f} to {found.upper[0]:.4f}"
        exact, seconds = timed(lambda p=problem: exact_operator_norms(p.network, p.box, 2, gap=1e-3, time_limit=300))  # type: ignore[misc]
        yield case, "bab", seconds, f"{exact.lower[0]:.4f} to {exact.upper[0]:.4f}, {exact.status.name.lower()}"


def _joint(problem: Problem, solve: bool) -> float:
    with torch.no_grad():
        found = propagate(problem, Tightening.CROWN, RELAXATIONS["lbp"], joint=False, memory=2**30)
        bound = joint_bound(problem.network, found.gates, problem.functionals, found.gradients, solve=solve)
    return float(bound.upper[0])


def exact(root: Path, limit: float = 20.0) -> Iterator[Row]:
    """``exact`` beside the methods that it picks from."""
    for name, eps in EXACT:
        for norm in ("inf", "2", "1"):
            problem = reference(root, name, eps, norm)
            best = float("inf")
            for method in ("exact", "milp", "lipbab", "bab"):
                found, seconds = timed(lambda p=problem, m=method: lipcompare.bound(p, m, time_limit=limit))  # type: ignore[misc]
                closed = found.status is lipcompare.Status.EXACT
                taken = found.detail.split(".")[0] if method == "exact" else ""
                if closed and method != "exact":
                    best = min(best, float(seconds))
                value = f"{found.overall_upper[0]:.5f}" if closed else found.status.name.lower()
                yield f"{name}@{eps}, p = {norm}", method, seconds, f"{value} {taken}".strip()
            yield f"{name}@{eps}, p = {norm}", "best of the three", f"{best:.2f}", ""


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


def everywhere(count: int = 100) -> Iterator[Row]:
    """Exact constants on R^n: tiny networks against brute force, then larger ones."""
    worst, total = 0.0, 0.0
    for seed in range(count):
        problem = Problem(
            dense(seed, TINY[seed % 4]), Space.of(TINY[seed % 4][0]), lipcompare.Norm(["inf", "2", "1"][seed % 3])
        )
        found, seconds = timed(lambda p=problem: lipcompare.bound(p, "bab", gap=1e-11, time_limit=300))  # type: ignore[misc]
        total += float(seconds)
        truth = brute_force(problem)
        ends = np.array([found.overall_lower[0], found.overall_upper[0]])
        worst = max(worst, float(np.abs(ends - truth).max()) / max(truth, 1e-300))
    yield f"{count} tiny networks", "bab", f"{total:.2f}", f"brute force is missed by {worst:.1e} at most"
    for sizes in SIZES:
        for seed in range(2 if count >= 100 else 0):
            case = f"{'-'.join(map(str, sizes))} #{seed}"
            for norm in ("inf", "2"):
                problem = Problem(dense(seed, sizes), Space.of(sizes[0]), lipcompare.Norm(norm))
                found, seconds = timed(lambda p=problem: lipcompare.bound(p, "exact", time_limit=300))  # type: ignore[misc]
                ends_text = f"{found.overall_lower[0]:.5f} to {found.overall_upper[0]:.5f}"
                yield f"{case}, p = {norm}", "exact", seconds, f"{ends_text}, {found.status.name.lower()}"


SECTIONS = ("radius", "spectral", "exact", "everywhere")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS))
    parser.add_argument("--reference", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--networks", type=Path, default=NETWORKS)
    parser.add_argument("--data-root", type=Path, default=None)
    parser.add_argument("--tiny", type=int, default=100, help="tiny networks in the whole space")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    sections: dict[str, Callable[[], Iterator[Row]]] = {
        "radius": lambda: radius(given.networks, data_root(given.data_root)),
        "spectral": lambda: spectral(given.reference),
        "exact": lambda: exact(given.reference),
        "everywhere": lambda: everywhere(given.tiny),
    }
    console = Console()
    for name in given.only.split(","):
        if name not in sections:
            print(f"Unknown section {name!r}.{nearest(name, sections)}", file=sys.stderr)
            return 2
        table = Table("case", "method", "seconds", "result", title=name, title_justify="left")
        try:
            for row in sections[name]():
                table.add_row(*row)
        except InvalidInput as error:
            table.add_row("", "", "", str(error))
        console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
