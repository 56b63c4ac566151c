"""Everything against everything, for hours: ``python -m experiments.differential --hours 8``.

Random problems, and on each of them methods, questions and free solvers. Half of the problems are tiny and attack
rounding (:mod:`lipcompare.testing.hostile`); the truth about them is known in rational arithmetic. The others are
ordinary small networks (dense, convolutional, residual, pooling, leaky, smooth); there results are held against each
other and against derivatives at points, enclosed in float64. Whatever contradicts, crashes, or has a wrong status is
written to a file from which ``--replay`` makes it again. At the end, and every few minutes, the number of cases of each
kind is printed. A case is one run of one method or question on one problem.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import lipcompare
import solvers
from lipcompare import METHODS, Bound, Network, Problem, Status
from lipcompare.domain import Norm, NormBall
from lipcompare.errors import UnsupportedOperation
from lipcompare.gates import Gates
from lipcompare.jacobian import interval_gradient
from lipcompare.network.from_torch import from_module
from lipcompare.network.interval import Interval
from lipcompare.preactivation import interval_bounds
from lipcompare.questions.certify import certified_radius
from lipcompare.questions.entries import jacobian_bounds
from lipcompare.questions.monotone import Direction, monotonicity
from lipcompare.questions.operator_norm import operator_norm_bounds
from lipcompare.testing import exact, hostile

CHEAP = ("naive", "ibp", "recurjac", "lbp")
QUESTIONS = ("monotone", "jacobian", "operator-norm", "certify")
SOLVERS = ("highs", "pulp", "cvxpy:CLARABEL", "cvxpy:SCIPY")
GAP = 1e-4


@dataclasses.dataclass(frozen=True)
class Spec:
    """A problem that can be made again.

    Attributes:
        kind: a family of tiny problems, or of ordinary networks.
        seed: of the network, the domain and what else is drawn.
        norm, dtype: by name.
    """

    kind: str
    seed: int
    norm: str
    dtype: str

    @property
    def tiny(self) -> bool:
        """Whether the truth is known in rational arithmetic."""
        return self.kind in hostile.FAMILIES

    def problem(self) -> Problem:
        dtype: torch.dtype = getattr(torch, self.dtype)
        if self.tiny:
            return hostile.problem(self.kind, self.seed, self.norm, dtype)
        random = torch.Generator().manual_seed(self.seed)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            network = NETWORKS[self.kind]()
        center = torch.rand(1, network.in_size, generator=random, dtype=torch.float64)
        radius = float(10 ** (-3 * torch.rand((), generator=random)))
        ball = ("inf", "inf", "inf", "1", "2")[int(torch.randint(5, (), generator=random))]
        return Problem.around(network, center, radius, norm=self.norm, ball=ball, dtype=dtype)


class Residual(nn.Module):
    """Two layers beside the identity."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(size, size), nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


def _imported(shape: tuple[int, ...], *layers: nn.Module) -> Network:
    return from_module(nn.Sequential(*layers).double(), input_shape=shape)


NETWORKS: dict[str, Callable[[], Network]] = {
    "dense": lambda: _imported((4,), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)),
    "leaky": lambda: _imported((3,), nn.Linear(3, 6), nn.LeakyReLU(0.1), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)),
    "residual": lambda: _imported((3,), nn.Linear(3, 5), Residual(5), nn.Linear(5, 2)),
    "convolutional": lambda: _imported(
        (1, 4, 4), nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 2, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(8, 2),
    ),
    "pooling": lambda: _imported(
        (1, 4, 4), nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 2)
    ),
    "smooth": lambda: _imported((3,), nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Sigmoid(), nn.Linear(4, 2)),
    "gelu": lambda: _imported((3,), nn.Linear(3, 5), nn.GELU(), nn.Linear(5, 4), nn.SiLU(), nn.Linear(4, 2)),
    "elu": lambda: _imported((3,), nn.Linear(3, 5), nn.ELU(), nn.Linear(5, 4), nn.Softplus(), nn.Linear(4, 2)),
}  # fmt: skip


@dataclasses.dataclass
class Tally:
    """What ran and what was found.

    Attributes:
        cases: number of cases by what ran, kind of problem and precision.
        found: findings, each with what makes it again.
    """

    folder: Path
    cases: collections.Counter[tuple[str, str, str]] = dataclasses.field(default_factory=collections.Counter)
    found: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.cases.values())

    def report(self, spec: Spec, what: str, trouble: str, **numbers: object) -> None:
        """Keep a finding."""
        finding = {**dataclasses.asdict(spec), "what": what, "trouble": trouble, **numbers}
        self.found.append(finding)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{len(self.found):05d}.json").write_text(json.dumps(finding, default=str))
        print("FOUND", json.dumps(finding, default=str), flush=True)

    def print(self) -> None:
        print(f"{self.total} cases, {len(self.found)} findings")
        for name, place in (("what ran", 0), ("problems", 1), ("precision", 2)):
            counts: collections.Counter[str] = collections.Counter()
            for key, number in self.cases.items():
                counts[key[place]] += number
            print(f"  {name}: " + ", ".join(f"{k} {v}" for k, v in sorted(counts.items())))
        sys.stdout.flush()


def specs(seed: int) -> Iterator[Spec]:
    """Problems without end: every kind in turn, half of them in float32."""
    kinds = [*hostile.FAMILIES, *NETWORKS]
    for number in itertools.count(seed):
        for place, kind in enumerate(kinds):
            norm = ("inf", "2", "1")[(number + place) % 3]
            yield Spec(kind, number, norm, ("float32", "float64")[(number // 3 + place) % 2])


def runs(spec: Spec) -> list[tuple[str, dict[str, Any]]]:
    """Methods with their options: the cheap ones always, others in turn."""
    chosen: list[tuple[str, dict[str, Any]]] = [(m, {}) for m in CHEAP]
    chosen += [("lbp", {"tightening": t}) for t in (("interval", "crown")[spec.seed % 2],)]
    others: list[tuple[str, dict[str, Any]]] = [(m, {}) for m in sorted(METHODS) if m not in CHEAP]
    others += [(m, {"solver": s}) for m in ("lp", "milp") for s in SOLVERS if s in solvers.names()]
    others += [("bab", {"bound": "lbp"}), ("sdp", {"cuts": 20})]
    return chosen + [others[(spec.seed * 5 + i * 3) % len(others)] for i in range(5)]


def examine(spec: Spec, tally: Tally) -> None:
    """All cases of one problem."""
    problem = spec.problem()
    try:
        truth = exact.truth(problem) if spec.tiny else None
    except exact.TooLarge:
        return
    seen = _seen(problem)
    lowest = np.zeros((problem.batch, problem.rows))
    highest = np.full((problem.batch, problem.rows), np.inf)
    for method, options in runs(spec):
        name = " ".join([method, *(str(v) for v in options.values())])
        try:
            result = lipcompare.bound(problem, method, time_limit=5.0, gap=GAP, **options)
        except Exception as error:  # noqa: BLE001  # that is what is looked for
            tally.cases[name, spec.kind, spec.dtype] += 1
            tally.report(spec, name, "exception", error=f"{type(error).__name__}: {error}")
            continue
        if result.status is Status.UNSUPPORTED:
            continue
        tally.cases[name, spec.kind, spec.dtype] += 1
        for trouble in _troubles(problem, result, truth, seen):
            tally.report(spec, name, trouble, lower=result.lower.tolist(), upper=result.upper.tolist(),
                         status=result.status.name, detail=result.detail)  # fmt: skip
        lowest, highest = np.maximum(lowest, result.lower), np.minimum(highest, result.upper)
        if (lowest > highest).any():
            tally.report(spec, name, "contradiction", lower=lowest.tolist(), upper=highest.tolist())
            return
    for question in QUESTIONS:
        if (spec.seed + QUESTIONS.index(question)) % 2:
            continue
        try:
            trouble = _ASK[question](problem, truth)
        except UnsupportedOperation:
            continue
        except Exception as error:  # noqa: BLE001
            trouble = f"{type(error).__name__}: {error}"
        tally.cases[question, spec.kind, spec.dtype] += 1
        if trouble:
            tally.report(spec, question, trouble)


def _troubles(problem: Problem, result: Bound, truth: exact.Truth | None, seen: np.ndarray) -> Iterator[str]:
    if np.isnan(result.lower).any() or np.isnan(result.upper).any():
        yield "NaN"
    if result.status in (Status.CRASHED, Status.OUT_OF_MEMORY):
        yield "crash"
    if (result.lower > result.upper).any():
        yield "crossed"
    if result.status is Status.EXACT and not (result.gap <= GAP).all():
        yield "not exact"
    if (seen > result.upper).any():
        yield "upper bound under a derivative"
    if truth is None:
        return
    for row in range(problem.rows):
        if not truth.admits_upper(row, problem.norm, float(result.upper[0, row])):
            yield f"upper bound under the truth, {truth.value(row, problem.norm)!r}"
        if not truth.admits_lower(row, problem.norm, float(result.lower[0, row])):
            yield f"lower bound above the truth, {truth.value(row, problem.norm)!r}"


def _seen(problem: Problem, count: int = 64) -> np.ndarray:
    """Lower bounds (batch, rows) on the dual norms, from enclosures of the derivatives at points in float64."""
    random = torch.Generator().manual_seed(0)
    unit = torch.rand(count, problem.network.in_size, generator=random, dtype=torch.float64)
    unit[: count // 2] = unit[: count // 2].round()
    lower, upper = problem.box.window
    points = problem.box.clamp(lower.unsqueeze(1) + unit.to(lower) * (upper - lower).unsqueeze(1))[0].double()
    points = points[problem.box.contains(points.unsqueeze(0))[0]]
    if not len(points):
        return np.zeros((problem.batch, problem.rows))
    network = problem.network.to("cpu", torch.float64)
    gates = Gates.from_preactivations(network, interval_bounds(network, Interval(points, points)))
    rows = problem.functionals.double().expand(len(points), -1, -1)
    gradient = interval_gradient(network, gates, rows)
    least = torch.maximum(gradient.lower, -gradient.upper).clamp(min=0)
    size = problem.norm.dual.of(least) * (1 - 1e-14 * network.in_size)  # the norm itself is rounded
    return size.amax(0, keepdim=True).numpy()


def _monotone(problem: Problem, truth: exact.Truth | None) -> str:
    answer = monotonicity(problem)
    if truth is None:
        return ""
    for row, feature in np.ndindex(problem.rows, problem.network.in_size):
        low, high = truth.range(row, feature)
        said = answer.directions[0, row, feature]
        wrong = {
            Direction.CONSTANT: low < 0 or high > 0,
            Direction.INCREASING: low < 0,
            Direction.DECREASING: high > 0,
            Direction.NEITHER: low >= 0 or high <= 0,
        }
        if wrong.get(said, False):
            return f"{said.name} for a derivative in [{float(low)!r}, {float(high)!r}]"
    return ""


def _jacobian(problem: Problem, truth: exact.Truth | None) -> str:
    for bounding in ("ibp", "recurjac", "lbp"):
        bounds = jacobian_bounds(problem, bounding)
        for row, entry in np.ndindex(problem.rows, problem.network.in_size):
            lower, upper = float(bounds.lower[0, row, entry]), float(bounds.upper[0, row, entry])
            if np.isnan(lower) or np.isnan(upper) or lower > upper:
                return f"{bounding}: entry {row}, {entry} in [{lower!r}, {upper!r}]"
            if truth is None:
                continue
            low, high = truth.range(row, entry)
            if lower > low or upper < high:
                return f"{bounding}: [{lower!r}, {upper!r}] for [{float(low)!r}, {float(high)!r}]"
    return ""


def _operator_norm(problem: Problem, truth: exact.Truth | None) -> str:
    for norm, bounding in itertools.product(("inf", "1", "2"), ("naive", "ibp", "lbp")):
        found = operator_norm_bounds(problem.network, problem.box, norm, bounding)
        lower, upper = float(found.lower[0]), float(found.upper[0])
        if not lower <= upper:
            return f"{norm} {bounding}: [{lower!r}, {upper!r}]"
        if truth is None or norm == "2":
            continue
        inner, outer = exact.domains(problem)
        inside, outside = (
            max(_size(j, norm) for part in parts for j in exact.jacobians(problem.network, part))
            for parts in (inner, outer)
        )
        if upper < inside or lower > outside:
            return f"{norm} {bounding}: [{lower!r}, {upper!r}] for {float(inside)!r} to {float(outside)!r}"
    return ""


def _size(jacobian: exact.Matrix, norm: str) -> Fraction:
    lines = jacobian if norm == "inf" else tuple(zip(*jacobian, strict=True))
    return max(sum(map(abs, line), Fraction(0)) for line in lines)


def _certify(problem: Problem, truth: exact.Truth | None) -> str:
    network = problem.network
    if network.out_size < 2:
        return ""
    center = problem.box.center if isinstance(problem.box, NormBall) else problem.box.lower
    largest = float(problem.box.interval.radius.amax())
    if not largest > 0:
        return ""
    norm = problem.norm
    found = certified_radius(network, center, norm=norm, method="lbp", largest=largest, steps=4, dtype=problem.dtype)
    radius = float(found.radius[0])
    if np.isnan(radius) or radius < 0:
        return f"radius {radius!r}"
    if truth is None or radius == 0:
        return ""
    place, size = [Fraction(v) for v in center[0].double().tolist()], Fraction(radius)
    if norm is Norm.INF:
        domain = exact.box_polytope([c - size for c in place], [c + size for c in place])
    else:  # the l1 ball lies in the l2 ball
        domain = exact.cross_polytope(place, size)
    label = int(found.labels[0])
    for other in range(network.out_size):
        row = [float(i == label) - float(i == other) for i in range(network.out_size)]
        if other != label and exact.least(network, domain, row) < 0:
            return f"another class within {radius!r}"
    return ""


_ASK: dict[str, Callable[[Problem, exact.Truth | None], str]] = {
    "monotone": _monotone,
    "jacobian": _jacobian,
    "operator-norm": _operator_norm,
    "certify": _certify,
}


def main(arguments: list[str] | None = None) -> int:
    """Run until the time or the number of cases is reached; the exit code says whether anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1.0, help="hours to run (default: %(default)g)")
    parser.add_argument("--cases", type=int, default=10**9, help="cases after which to stop")
    parser.add_argument("--seed", type=int, default=0, help="first seed (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("differential"), help="folder for findings")
    parser.add_argument("--replay", type=Path, help="a finding to make again")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    tally = Tally(chosen.out)
    if chosen.replay is not None:
        kept = json.loads(chosen.replay.read_text())
        examine(Spec(*(kept[f.name] for f in dataclasses.fields(Spec))), tally)
        tally.print()
        return int(bool(tally.found))
    end, told = time.monotonic() + 3600 * chosen.hours, time.monotonic()
    for spec in specs(chosen.seed):
        if time.monotonic() > end or tally.total >= chosen.cases:
            break
        examine(spec, tally)
        if time.monotonic() - told > 120:
            told = time.monotonic()
            tally.print()
    tally.print()
    return int(bool(tally.found))


if __name__ == "__main__":
    raise SystemExit(main())
