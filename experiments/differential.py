"""Everything against everything, for hours: ``python -m experiments.differential --hours 8``.

Random problems, and on each of them methods, questions and free solvers. Most networks are tiny and attack rounding
(:mod:`lipcompare.testing.hostile`); the truth about them is known in rational arithmetic. The others are ordinary small
networks (dense, convolutional, residual, pooling, leaky, smooth); there results are held against each other and against
derivatives at points, enclosed in float64. Whatever contradicts, crashes, or has a wrong status is written to a file
from which ``--replay`` makes it again.

A case is one network, one domain, one norm and one precision; the domains of a network make one batch. Linear bounds
and questions run on the whole batch, two costly methods or solvers on one example each; ``--runs`` names what else is
to run on each batch instead. At the end, and every few minutes, the number of cases of each kind is printed, and how
often each method or question ran on one.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import faulthandler
import functools
import itertools
import json
import random
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
from lipcompare import METHODS, Bound, Network, Problem, Status
from lipcompare.domain import Norm, NormBall, Space
from lipcompare.errors import InvalidInput, UnsupportedOperation
from lipcompare.gates import Gates
from lipcompare.jacobian import interval_gradient
from lipcompare.network.from_torch import from_module
from lipcompare.network.interval import Interval
from lipcompare.preactivation import interval_bounds
from lipcompare.questions import jacobian_bounds
from lipcompare.questions.certify import AUTO, EXACT_RADIUS, FORWARD, Certificate, certified_radius
from lipcompare.questions.monotone import Direction, monotonicity
from lipcompare.questions.operator_norm import BAB, LIPBAB, exact_operator_norms, operator_norm_bounds
from lipcompare.testing import exact, hostile

GAP = 1e-4
PATTERNS = 256
"""A batch with an example of more patterns than that is left out: the truth about it takes too long."""
BOXES = 32
"""Domains of one network."""
LINEAR: tuple[tuple[str, dict[str, Any]], ...] = (
    ("naive", {}),
    ("ibp", {}),
    ("recurjac", {}),
    ("lbp", {}),
    ("lbp", {"tightening": "interval"}),
    ("lbp", {"tightening": "crown"}),
    ("lbp", {"relaxation": "middle"}),
)
"""What runs on the whole batch: the first two always, and two of the others."""
LATE = 300.0
"""Seconds after which a batch that has not ended says on stderr where it is."""
COSTLY: tuple[tuple[str, dict[str, Any]], ...] = (
    *((m, {}) for m in sorted(METHODS) if m not in ("naive", "ibp", "recurjac", "lbp")),
    *((m, {"solver": s}) for m in ("lp", "milp") for s in ("pulp", "cvxpy:CLARABEL", "cvxpy:HIGHS")),
    ("bab", {"bound": "lbp"}),
    ("sdp", {"cuts": 20}),
    ("milp", {"rows": "maximum"}),
)
"""Two of these run, on the example that the troubles were made for and on any one."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """A batch of cases that can be made again.

    Attributes:
        kind: a family of tiny problems, or of ordinary networks.
        seed: of the network, its domains and what else is drawn.
        norm, dtype: by name.
        boxes: domains, each of which is a case.
        chosen: what runs, by name and separated by commas; what is drawn if empty.
    """

    kind: str
    seed: int
    norm: str
    dtype: str
    boxes: int = BOXES
    chosen: str = ""

    @property
    def tiny(self) -> bool:
        """Whether the truth is known in rational arithmetic."""
        return self.kind in hostile.FAMILIES

    @property
    def random(self) -> random.Random:
        """What chooses the methods: the same for the same batch."""
        return random.Random(f"{self.kind} {self.seed}")  # noqa: S311  # no secret

    def problem(self) -> Problem:
        dtype: torch.dtype = getattr(torch, self.dtype)
        if self.tiny:
            return hostile.problem(self.kind, self.seed, self.norm, dtype, self.boxes)
        generator = torch.Generator().manual_seed(self.seed)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            network = NETWORKS[self.kind]()
        center = torch.rand(self.boxes, network.in_size, generator=generator, dtype=torch.float64)
        radius = 10 ** (-3 * torch.rand(self.boxes, 1, generator=generator, dtype=torch.float64))
        ball = ("inf", "inf", "inf", "1", "2")[int(torch.randint(5, (), generator=generator))]
        size = radius.expand_as(center) if ball == "inf" else radius.squeeze(1)
        return Problem.around(network, center, size, norm=self.norm, ball=ball, dtype=dtype)

    def runs(self) -> Iterator[tuple[str, dict[str, Any], range]]:
        """Methods with their options and the examples that they run on."""
        draw = self.random
        names = self.chosen.split(",") if self.chosen else []
        linear = [run for run in LINEAR if named(*run) in names]
        costly = [run for run in COSTLY if named(*run) in names]
        if not names:
            linear, costly = [*LINEAR[:2], *draw.sample(LINEAR[2:], 2)], draw.sample(COSTLY, 2)
        for method, options in linear:
            yield method, options, range(self.boxes)
        for number, (method, options) in enumerate(costly):
            first = draw.randrange(self.boxes) if number % 2 else 0
            yield method, options, range(first, first + 1)

    def questions(self) -> list[str]:
        if self.chosen:
            return [name for name in self.chosen.split(",") if name in QUESTIONS]
        return self.random.sample(sorted(QUESTIONS), 1)


def named(method: str, options: dict[str, Any]) -> str:
    """A method with its options, as counts and ``--runs`` call it."""
    return " ".join([method, *(str(v) for v in options.values())])


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
    "dense": lambda: _imported((4,), nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3)),
    "leaky": lambda: _imported((3,), nn.Linear(3, 6), nn.LeakyReLU(0.1), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)),
    "residual": lambda: _imported((3,), nn.Linear(3, 4), Residual(4), nn.Linear(4, 2)),
    "convolutional": lambda: _imported(
        (1, 4, 4), nn.Conv2d(1, 2, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(2, 2, 2), nn.ReLU(), nn.Flatten(),
        nn.Linear(2, 2),
    ),
    "pooling": lambda: _imported(
        (1, 4, 4), nn.Conv2d(1, 1, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1, 2)
    ),
    "smooth": lambda: _imported((3,), nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Sigmoid(), nn.Linear(4, 2)),
    "gelu": lambda: _imported((3,), nn.Linear(3, 5), nn.GELU(), nn.Linear(5, 4), nn.SiLU(), nn.Linear(4, 2)),
    "elu": lambda: _imported((3,), nn.Linear(3, 5), nn.ELU(), nn.Linear(5, 4), nn.Softplus(), nn.Linear(4, 2)),
}  # fmt: skip


@dataclasses.dataclass
class Tally:
    """What ran and what was found.

    Attributes:
        cases: number of cases by kind of problem and precision.
        runs: how often each method or question ran on a case.
        found: findings, each with what makes it again.
    """

    folder: Path
    cases: collections.Counter[tuple[str, str]] = dataclasses.field(default_factory=collections.Counter)
    runs: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    found: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def report(self, spec: Spec, what: str, trouble: str, **numbers: object) -> None:
        """Keep a finding."""
        finding = {**dataclasses.asdict(spec), "what": what, "trouble": trouble, **numbers}
        self.found.append(finding)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{len(self.found):05d}.json").write_text(json.dumps(finding, default=str))
        print("FOUND", json.dumps(finding, default=str), flush=True)

    def print(self) -> None:
        print(f"{self.cases.total()} cases, {self.runs.total()} runs on one, {len(self.found)} findings")
        kinds, precisions = (collections.Counter[str](), collections.Counter[str]())
        for (kind, precision), number in self.cases.items():
            kinds[kind] += number
            precisions[precision] += number
        for name, counts in (("problems", kinds), ("precision", precisions), ("runs", self.runs)):
            print(f"  {name}: " + ", ".join(f"{k} {v}" for k, v in sorted(counts.items())))
        sys.stdout.flush()


def specs(seed: int, boxes: int, chosen: str) -> Iterator[Spec]:
    """Batches without end: every kind in turn, half of them in float32."""
    kinds = [*hostile.FAMILIES, *NETWORKS]
    for number in itertools.count(seed):
        for place, kind in enumerate(kinds):
            norm = ("inf", "2", "1")[(number + place) % 3]
            dtype = ("float32", "float64")[(number // 3 + place) % 2]
            yield Spec(kind, number, norm, dtype, 1 if kind == "everywhere" else boxes, chosen)


def examine(spec: Spec, tally: Tally, only: str | None = None) -> None:
    """All cases of one batch; with ``only``, one method or question alone."""
    try:
        problem = spec.problem()
    except InvalidInput:  # weights that its precision does not hold
        return
    try:
        truths = [exact.truth(problem, b, PATTERNS) for b in range(spec.boxes)] if spec.tiny else [None] * spec.boxes
    except exact.TooLarge:
        return
    tally.cases[spec.kind, spec.dtype] += spec.boxes
    seen = _seen(problem)
    lowest, highest = np.zeros_like(seen), np.full_like(seen, np.inf)
    for method, options, examples in spec.runs():
        name = named(method, options)
        if only not in (None, name):
            continue
        part = problem.slice(examples.start, examples.stop)
        try:
            result = lipcompare.bound(part, method, time_limit=5.0, gap=GAP, **options)
        except Exception as error:  # noqa: BLE001  # that is what is looked for
            tally.runs[name] += len(examples)
            tally.report(spec, name, "exception", error=f"{type(error).__name__}: {error}", first=examples.start)
            continue
        if result.status is Status.UNSUPPORTED:
            continue
        tally.runs[name] += len(examples)
        some = slice(examples.start, examples.stop)
        for trouble in _troubles(part, result, truths[some], seen[some]):
            tally.report(spec, name, trouble, lower=result.lower.tolist(), upper=result.upper.tolist(),
                         status=result.status.name, detail=result.detail, first=examples.start)  # fmt: skip
        lowest[some] = np.maximum(lowest[some], result.lower)
        highest[some] = np.minimum(highest[some], result.upper)
        if (lowest > highest).any():
            tally.report(spec, name, "contradiction", lower=lowest.tolist(), upper=highest.tolist())
            return
    for question in spec.questions():
        if only not in (None, question):
            continue
        try:
            trouble, count = QUESTIONS[question](problem, truths, spec.random)
        except UnsupportedOperation:
            continue
        except Exception as error:  # noqa: BLE001  # that is what is looked for
            trouble, count = f"{type(error).__name__}: {error}", spec.boxes
        tally.runs[question] += count
        if trouble:
            tally.report(spec, question, trouble)


Truths = list[exact.Truth] | list[None]


def _troubles(problem: Problem, result: Bound, truths: Truths, seen: np.ndarray) -> Iterator[str]:
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
    for b, row in np.ndindex(problem.batch, problem.rows):
        truth = truths[b]
        if truth is None:
            continue
        if not truth.admits_upper(row, problem.norm, float(result.upper[b, row])):
            yield f"example {b}: upper bound under the truth, {truth.value(row, problem.norm)!r}"
        if not truth.admits_lower(row, problem.norm, float(result.lower[b, row])):
            yield f"example {b}: lower bound above the truth, {truth.value(row, problem.norm)!r}"


def _seen(problem: Problem, count: int = 64) -> np.ndarray:
    """Lower bounds (batch, rows) on the dual norms, from enclosures of the derivatives at points in float64."""
    generator = torch.Generator().manual_seed(0)
    unit = torch.rand(count, problem.network.in_size, generator=generator, dtype=torch.float64)
    unit[: count // 2] = unit[: count // 2].round()
    lower, upper = (v.unsqueeze(1) for v in problem.box.window)
    points = problem.box.clamp(lower + unit.to(lower) * (upper - lower)).double()  # (batch, count, inputs)
    inside = problem.box.contains(points)
    network = problem.network.to("cpu", torch.float64)
    flat = points.flatten(0, 1)
    gates = Gates.from_preactivations(network, interval_bounds(network, Interval(flat, flat)))
    rows = problem.functionals.double().repeat_interleave(count, 0)
    gradient = interval_gradient(network, gates, rows)
    least = torch.maximum(gradient.lower, -gradient.upper).clamp(min=0)
    size = problem.norm.dual.of(least) * (1 - 1e-14 * network.in_size)  # the norm itself is rounded
    values = size.unflatten(0, (problem.batch, count)) * inside.unsqueeze(-1)
    attained: np.ndarray = values.amax(1).numpy()
    return attained


def _monotone(problem: Problem, truths: Truths, draw: random.Random) -> tuple[str, int]:
    answer = monotonicity(problem)
    for b, row, feature in np.ndindex(problem.batch, problem.rows, problem.network.in_size):
        truth = truths[b]
        if truth is None:
            continue
        low, high = truth.range(row, feature)
        said: Direction = answer.directions.item(b, row, feature)
        wrong = {
            Direction.CONSTANT: low < 0 or high > 0,
            Direction.INCREASING: low < 0,
            Direction.DECREASING: high > 0,
            Direction.NEITHER: low >= 0 or high <= 0,
        }
        if wrong.get(said, False):
            return f"example {b}: {said.name} for a derivative in [{float(low)!r}, {float(high)!r}]", problem.batch
    return "", problem.batch


def _jacobian(problem: Problem, truths: Truths, draw: random.Random) -> tuple[str, int]:
    bounding = draw.choice(("ibp", "recurjac", "lbp"))
    bounds = jacobian_bounds(problem, bounding)
    for b, row, entry in np.ndindex(problem.batch, problem.rows, problem.network.in_size):
        lower, upper = float(bounds.lower[b, row, entry]), float(bounds.upper[b, row, entry])
        if np.isnan(lower) or np.isnan(upper) or lower > upper:
            return f"{bounding}: entry {row}, {entry} in [{lower!r}, {upper!r}]", problem.batch
        truth = truths[b]
        if truth is None:
            continue
        low, high = truth.range(row, entry)
        if lower > low or upper < high:
            return f"{bounding}: [{lower!r}, {upper!r}] for [{float(low)!r}, {float(high)!r}]", problem.batch
    return "", problem.batch


def _operator_norm(bounding: str, problem: Problem, truths: Truths, draw: random.Random) -> tuple[str, int]:
    norm = draw.choice(("inf", "1", "2"))
    count = 1 if bounding in (BAB, LIPBAB) else min(4, problem.batch)
    part = problem.slice(0, count)
    if bounding in (BAB, LIPBAB):
        refused = (NormBall, Space) if bounding == LIPBAB else NormBall
        if isinstance(part.box, refused) or not part.network.piecewise_linear:
            return "", 0
        found = exact_operator_norms(part.network, part.box, norm, method=bounding, gap=GAP, time_limit=5.0)
    else:
        found = operator_norm_bounds(part.network, part.box, norm, bounding)
    for b in range(count):
        lower, upper = float(found.lower[b]), float(found.upper[b])
        if not lower <= upper:
            return f"{norm} {bounding}: [{lower!r}, {upper!r}]", count
        if truths[b] is None:
            continue
        inner, outer = exact.domains(part, b)
        inside, outside = (
            max(_size(j, norm) for domain in domains for j in exact.jacobians(problem.network, domain))
            for domains in (inner, outer)
        )
        slack = Fraction(1, 10**9) if norm == "2" else Fraction(0)
        if upper < inside * (1 - slack) or lower > outside * (1 + slack):
            return f"{norm} {bounding}: [{lower!r}, {upper!r}] for {float(inside)!r} to {float(outside)!r}", count
    return "", count


def _size(jacobian: exact.Matrix, norm: str) -> Fraction:
    """For p = 2 without the last digits, which a singular value in floating point does not have."""
    if norm == "2":
        matrix = np.array([[float(v) for v in row] for row in jacobian])
        return Fraction(float(np.linalg.norm(matrix, 2)))
    lines = jacobian if norm == "inf" else tuple(zip(*jacobian, strict=True))
    return max(sum(map(abs, line), Fraction(0)) for line in lines)


def _certify(method: str, problem: Problem, truths: Truths, draw: random.Random) -> tuple[str, int]:
    network, box = problem.network, problem.box
    if network.out_size < 2:
        return "", 0
    centers = box.center if isinstance(box, NormBall) else box.window.lower
    largest = float(box.window.radius.amax())
    if not largest > 0:
        return "", 0
    norm = problem.norm
    if method == EXACT_RADIUS:
        if not network.piecewise_linear:
            return "", 0
        centers = centers[:1]
    found = certified_radius(
        network, centers, norm=norm, method=method, largest=largest, steps=4, time_limit=5.0, dtype=problem.dtype
    )
    for b, radius in enumerate(found.radius.tolist()):
        if not 0 <= radius <= found.upper[b]:
            return f"{method}, example {b}: radius {radius!r}, at most {found.upper[b]!r}", len(centers)
        if truths[b] is None:
            continue
        wrong = _not_another(network, found, b)
        if wrong:
            return f"{method}, example {b}: {wrong}", len(centers)
        if radius == 0:
            continue
        place, size = [Fraction(v) for v in centers[b].double().tolist()], Fraction(radius)
        if norm is Norm.INF:
            domain = exact.box_polytope([c - size for c in place], [c + size for c in place])
        else:  # the l1 ball lies in the l2 ball
            domain = exact.cross_polytope(place, size)
        label = int(found.labels[b])
        for other in range(network.out_size):
            row = [float(i == label) - float(i == other) for i in range(network.out_size)]
            if other != label and exact.least(network, domain, row) < 0:
                return f"{method}, example {b}: another class within {radius!r}", len(centers)
    return "", len(centers)


def _not_another(network: Network, found: Certificate, b: int) -> str:
    """What is wrong with an input that is said to have another class; "" if nothing is."""
    if not np.isfinite(found.upper[b]) or not np.isfinite(found.points[b]).all():
        return ""
    point = [Fraction(v) for v in found.points[b].tolist()]
    label = int(found.labels[b])
    margins = []
    for other in set(range(network.out_size)) - {label}:
        row = [float(i == label) - float(i == other) for i in range(network.out_size)]
        margins.append(exact.least(network, exact.box_polytope(point, point), row))
    return "" if min(margins) <= 0 else f"{found.points[b].tolist()} has no other class, by {float(min(margins))!r}"


QUESTIONS: dict[str, Callable[[Problem, Truths, random.Random], tuple[str, int]]] = {
    "monotone": _monotone,
    "jacobian": _jacobian,
    **{
        f"operator-norm {bounding}": functools.partial(_operator_norm, bounding)
        for bounding in ("naive", "ibp", "recurjac", "lbp", "sdp", BAB, LIPBAB)
    },
    **{
        f"certify {method}": functools.partial(_certify, method)
        for method in ("lbp", "ibp", AUTO, EXACT_RADIUS, *FORWARD)
    },
}
RUNS = (*(named(*run) for run in (*LINEAR, *COSTLY)), *QUESTIONS)
"""Everything that can be named."""


def main(arguments: list[str] | None = None) -> int:
    """Run until the time or the number of cases is reached; the exit code says whether anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1.0, help="hours to run (default: %(default)g)")
    parser.add_argument("--cases", type=int, default=10**9, help="cases after which to stop")
    parser.add_argument("--seed", type=int, default=0, help="first seed (default: %(default)s)")
    parser.add_argument("--boxes", type=int, default=BOXES, help="domains of one network (default: %(default)s)")
    parser.add_argument(
        "--runs", nargs="+", default=[], choices=(*RUNS, "costly"), metavar="NAME",
        help="what runs on every batch; 'costly' stands for all costly methods. Names: " + ", ".join(RUNS),
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("differential"), help="folder for findings")
    parser.add_argument("--replay", type=Path, help="a finding to make again")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    tally = Tally(chosen.out)
    if chosen.replay is not None:
        kept = json.loads(chosen.replay.read_text())
        examine(Spec(**{f.name: kept[f.name] for f in dataclasses.fields(Spec)}), tally, kept["what"])
        tally.print()
        return int(bool(tally.found))
    end, told = time.monotonic() + 3600 * chosen.hours, time.monotonic()
    names = [name for name in chosen.runs if name != "costly"]
    if "costly" in chosen.runs:
        names += [named(*run) for run in COSTLY]
    for spec in specs(chosen.seed, chosen.boxes, ",".join(dict.fromkeys(names))):
        if time.monotonic() > end or tally.cases.total() >= chosen.cases:
            break
        faulthandler.dump_traceback_later(LATE)  # where it is, should it hang
        examine(spec, tally)
        faulthandler.cancel_dump_traceback_later()
        if time.monotonic() - told > 60:
            told = time.monotonic()
            print(f"at {spec}, {time.process_time():.0f} s of CPU:", end=" ")
            tally.print()
    print(f"{time.process_time():.0f} s of CPU:", end=" ")
    tally.print()
    return int(bool(tally.found))


if __name__ == "__main__":
    raise SystemExit(main())
