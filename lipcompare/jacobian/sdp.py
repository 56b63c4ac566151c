"""The quadratic-gate semidefinite bound on gradient norms, batched over examples and rows.

A function of the network, the gates, the functionals and the gradient intervals, never of an input. The mathematics
is in docs/quadratic-gates.md. Everything runs in float64 whatever the problem's precision: the certificate needs it.
"""

from __future__ import annotations

import dataclasses
import time
from typing import overload

import torch
from torch import Tensor

from lipcompare.gates import Gates
from lipcompare.jacobian.linear import GateLines, Gradients, norm_bound
from lipcompare.jacobian.sdp_certificate import certify
from lipcompare.jacobian.sdp_cuts import tighten
from lipcompare.jacobian.sdp_data import (
    GateMaps,
    SdpData,
    coordinate_count,
    entry_data,
    gate_maps,
    l1_data,
    l2_data,
)
from lipcompare.jacobian.sdp_patterns import explore
from lipcompare.jacobian.sdp_scaling import prepare
from lipcompare.jacobian.sdp_solver import Solution, solve
from lipcompare.network.graph import Network
from lipcompare.network.interval import Interval
from lipcompare.problem import Norm

_CACHE = 2**17  # matrix entries of a batch on a CPU: more than this falls out of its caches


@dataclasses.dataclass(frozen=True, eq=False)
class SdpBound:
    """Upper bounds on every row's gradient norm; arrays are (examples, rows).

    Attributes:
        upper: the smaller of the certified semidefinite bound and the linear one.
        linear: the linear bound.
        fell_back: rows that the semidefinite bound did not improve: it failed, did not fit in memory or time, or is no
            better. Rows left alone because they cannot be the largest are not among them.
        pruned: rows that were stopped or never started because they cannot be the largest, or met the target.
        iterations: interior point iterations (the largest over a row's problems).
        converged: rows solved to the tolerance.
        no_memory: examples (examples,) that need more than the memory budget.
        no_time: whether the deadline cut the work short.
        solved: the batches with their data and solutions, if asked for.
    """

    upper: Tensor
    linear: Tensor
    fell_back: Tensor
    pruned: Tensor
    iterations: Tensor
    converged: Tensor
    no_memory: Tensor
    no_time: bool
    solved: tuple[tuple[SdpData, Solution], ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class _Tasks:
    """Semidefinite programs to solve, one entry each; several of one row for p = 1."""

    example: Tensor
    row: Tensor
    entry: Tensor
    sign: Tensor
    linear: Tensor  # the linear bound in the units of the objective (squared for p = 2)
    group: Tensor  # programs that compete for a maximum

    def select(self, index: Tensor) -> _Tasks:
        return _Tasks(*(getattr(self, f.name)[index] for f in dataclasses.fields(self)))


def sdp_bound(
    network: Network,
    gates: Gates,
    functionals: Tensor,
    gradients: Gradients,
    norm: Norm,
    *,
    tolerance: float = 1e-4,
    cuts: int = 0,
    max_iterations: int = 40,
    only_maximum: bool = True,
    prune_below: Tensor | None = None,
    target: Tensor | None = None,
    memory: int = 2**30,
    deadline: float | None = None,
    keep: bool = False,
) -> SdpBound:
    """Bound the dual norm of every gradient row.

    Args:
        functionals: (examples, rows, outputs).
        gradients: what :func:`~lipcompare.jacobian.linear.gradient_intervals` gives for the same gates.
        tolerance: relative gap between primal and dual at which a row stops.
        cuts: most cutting planes per row (0: none; p = inf only), see :mod:`~lipcompare.jacobian.sdp_cuts`.
        only_maximum: let a row stop once it cannot be the largest of its example; its bound is valid, but looser.
        prune_below: (examples,) rows with an upper bound at most this are left at that.
        target: (examples,) a row stops once its bound is at most this.
        memory: bytes for the matrices of one batch. An example that does not fit keeps its linear bound.
        deadline: time (as of ``time.perf_counter``) after which no further batch is started.
        keep: return the data and solutions, for branching and for the attack.
    """
    network = network.to(functionals.device, torch.float64)
    gates = _double_gates(gates)
    gradients = _double_gradients(gradients)
    functionals = functionals.to(torch.float64)
    linear = norm_bound(network, gates, functionals, gradients, norm)
    examples, rows = linear.shape
    floor_rows = torch.zeros_like(linear)
    if prune_below is not None:
        floor_rows = torch.maximum(floor_rows, prune_below.to(linear).unsqueeze(-1).expand_as(linear))
    tasks = _tasks(gradients, linear, norm, only_maximum)
    floor = torch.zeros(int(tasks.group.max()) + 1 if len(tasks.group) else 0).to(linear)
    if norm is Norm.TWO:
        floor_rows = floor_rows.square()
    floor.scatter_reduce_(0, tasks.group, floor_rows[tasks.example, tasks.row], "amax")
    aim = None if target is None else (target.to(linear).square() if norm is Norm.TWO else target.to(linear))

    upper = tasks.linear.clone()
    iterations = torch.zeros_like(tasks.example)
    converged = torch.zeros_like(tasks.example, dtype=torch.bool)
    pruned = torch.zeros_like(converged)
    tried = torch.zeros_like(converged)
    no_memory = torch.zeros(examples, dtype=torch.bool, device=linear.device)
    solved: list[tuple[SdpData, Solution]] = []
    no_time = False
    count = coordinate_count(gates, gradients)
    for pack, fits in _packs(network, count, rows, memory):
        if not fits:
            no_memory[pack] = True
            continue
        maps = gate_maps(network, _gates_of(gates, pack), functionals[pack], _gradients_of(gradients, pack))
        place = torch.full((examples,), -1, dtype=torch.int64, device=linear.device)
        place[pack] = torch.arange(len(pack), device=linear.device)
        todo = ((place[tasks.example] >= 0) & (tasks.linear > 0)).nonzero().squeeze(-1)
        if not len(todo):
            continue
        signs = _sign_count(gradients) if norm is Norm.INF else torch.zeros_like(count)
        sizes = count + signs
        most = _bytes(maps.coordinates.count, int(signs[pack].max()))
        if most > memory:
            no_memory[pack] = True
            continue
        width, widths = memory // most, (memory // _bytes(count, signs)).clamp(min=1)
        if linear.device.type == "cpu":
            width = min(width, max(1, _CACHE // int(sizes[pack].max()) ** 2))
            widths = torch.minimum(widths, (_CACHE // sizes.square()).clamp(min=1))
        packed = _gradients_of(gradients, pack)

        first: SdpData | None = None
        order = tasks.linear[todo]
        if only_maximum and norm is not Norm.ONE and len(todo) > 1:
            values = []
            for part in todo.split(width):
                data, best = _prepared(maps, packed, norm, tasks.select(part), place)
                values.append(best)
                first = data if len(part) == len(todo) else None
            order = torch.cat(values)
            # The optimum is at least the value of a pattern, so a row that ends lower cannot be the largest.
            floor.scatter_reduce_(0, tasks.group[todo], order, "amax")
        batches = _batches(todo, order, tasks.group[todo], widths[tasks.example[todo]], width)
        for part in batches:
            # Nothing is left to do for a row whose linear bound is already under what its group reaches.
            idle = tasks.linear[part] <= floor[tasks.group[part]]
            if aim is not None:
                idle |= tasks.linear[part] <= aim[tasks.example[part]]
            pruned[part[idle]] = True
            if bool(idle.all()):
                continue
            if deadline is not None and time.perf_counter() > deadline:
                no_time = True
                break
            part = part[~idle]
            if first is None:
                data, _ = _prepared(maps, packed, norm, tasks.select(part), place)
            else:
                data = first.select(torch.searchsorted(todo, part))
            goal = None if aim is None else aim[tasks.example[part]] / data.scale
            compete = only_maximum or norm is Norm.ONE or prune_below is not None
            solution = solve(
                data,
                tolerance=tolerance,
                max_iterations=max_iterations,
                target=goal,
                group=tasks.group[part] if compete else None,
                floor=floor if compete else None,
                # With cuts the largest may still sink below a row that it beats now.
                compete=(only_maximum or norm is Norm.ONE) and not cuts,
            )
            certified = certify(data, solution.dual) * data.scale
            upper[part] = torch.minimum(upper[part], certified)
            if cuts and norm is Norm.INF:
                again = (~solution.stopped).nonzero().squeeze(-1)
                if len(again):
                    chosen = part[again]
                    harder, sharper = tighten(
                        data.select(again), solution.select(again), maps, place[tasks.example[chosen]],
                        tasks.row[chosen], cuts=cuts, tolerance=tolerance,
                    )  # fmt: skip
                    certified = certify(harder, sharper.dual) * harder.scale
                    upper[chosen] = torch.minimum(upper[chosen], certified)
            tried[part] = True
            iterations[part] = solution.iterations
            converged[part] = solution.converged
            pruned[part] = ~solution.converged & solution.stopped
            if only_maximum or norm is Norm.ONE:
                floor.scatter_reduce_(0, tasks.group[part], upper[part].clamp(max=1e300), "amax")
            if keep:
                solved.append((dataclasses.replace(data, example=tasks.example[part]), solution))
    if norm is Norm.TWO:
        upper, values_linear = upper.clamp(min=0).sqrt() * (1 + 1e-15), tasks.linear.sqrt()
    else:
        values_linear = tasks.linear
    flat = tasks.example * rows + tasks.row

    def by_row(values: Tensor, start: Tensor) -> Tensor:
        return start.reshape(-1).scatter_reduce(0, flat, values, "amax").view(examples, rows)

    worst = torch.minimum(by_row(upper, torch.zeros_like(linear)), linear)
    improved = tried & (upper < values_linear)
    zero = torch.zeros(examples, rows, dtype=torch.int64, device=linear.device)
    skipped = by_row((pruned & ~improved).to(zero), zero) > 0
    any_improved = by_row(improved.to(zero), zero) > 0
    return SdpBound(
        worst,
        linear,
        ~any_improved & ~skipped & (linear > 0),
        by_row(pruned.to(zero), zero) > 0,
        by_row(iterations, zero),
        by_row((~(converged | (pruned & (norm is Norm.ONE)))).to(zero), zero) == 0,
        no_memory,
        no_time,
        tuple(solved),
    )


def _tasks(gradients: Gradients, linear: Tensor, norm: Norm, only_maximum: bool) -> _Tasks:
    """The programs of all rows."""
    rows = linear.shape[1]
    if norm is not Norm.ONE:
        example, row = (linear >= 0).nonzero(as_tuple=True)
        value = linear[example, row]
        group = example if only_maximum else example * rows + row
        value = value.square() * (1 + 1e-15) if norm is Norm.TWO else value
        zero, one = torch.zeros_like(row), torch.ones_like(value)
        return _Tasks(example, row, zero, one, value, group)
    interval = gradients.intervals[0]
    ends = torch.stack([interval.upper, -interval.lower], -1)  # (examples, rows, inputs, 2)
    example, row, entry, side = (ends > 0).nonzero(as_tuple=True)
    # An end is the linear bound on a signed entry up to the rounding that norm_bound allows for.
    slack = (linear / interval.magnitude.amax(-1).clamp(min=1e-300)).clamp(min=1.0)
    value = ends[example, row, entry, side] * slack[example, row]
    sign = 1.0 - 2.0 * side.to(linear)
    group = example if only_maximum else example * rows + row
    return _Tasks(example, row, entry, sign, value, group)


def _prepared(maps: GateMaps, gradients: Gradients, norm: Norm, tasks: _Tasks, place: Tensor) -> tuple[SdpData, Tensor]:
    """Data of some programs in the solver's units, and the values of their best patterns.

    Args:
        place: (examples,) where in ``maps`` and ``gradients`` each example is.
    """
    data = _build(maps, gradients, norm, tasks, place[tasks.example])
    patterns = explore(data)
    return prepare(data, patterns), patterns.values.amax(-1) * data.scale


def _build(maps: GateMaps, gradients: Gradients, norm: Norm, tasks: _Tasks, place: Tensor) -> SdpData:
    if norm is Norm.INF:
        return l1_data(maps, gradients, tasks.linear, place, tasks.row)
    if norm is Norm.TWO:
        return l2_data(maps, tasks.linear, place, tasks.row)
    return entry_data(maps, tasks.linear, place, tasks.row, tasks.entry, tasks.sign)


def _by_rank(value: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Order in which the largest of every group come first, then the second largest, and so on; and those ranks."""
    order = torch.argsort(value, descending=True, stable=True)
    order = order[torch.argsort(group[order], stable=True)]
    _, counts = torch.unique_consecutive(group[order], return_counts=True)
    first = counts.cumsum(0) - counts
    rank = torch.arange(len(order), device=value.device) - first.repeat_interleave(counts)
    by_rank = torch.argsort(rank, stable=True)
    return order[by_rank], rank[by_rank]


def _batches(todo: Tensor, value: Tensor, group: Tensor, own: Tensor, width: int) -> list[Tensor]:
    """Programs in batches of about ``width``, the most promising of every group first.

    A group's programs come in portions of its ``own`` width that are never split, so what a program competes with, and
    with it its result, does not depend on the other groups of the batch.
    """
    order, rank = _by_rank(value, group)
    portion = rank // own[order]
    turn = torch.argsort(portion * (int(group.max()) + 1) + group[order], stable=True)
    order, portion = order[turn], portion[turn]
    keys = torch.stack([portion, group[order]], 1)
    _, counts = torch.unique_consecutive(keys, dim=0, return_counts=True)
    turns = portion[counts.cumsum(0) - 1].tolist()
    sizes, last = [0], 0
    for size, now in zip(counts.tolist(), turns, strict=True):
        # A group's next portion waits for the floor that this one sets.
        if sizes[-1] and (sizes[-1] + size > width or now != last):
            sizes.append(0)
        sizes[-1] += size
        last = now
    return list(todo[order].split(sizes))


def _packs(network: Network, count: Tensor, rows: int, memory: int) -> list[tuple[Tensor, bool]]:
    """Examples of similar size whose coefficient maps fit in memory together, and whether a single one does."""
    widest = max(node.size for node in network.nodes)
    order = torch.argsort(count, stable=True)
    packs: list[tuple[Tensor, bool]] = []
    group: list[int] = []
    for b in order.tolist():
        n = int(count[b])
        each = 8 * (4 * n * (widest + n) + 2 * n * network.in_size + 8 * rows * widest)
        if each > memory:
            packs.append((torch.tensor([b], device=count.device), False))
            continue
        # The largest comes last and sets the width of all; a pack of very different sizes would be mostly padding.
        if group and ((len(group) + 1) * each > memory or n > 1.25 * int(count[group[0]]) + 16):
            packs.append((torch.tensor(group, device=count.device), True))
            group = []
        group.append(b)
    if group:
        packs.append((torch.tensor(group, device=count.device), True))
    return packs


def _sign_count(gradients: Gradients) -> Tensor:
    """Undecided signs of the input gradient, the largest number over the rows of each example, (examples,)."""
    lower, upper = gradients.intervals[0]
    return ((lower < 0) & (upper > 0)).sum(-1).amax(-1)


@overload
def _bytes(n: int, signs: int) -> int: ...


@overload
def _bytes(n: Tensor, signs: Tensor) -> Tensor: ...


def _bytes(n: int | Tensor, signs: int | Tensor) -> int | Tensor:
    """Memory of one program in the interior point method."""
    return 8 * (24 * n * n + 8 * n * signs + 6 * (n + signs) ** 2)


def _gates_of(gates: Gates, index: Tensor) -> Gates:
    return Gates({k: Interval(s.lower[index], s.upper[index]) for k, s in gates.slopes.items()})


def _gradients_of(gradients: Gradients, index: Tensor) -> Gradients:
    intervals = {k: Interval(s.lower[index], s.upper[index]) for k, s in gradients.intervals.items()}
    return Gradients(intervals, {}, gradients.constant)


def _double_gates(gates: Gates) -> Gates:
    return Gates({k: Interval(s.lower.double(), s.upper.double()) for k, s in gates.slopes.items()})


def _double_gradients(gradients: Gradients) -> Gradients:
    intervals = {k: Interval(s.lower.double(), s.upper.double()) for k, s in gradients.intervals.items()}
    lines = {
        k: GateLines(
            line.slope.double(),
            line.slope_spread.double(),
            None if line.offset is None else line.offset.double(),
            line.offset_spread.double(),
        )
        for k, line in gradients.lines.items()
    }
    return Gradients(intervals, lines, gradients.constant)
