"""Lower bounds: points of large gradient norm, by sampling, smoothed ascent, regions around and local search.

The gradient norm of a piecewise linear network is piecewise constant, so it has no gradient to follow. The ascent
therefore follows a surrogate in which each gate opens smoothly with its pre-activation; linear programs enter regions
next to the points that it ends at (:mod:`lipcompare.attack.neighbours`); the local search then moves the
best points by random steps of all sizes, along differences of one another, and keeps a step only if it enters a region
with a larger norm. Every random number is drawn per row and never per example, and ties are broken by index, so an
example finds the same points whatever batch it is in.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import torch
from torch import Tensor

from lipcompare.attack.neighbours import search_regions
from lipcompare.budget import Copies, Deadline, chunk_size, fitting, tensor_bytes
from lipcompare.network.graph import Affine, Network
from lipcompare.network.interval import Interval
from lipcompare.network.linear_maps import Dense
from lipcompare.problem import Problem
from lipcompare.rounding import TIE
from lipcompare.witness import clarke, gradient_norms

_KINKS = 500
"""Neurons at their kink whose slopes are tried, one after another."""

_STEPS = 5
"""Steps of an ascent that are worth beginning."""

_LONGER = 4
"""Times the steps of an ascent on a network so large that only few ascents are made."""

_PASS = 2.5e8
"""Operations of one pass over samples: a few hundredths of a second, after which the clock is asked."""


@dataclasses.dataclass(frozen=True)
class Effort:
    """How hard to search: points sampled, starts kept per row, ascent steps, rounds and proposals of the local search,
    activation regions tried by LP.

    ``work`` caps the operations per example (about 1e10 take a second); a plan above it is scaled down in proportion.
    Where that would leave too few steps, only ``largest`` rows, those with the largest samples, are followed up.
    """

    samples: int = 1024
    starts: int = 8
    ascent_steps: int = 40
    rounds: int = 100
    proposals: int = 8
    regions: int = 200
    work: float = 4e10
    largest: int | None = None  # None: all rows

    def scaled(self, network: Network, rows: int) -> Effort:
        """The same plan within the allowed work."""
        products = _products(network)
        per_point = _operations(network, rows)
        per_row_point = 8.0 * per_point / (1 + rows)
        plan = self.samples * per_point + rows * self.starts * per_row_point * (
            3 * self.ascent_steps + self.rounds * self.proposals
        )
        share = min(1.0, self.work / max(plan, 1.0))
        # A region's affine pieces cost a forward pass per input.
        regions = min(self.regions, int(self.work / (8.0 * products * network.in_size + 1.0)))
        if share == 1.0:
            return dataclasses.replace(self, regions=regions)
        if self.ascent_steps * share < _STEPS:
            ascents = max(1, int(self.work / (2 * per_row_point * 3 * max(1, self.ascent_steps))))
            # A longer ascent gains more than a second one, or than that of another row.
            longer = min(_LONGER, ascents)
            largest = min(rows, ascents // longer)
            return dataclasses.replace(
                self,
                samples=max(8, int(self.samples * share)),
                starts=max(1, min(self.starts, ascents // longer // largest)),
                ascent_steps=longer * self.ascent_steps,
                rounds=0,
                regions=regions,
                largest=largest,
            )
        return dataclasses.replace(
            self,
            samples=max(8, int(self.samples * share)),
            starts=max(1, min(self.starts, int(self.starts * share * 4))),
            ascent_steps=max(5, int(self.ascent_steps * share)),
            rounds=int(self.rounds * share),
            regions=regions,
        )


def _products(network: Network) -> int:
    """Products of one forward pass; those of anything but a matrix count twice, being below its rate."""
    return sum(
        m.fan_in * m.out_size * (1 if isinstance(m, Dense) else 2)
        for node in network.nodes
        if isinstance(node, Affine)
        for m in node.maps
    )


def _operations(network: Network, rows: int) -> float:
    """Operations of the gradient norms of some rows at one point."""
    return 4.0 * (1 + rows) * _products(network)


SHORT = Effort(samples=512, starts=4, ascent_steps=30, rounds=0, regions=60)
"""Enough where an exact method goes on, which finds what this misses."""


def search(
    problem: Problem,
    effort: Effort = Effort(),
    *,
    seed: int = 0,
    memory: int = 2**30,
    deadline: Deadline | None = None,
    report: Callable[[Tensor], None] = lambda points: None,
) -> Tensor:
    """Points (batch, rows, inputs) of large gradient norm, one per example and row.

    ``deadline`` is asked between steps; when it has passed, the best points so far are returned. ``report`` is given
    those on the way.
    """
    deadline = deadline or Deadline()
    effort = effort.scaled(problem.network, problem.rows)
    random = torch.Generator(problem.device).manual_seed(seed)
    points, values = _sample(problem, effort, random, memory, deadline)
    report(_best(points, values))
    window = problem.box.window
    if bool((window.upper > window.lower).any()):
        if effort.largest is not None and effort.largest < problem.rows:
            best, rows = _of_largest(problem, effort, points, values, deadline)
            points = _take(points, _order(values)[..., :1]).squeeze(2)
            return points.scatter(1, rows.unsqueeze(-1).expand_as(best), best)
        points, values = _ascend(problem, effort, points, values, deadline)
        report(_best(points, values))
        # The regions around gain most for their time: first around what the ascent found, then where that moved on.
        around = functools.partial(search_regions, problem, regions=effort.regions, deadline=deadline, memory=memory)
        points, values = around(points, values)
        report(_best(points, values))
        if effort.rounds and not deadline.passed():
            before = values.amax(-1)
            points, values = _local_search(problem, effort, points, values, random, deadline)
            report(_best(points, values))
            moved = (values.amax(-1) > before * (1 + TIE)).any(-1)
            points, values = around(points, values, examples=moved)
    return _best(points, values)


def _best(points: Tensor, values: Tensor) -> Tensor:
    """The best start (batch, rows, inputs) of every row."""
    return _take(points, _order(values)[..., :1]).squeeze(2)


def _of_largest(
    problem: Problem, effort: Effort, points: Tensor, values: Tensor, deadline: Deadline
) -> tuple[Tensor, Tensor]:
    """Points (batch, some, inputs) of the rows (batch, some) with the largest samples, after the ascent."""
    rows = _order(values.amax(-1))[..., : effort.largest]

    def of(tensor: Tensor) -> Tensor:
        """Those rows of something (batch, rows, ...)."""
        index = rows.view(*rows.shape, *(1,) * (tensor.ndim - 2))
        return tensor.gather(1, index.expand(-1, -1, *tensor.shape[2:]))

    some = dataclasses.replace(problem, functionals=of(problem.functionals))
    points, values = _ascend(some, effort, of(points), of(values), deadline)
    return _take(points, _order(values)[..., :1]).squeeze(2), rows


def _draw(random: torch.Generator, problem: Problem, *shape: int, normal: bool = False) -> Tensor:
    make = torch.randn if normal else torch.rand
    return make(*shape, generator=random, dtype=torch.float64, device=problem.device).to(problem.dtype)


def _order(values: Tensor) -> Tensor:
    """Indices along the last axis from the largest value down, ties in order of index."""
    scale = values.amax(-1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    return (values / scale / TIE).round().argsort(dim=-1, descending=True, stable=True)


def _take(points: Tensor, index: Tensor) -> Tensor:
    """Points (batch, rows, k, inputs) picked by index (batch, rows, j): (batch, rows, j, inputs)."""
    return points.gather(2, index.unsqueeze(-1).expand(*index.shape, points.shape[-1]))


def _sample(
    problem: Problem, effort: Effort, random: torch.Generator, memory: int, deadline: Deadline
) -> tuple[Tensor, Tensor]:
    """The best starts per row among the centre, random corners and random interior points, or the first of them."""
    lower, upper = (v.unsqueeze(1) for v in problem.box.window)
    unit = _draw(random, problem, effort.samples, problem.network.in_size)
    corners = effort.samples // 4
    unit[:corners] = unit[:corners].round()
    unit[0] = 0.5
    entries = problem.batch * problem.rows * problem.network.widest
    fits = fitting(memory, tensor_bytes(Copies.POINT, entries, problem.box.lower))
    quick = int(_PASS / (problem.batch * _operations(problem.network, problem.rows)))
    chunk = max(1, min(fits, quick))
    each = tensor_bytes(Copies.POINT, problem.batch * chunk * problem.network.widest, problem.box.lower)
    together = chunk_size(memory, problem.device, each)
    parts: list[Tensor] = []  # (batch, samples, rows)
    for share in unit.split(chunk):
        if parts and deadline.passed():
            break
        x = problem.box.clamp(lower + share * (upper - lower)).unsqueeze(2)
        some = problem.functionals.unsqueeze(1).split(together, 2)
        parts.append(torch.cat([gradient_norms(problem.network, rows, x, problem.norm) for rows in some], -1))
    values = torch.cat(parts, dim=1).transpose(1, 2)
    best = _order(values)[..., : effort.starts]
    spread = upper - lower
    points = problem.box.clamp(lower.unsqueeze(1) + unit[best] * spread.unsqueeze(1))
    return points, values.gather(-1, best)


def _norms(problem: Problem, points: Tensor) -> Tensor:
    """Norms (batch, rows, k) at points (batch, rows, k, inputs), each row at its own points."""
    return gradient_norms(problem.network, problem.functionals.unsqueeze(2), points, problem.norm)


def _ascend(
    problem: Problem, effort: Effort, points: Tensor, values: Tensor, deadline: Deadline
) -> tuple[Tensor, Tensor]:
    """Projected ascent on the smoothed gradient norm, with gates that sharpen as the steps shrink."""
    network = problem.network
    radius = problem.box.window.radius[:, None, None, :]
    rows = problem.functionals.unsqueeze(2)
    with torch.no_grad():
        # The width of a smoothed gate: positive where a pre-activation does not move.
        spread = {k: (z.upper - z.lower)[:, None, None, :] + 1e-12 for k, z in _reach(problem).items()}
    x = points
    for step in range(effort.ascent_steps):
        if deadline.passed():
            break
        progress = step / max(1, effort.ascent_steps - 1)
        width = 0.1 * 0.05**progress
        with torch.enable_grad():
            variable = x.detach().requires_grad_()
            node_values = network.values(variable)
            slopes = {}
            for k in network.activations:
                activation, z = network.activation(k), node_values[network.nodes[k].parents[0]]
                slopes[k] = activation.smoothed_derivative(z, width * spread[k])
            smooth = problem.norm.dual.of(network.pull_back(slopes, rows.expand(*x.shape[:-1], -1)))
            if not smooth.requires_grad:
                break  # no activation on the way to the output: the gradient is the same everywhere
            (gradient,) = torch.autograd.grad(smooth.sum(), variable)
        size = gradient.abs().mean(-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
        move = (gradient / size).clamp(-1, 1) * radius * (0.3 * 0.03**progress)
        x = problem.box.clamp(x + move)
        points, values = _keep_better(points, values, x, _norms(problem, x))
    return points, values


def _reach(problem: Problem) -> dict[int, Interval]:
    """Pre-activation ranges seen on a few corners: the scale on which each gate is smoothed."""
    lower, upper = (v.unsqueeze(1) for v in problem.box.window)
    unit = _draw(torch.Generator(problem.device).manual_seed(1), problem, 16, problem.network.in_size)
    seen = problem.network.values(problem.box.clamp(lower + unit.round() * (upper - lower)))
    parents = {k: seen[problem.network.nodes[k].parents[0]] for k in problem.network.activations}
    return {k: Interval(z.amin(1), z.amax(1)) for k, z in parents.items()}


def _keep_better(points: Tensor, values: Tensor, new: Tensor, new_values: Tensor) -> tuple[Tensor, Tensor]:
    better = new_values > values * (1 + TIE) + torch.finfo(values.dtype).tiny
    return torch.where(better.unsqueeze(-1), new, points), torch.where(better, new_values, values)


def _local_search(
    problem: Problem,
    effort: Effort,
    points: Tensor,
    values: Tensor,
    random: torch.Generator,
    deadline: Deadline,
) -> tuple[Tensor, Tensor]:
    """Random steps of all sizes from every start, half of them along differences of the other starts."""
    radius = problem.box.window.radius[:, None, None, None, :]
    batch, rows, starts, inputs = points.shape
    half = max(1, effort.proposals // 2)
    for _ in range(effort.rounds):
        if deadline.passed():
            break
        shape = (rows, starts, half)
        size = 10.0 ** (-3.0 * _draw(random, problem, *shape, 1))
        share = _draw(random, problem, *shape, 1)
        touched = _draw(random, problem, *shape, inputs) < share.clamp(min=2 / inputs)
        noise = _draw(random, problem, *shape, inputs, normal=True) * size * touched
        partners = torch.randint(starts, (2, half), generator=random, device=points.device)
        step = 1.5 * _draw(random, problem, *shape, 1)
        start = points.unsqueeze(3)
        drift = points[:, :, partners[0]] - points[:, :, partners[1]]
        proposals = torch.cat(
            [start + radius * noise, start + step * drift.unsqueeze(2) + 0.01 * radius * noise], dim=3
        )
        proposals = problem.box.clamp(proposals)
        reached = _norms(problem, proposals.flatten(2, 3)).unflatten(2, (starts, 2 * half))
        best = _order(reached)[..., :1]
        chosen = proposals.gather(3, best.unsqueeze(-1).expand(batch, rows, starts, 1, inputs)).squeeze(3)
        points, values = _keep_better(points, values, chosen, reached.gather(-1, best).squeeze(-1))
    return points, values


def kink_patterns(problem: Problem, points: Tensor, deadline: Deadline | None = None) -> dict[int, Tensor] | None:
    """Slopes (batch, rows, neurons) that points on kinks may take and that give a larger norm; None without kinks.

    The norm is convex in each slope, so the ends of its range suffice; neurons whose pre-activation is 0 are flipped
    one after another while that helps, or until ``deadline``, after which there are none. Where there are very many
    (max pooling over a flat background ties everywhere) only the first ``_KINKS`` are tried.
    """
    deadline = deadline or Deadline()
    if deadline.passed():
        return None
    network = problem.network
    masks = clarke(network.to(problem.device, torch.float64), points.double().reshape(-1, network.in_size)).kinks
    if not any(bool(mask.any()) for mask in masks.values()):
        return None
    slopes = network.slopes(network.values(points))
    values = problem.norm.dual.of(network.pull_back(slopes, problem.functionals))
    improved = True
    tried = 0
    while improved and tried < _KINKS:
        improved = False
        for k, mask in masks.items():
            range_ = network.activation(k).slopes_anywhere(slopes[k])
            for neuron in mask.any(0).nonzero().squeeze(-1).tolist():
                if tried >= _KINKS or deadline.passed():
                    return slopes
                tried += 1
                at_kink = mask[:, neuron].reshape(points.shape[:2])
                for end in range_:
                    trial = slopes[k].clone()
                    trial[..., neuron] = torch.where(at_kink, end[..., neuron], trial[..., neuron])
                    reached = problem.norm.dual.of(network.pull_back({**slopes, k: trial}, problem.functionals))
                    better = reached > values * (1 + TIE) + torch.finfo(values.dtype).tiny
                    if bool(better.any()):
                        slopes = {**slopes, k: torch.where(better.unsqueeze(-1), trial, slopes[k])}
                        values = torch.where(better, reached, values)
                        improved = True
    return slopes
