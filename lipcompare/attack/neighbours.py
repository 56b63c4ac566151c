"""Search over neighbouring activation patterns: flip gates that raise the gradient norm, then find a point that has the
new pattern, strictly inside its region, by a linear program.

Random search cannot enter a region that is thinner than its steps; an LP can. Patterns of one example are tried from
the largest norm down until one turns out to have an interior.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from lipcompare.budget import Deadline
from lipcompare.gates import Gates
from lipcompare.network.activations import LeakyReLU
from lipcompare.network.interval import Interval
from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.problem import Problem
from lipcompare.regions.program import deepest, fitting_regions, regions_of
from lipcompare.rounding import DIVISOR, TIE
from lipcompare.witness import gradient_norms

_ALL_PATTERNS = 11
"""Up to this many undecided neurons every pattern is tried."""
_PAIRS = 4096
"""Patterns tried at once."""
_ENTRIES = 2**24
"""Gates of all patterns tried at once: about a second of work, and 128 MiB."""
_CROWN_ENTRIES = 1_000_000
_PATIENCE = 40
"""Linear programs one after another that find nothing better, after which the search ends."""
_TOGETHER = 16
"""Linear programs solved at once at most, of which the first with an interior is taken."""


def search_regions(
    problem: Problem,
    points: Tensor,
    values: Tensor,
    *,
    regions: int,
    deadline: Deadline,
    memory: int,
    examples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Points (batch, rows, starts, inputs) and values (batch, rows, starts), with the better ones found put first.

    ``regions`` is the number of linear programs that each example may solve; after ``deadline`` none is begun.
    ``examples``: (batch,), those that are searched; None for all.
    """
    network = problem.network
    if not regions or not all(isinstance(network.activation(k), LeakyReLU) for k in network.activations):
        return points, values
    some = range(problem.batch) if examples is None else examples.nonzero().squeeze(-1).tolist()
    if not some or deadline.passed():
        return points, values
    # Bounds only decide which neurons may flip; on a large network CROWN would cost more than the search gains.
    tightening = Tightening.CROWN if network.neurons * network.in_size <= _CROWN_ENTRIES else Tightening.INTERVAL
    bounds = preactivation_bounds(network, problem.box.window, tightening, memory=memory, deadline=deadline)
    gates = Gates.from_preactivations(network, bounds)
    for b in some:
        if deadline.passed():
            break
        search = _ExampleSearch(problem.example(b), gates.example(b), regions, memory, deadline)
        for row, point, value in search.run(points[b], values[b]):
            if value > values[b, row].max() * (1 + TIE):
                points[b, row, 0], values[b, row, 0] = point, value
    return points, values


class _ExampleSearch:
    """The search on one example; counts its linear programs."""

    def __init__(self, problem: Problem, gates: Gates, regions: int, memory: int, deadline: Deadline) -> None:
        self.problem, self.network = problem, problem.network
        self.rows = problem.functionals[0]
        self.box = Interval(*(v[0] for v in problem.box.window))
        self.open = {k: gates.unstable(k)[0] for k in self.network.activations}
        self.neurons = [(k, i) for k, mask in self.open.items() for i in mask.nonzero().squeeze(-1).tolist()]
        self.node, self.neuron = torch.tensor(self.neurons, dtype=torch.int64).reshape(-1, 2).unbind(1)
        # Large programs cost more: fewer of them are allowed.
        entries = max(1, len(self.neurons) * problem.network.in_size)
        self.left = min(regions, int(regions * 2e4 / entries))
        self.together = max(1, min(_TOGETHER, fitting_regions(self.network, len(self.neurons), memory)))
        self.deadline = deadline
        self.best, self.idle = 0.0, 0

    @property
    def over(self) -> bool:
        """Whether no further program is to be solved."""
        tired = self.idle >= _PATIENCE and len(self.neurons) > _ALL_PATTERNS
        return not self.left or tired or self.deadline.passed()

    def run(self, points: Tensor, values: Tensor) -> Iterator[tuple[int, Tensor, float]]:
        """Improved (row, point, value) as they are found; points (rows, starts, inputs), values (rows, starts)."""
        if not self.neurons or not self.left:
            return
        self.best = float(values.max())
        order = (values.flatten() / max(self.best, DIVISOR) / TIE).round().argsort(descending=True, stable=True)
        seen: set[tuple[int, bytes]] = set()
        optima: list[tuple[int, Tensor, float]] = []
        for flat in order.tolist():
            if self.over:
                return
            row, start = divmod(flat, values.shape[1])
            pattern = self._active(points[row, start])
            if (row, self._key(pattern)) in seen:
                continue
            current = (row, points[row, start], float(values[row, start]))
            while (better := self._step(row, current, self._flips(pattern, 1), seen)) is not None:
                current, pattern = better, self._active(better[1])
                yield current
            optima.append(current)
            if len(optima) == 12:
                break
        optima.sort(key=lambda optimum: -optimum[2])
        for row, point, value in optima:
            if self.over:
                return
            current = (row, point, value)
            flips = self._everything() if len(self.neurons) <= _ALL_PATTERNS else self._flips(self._active(point), 2)
            while (better := self._step(row, current, flips, seen)) is not None:
                current = better
                yield current
                if len(self.neurons) <= _ALL_PATTERNS:
                    break
                flips = self._flips(self._active(current[1]), 2)

    def _active(self, point: Tensor) -> dict[int, Tensor]:
        values = self.network.values(point)
        return {k: values[self.network.nodes[k].parents[0]] > 0 for k in self.network.activations}

    def _key(self, pattern: dict[int, Tensor]) -> bytes:
        return b"".join(pattern[k][mask].cpu().numpy().tobytes() for k, mask in self.open.items())

    def _flips(self, pattern: dict[int, Tensor], distance: int) -> dict[int, Tensor]:
        """All patterns one or two flips away, or an evenly spread choice of them: per node (patterns, neurons)."""
        most = max(1, min(_PAIRS, _ENTRIES // self.network.neurons))
        chosen = torch.from_numpy(_spread(len(self.neurons), distance, most))  # (patterns, distance)
        flipped = {k: v.expand(len(chosen), -1).clone() for k, v in pattern.items()}
        for flip in chosen.unbind(1):
            for k in self.open:
                rows = (self.node[flip] == k).nonzero().squeeze(-1)
                flipped[k][rows, self.neuron[flip[rows]]] ^= True
        return flipped

    def _everything(self) -> dict[int, Tensor]:
        """Every pattern of the undecided neurons."""
        count = 2 ** len(self.neurons)
        fixed = self._active(self.box.center)
        patterns = {k: v.expand(count, -1).clone() for k, v in fixed.items()}
        numbers = torch.arange(count)
        for bit, (k, i) in enumerate(self.neurons):
            patterns[k][:, i] = ((numbers >> bit) & 1).bool().to(patterns[k].device)
        return patterns

    def _step(
        self, row: int, current: tuple[int, Tensor, float], patterns: dict[int, Tensor], seen: set[tuple[int, bytes]]
    ) -> tuple[int, Tensor, float] | None:
        """The best candidate pattern that raises the norm and has an interior, as (row, point, value)."""
        slopes = {k: self._slopes(k, active) for k, active in patterns.items()}
        count = len(next(iter(slopes.values())))
        functional = self.rows[row].expand(count, -1)
        norms = self.problem.norm.dual.of(self.network.pull_back(slopes, functional))
        above = int((norms > current[2] * (1 + TIE)).sum())
        order = norms.argsort(descending=True, stable=True)[:above].tolist()
        keys = ((c, (row, self._key({k: active[c] for k, active in patterns.items()}))) for c in order)
        untried, width = ((c, key) for c, key in keys if key not in seen), 1
        while not self.over and (part := list(itertools.islice(untried, min(width, self.left)))):
            width = min(2 * width, self.together)
            self.left -= len(part)
            index = torch.tensor([c for c, _ in part], device=norms.device)
            box = Interval(*(v.expand(len(index), -1) for v in self.box))
            pattern, sides = ({k: v[index] for k, v in each.items()} for each in (slopes, patterns))
            located = deepest(regions_of(self.network, box, pattern, sides, self.open), time_limit=self.deadline.left)
            for (_, key), here in zip(part, located, strict=True):
                seen.add(key)
                self.idle += 1
                if here.inside is None:
                    continue
                point = torch.as_tensor(here.inside).to(self.box.lower)
                point = self.problem.box.clamp(point.unsqueeze(0)).squeeze(0)
                value = float(gradient_norms(self.network, self.rows[row], point, self.problem.norm))
                if value > current[2] * (1 + TIE):
                    if value > self.best * (1 + TIE):
                        self.best, self.idle = value, 0
                    return row, point, value
        return None

    def _slopes(self, k: int, active: Tensor) -> Tensor:
        activation = self.network.activation(k)
        assert isinstance(activation, LeakyReLU)
        return activation.slopes(active, self.rows.dtype)


def _spread(count: int, distance: int, most: int) -> np.ndarray:
    """Sets of ``distance`` (1 or 2) of so many things in lexicographic order, evenly spread, about ``most`` of them."""
    total = count if distance == 1 else count * (count - 1) // 2
    number = np.arange(0, total, 1 + total // most)
    if distance == 1:
        return number[:, None]
    # Pairs (i, j), i < j: those with first thing i begin at number starts[i].
    first = np.arange(count)
    starts = first * (2 * count - first - 1) // 2
    i = np.searchsorted(starts, number, side="right") - 1
    return np.stack([i, number - starts[i] + i + 1], axis=1)
