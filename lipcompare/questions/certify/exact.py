"""The true radius of one example: branch and bound over activation patterns for the nearest input of another class.

The search maximises ``1 / distance``, so that the gap is relative and a point found is a lower bound. Over a subdomain
CROWN gives planes above the margins and half-spaces that hold the decisions; the nearest point of the polyhedron that
they cut out is no farther than any input of another class there. Where all gates are decided the polyhedron is exact.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lipcompare.branching.decisions import Numbering
from lipcompare.branching.driver import Assessment, Search, SearchLimits, Stop, run
from lipcompare.branching.tree import Subdomain
from lipcompare.budget import Deadline
from lipcompare.domain import Norm
from lipcompare.network.interval import Interval
from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.preactivation.interval import interval_values
from lipcompare.preactivation.outputs import functional_planes
from lipcompare.preactivation.split import HalfSpaces, split_bounds
from lipcompare.questions.certify.balls import Balls
from lipcompare.questions.certify.distance import nearest_point
from lipcompare.result import Witness
from lipcompare.rounding import DIVISOR, SPARE, allowance, raised

_ROUNDS = 30
"""Steps of the search for a near input of another class."""
_STRETCHES = (0.0, 1e-12, 1e-9, 1e-7, 1e-5, 1e-3)
"""By how much a point on the boundary is moved outward until its class is proved: from rounding to where float32 and
cancelling biases are far behind. The first that is proved counts, with its own distance."""
_BATCH = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Nearest:
    """Both ends of the radius of one example.

    Attributes:
        lower: no input closer than this has another class.
        upper: distance of ``point``; inf without one.
        point: (inputs,) an input of another class, proved to be one; None without.
        stop: why the search ended.
    """

    lower: float
    upper: float
    point: np.ndarray | None
    stop: Stop


def exact_radius(balls: Balls, proved: float, largest: float, gap: float, deadline: Deadline, memory: int) -> Nearest:
    """The distance of the nearest input of another class, to a relative gap.

    Args:
        balls: one example, of a network with patterns.
        proved: a radius that is proved already.
        largest: nothing farther is looked for.
    """
    double = dataclasses.replace(
        balls, network=balls.network.to(balls.points.device, torch.float64), points=balls.points.double(),
        rows=balls.rows.double(),
    )  # fmt: skip
    incumbent = _Incumbent(double)
    incumbent.descend()
    reach = min(largest, incumbent.distance)
    if reach <= proved:
        return Nearest(proved, incumbent.distance, incumbent.point, Stop.DONE)
    size = torch.full((1,), reach, dtype=torch.float64, device=double.points.device)
    domain = double.domain(size)
    inner = float(double.inner(domain, size)[0])
    bounds = preactivation_bounds(double.network, domain.region, Tightening.CROWN, memory=memory, deadline=deadline)
    evaluator = _Evaluator(
        balls=double,
        box=domain.interval,
        bounds=bounds,
        incumbent=incumbent,
        inner=inner,
        memory=memory,
        deadline=deadline,
    )
    origin = double.points[0].cpu().numpy()
    start = [Witness(row, 1 / reach, origin) for row in range(double.rows.shape[1])]
    top = 1 / proved if proved > 0 else np.inf
    search = Search.start([top] * double.rows.shape[1], start)
    stop = run(search, evaluator, SearchLimits(gap=gap, seconds=deadline.left, memory=memory, batch=_BATCH))
    lower = max(proved, min(1 / search.upper * (1 - allowance(2, torch.float64)), inner))
    return Nearest(min(lower, incumbent.distance), incumbent.distance, incumbent.point, stop)


@dataclasses.dataclass(eq=False)
class _Incumbent:
    """The nearest input of another class that is proved to be one."""

    balls: Balls
    distance: float = float("inf")
    point: np.ndarray | None = None

    def take(self, points: Tensor) -> None:
        """Take up points (some, inputs), each moved outward a little where its class is not proved as it is."""
        origin = self.balls.points[0]
        stretches = points.new_tensor(_STRETCHES)
        moved = origin + (points - origin).unsqueeze(1) * (1 + stretches).unsqueeze(-1)
        moved = moved.flatten(0, 1)
        if self.balls.clip is not None:
            moved = moved.clamp(*self.balls.clip)
        rows = self.balls.rows[0]
        _, outputs = interval_values(self.balls.network, Interval(moved, moved))
        up, down = rows.clamp(min=0), -rows.clamp(max=0)
        most = outputs.upper @ up.T - outputs.lower @ down.T  # differences of two numbers: their signs are right
        away = raised(self.balls.norm.of(moved - origin), len(origin))
        away = torch.where((most <= 0).any(-1), away, torch.inf)
        best = int(away.argmin())
        if float(away[best]) < self.distance:
            self.distance, self.point = float(away[best]), moved[best].cpu().numpy()

    def descend(self) -> None:
        """From the example, again and again to where the linear part at the last point vanishes, for every row."""
        balls, origin = self.balls, self.balls.points[0]
        network, rows = balls.network, balls.rows[0]
        x = origin.expand(len(rows), -1)
        for _ in range(_ROUNDS):
            values = network.values(x)
            slope = network.pull_back(network.slopes(values), rows)
            margin = (values[-1] * rows).sum(-1)
            self.take(x)
            # margin + slope (x' - x) = 0 for the x' nearest to the example.
            height = margin - (slope * (x - origin)).sum(-1)
            size = balls.norm.dual.of(slope)
            step = torch.where(size > 0, height / size.clamp(min=DIVISOR), 0.0)
            x = origin - 1.01 * step.clamp(min=0).unsqueeze(-1) * _steepest(slope, balls.norm)
            if balls.clip is not None:
                x = x.clamp(*balls.clip)
        if self.point is not None:
            # Back towards the example as far as the class allows.
            share = torch.linspace(0, 1, 65, dtype=x.dtype, device=x.device)[1:].unsqueeze(-1)
            for _ in range(3):
                far = torch.as_tensor(self.point.copy()).to(x)
                self.take(origin + share * (far - origin))
                share = 1 - (1 - share) / 16


def _steepest(slope: Tensor, norm: Norm) -> Tensor:
    """Directions (rows, inputs) of unit norm in which linear functions grow most."""
    if norm is Norm.INF:
        return slope.sign()
    if norm is Norm.TWO:
        unit: Tensor = slope / torch.linalg.vector_norm(slope, dim=-1, keepdim=True).clamp(min=DIVISOR)
        return unit
    largest = slope.abs().argmax(-1, keepdim=True)
    return torch.zeros_like(slope).scatter(-1, largest, slope.gather(-1, largest).sign())


@dataclasses.dataclass(eq=False)
class _Evaluator:
    """Bounds ``1 / distance`` over subdomains; see :class:`~lipcompare.branching.driver.Evaluator`."""

    balls: Balls
    box: Interval
    bounds: dict[int, Interval]
    incumbent: _Incumbent
    inner: float
    memory: int
    deadline: Deadline

    def evaluate(self, nodes: Sequence[Subdomain], floor: float, target: float) -> list[Assessment]:
        network = self.balls.network
        numbering = Numbering(network)
        made = [np.array(node.decisions, dtype=np.int64) for node in nodes]
        signs, _ = numbering.signs(made)
        signs = {k: s.to(self.box.lower.device) for k, s in signs.items()}
        box = Interval(*(v.expand(len(nodes), -1) for v in self.box))
        split = split_bounds(network, box, signs, self.bounds, memory=self.memory, deadline=self.deadline)
        rows = torch.stack([self.balls.rows[0, node.row] for node in nodes]).unsqueeze(1)
        plane, height = functional_planes(network, box, -rows, split.bounds)
        # Gates that are undecided by much come first; a network without any has one polyhedron.
        score = plane.new_zeros(len(nodes), 1)
        if network.activations:
            room = {k: torch.minimum(z.upper, -z.lower).clamp(min=DIVISOR) for k, z in split.bounds.items()}
            score = numbering.join({k: room[k] * (s.upper > s.lower) for k, s in split.gates.slopes.items()})
        results = []
        for i, empty in enumerate(split.empty.tolist()):
            if empty:
                results.append(Assessment(-np.inf))
                continue
            results.append(self._settle(i, split.halfspaces, plane[i, 0], float(height[i, 0]), score[i], target))
        return results

    def _settle(
        self, i: int, spaces: HalfSpaces, plane: Tensor, constant: float, score: Tensor, target: float
    ) -> Assessment:
        """One subdomain: how far its polyhedron is, and how to split it."""
        balls, origin = self.balls, self.balls.points[0]
        G = torch.cat([spaces.normal[i], plane.unsqueeze(0)])
        offset = torch.cat([spaces.offset[i], plane.new_tensor([constant])])
        if balls.clip is not None:
            eye = torch.eye(len(origin), dtype=G.dtype, device=G.device)
            G = torch.cat([G, eye, -eye])
            low, high = origin.new_full(origin.shape, balls.clip[0]), origin.new_full(origin.shape, balls.clip[1])
            offset = torch.cat([offset, -low, high])
        there = (G != 0).any(-1) | (offset < 0)
        G, offset = G[there], offset[there]
        at_origin = G @ origin
        size = G.abs() @ origin.abs() + offset.abs()
        error = allowance(len(origin) + SPARE, size.dtype) * size
        rows, height, loose = (v.cpu().numpy() for v in (G, -(offset + at_origin), error))
        distance, point = nearest_point(rows, height, loose, balls.norm, self.deadline.left)
        if point is not None:
            self.incumbent.take(origin.unsqueeze(0) + torch.as_tensor(point).to(origin))
        witnesses: tuple[Witness, ...] = ()
        if self.incumbent.point is not None:
            witnesses = (Witness(0, 1 / self.incumbent.distance, self.incumbent.point),)
        # Planes and half-spaces hold in the ball that was looked at, and say nothing beyond it.
        distance = min(distance, self.inner)
        upper = 1 / distance * (1 + allowance(2, torch.float64)) if distance > 0 else np.inf
        gate = int(score.argmax())
        if upper <= target or not float(score[gate]) > 0:
            return Assessment(upper, witnesses=witnesses)
        return Assessment(upper, (2 * gate + 1,), witnesses=witnesses)
