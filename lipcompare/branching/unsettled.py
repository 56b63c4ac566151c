"""What to do with subdomains that their bound does not close: look for a point, leave a contradiction out, or split.

Everything that is computed on the network is computed for all of a batch at once, and moved to the host once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lipcompare.branching.bounds import Relaxed, Settings
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.driver import EMPTY, Assessment
from lipcompare.branching.subdomains import Subdomains
from lipcompare.jacobian import pattern_bound
from lipcompare.network.interval import Interval
from lipcompare.problem import Problem
from lipcompare.regions.program import Deepest
from lipcompare.result import Witness
from lipcompare.rounding import TIE
from lipcompare.witness import clarke

_CHAIN = 3
"""Contradictions of at most this many undecided gates are excluded in one split."""
_TIGHT = 0.05
"""A contradiction is left out where the value of the pattern is below the bound by at most so much of the distance from
the bound to the target. Elsewhere the relaxation is loose for other reasons, and splits where it is lower the bound
more than leaving out one pattern of many does (docs/performance.md)."""
_SOLVED = Settings.tolerance
"""The same as a share of the bound, where the target is close: programs are solved to about that."""
_EARLY = 0.3
"""Factor of a score for every layer further from the input, where a contradiction is split: half-spaces of a layer are
affine once the gates before it are decided, so early decisions leave it behind sooner (docs/performance.md)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Gatewise:
    """What is known of every gate of the network, (gates,).

    Attributes:
        flat, steep: slopes of its two sides.
        reference: the slope that it takes where nothing asks for one.
    """

    flat: Tensor
    steep: Tensor
    reference: Tensor

    def active(self, slopes: Tensor) -> Tensor:
        """Which side of the kink each slope belongs to."""
        return (slopes - self.steep).abs() <= (slopes - self.flat).abs()


@dataclasses.dataclass(frozen=True, eq=False)
class Unsettled:
    """Subdomains whose linear bound does not close them, with what the relaxation says of them.

    Attributes:
        problem: one example.
        box: (subdomains, inputs).
        row: (subdomains,).
        locate: where in boxes (some, inputs) patterns (some, gates) hold, if anywhere.
    """

    problem: Problem
    numbering: Numbering
    gatewise: Gatewise
    box: Interval
    row: Tensor
    batch: Subdomains
    relaxed: Relaxed
    locate: Callable[[Tensor, Interval], list[Deepest]]

    def settle(self, floor: float, target: float) -> list[Assessment]:
        """Close each subdomain, or split it; arguments as for :class:`~lipcompare.branching.driver.Evaluator`."""
        join, slopes, gradients = self.numbering.join, self.batch.gates.slopes, self.batch.gradients.intervals
        low, high = join({k: s.lower for k, s in slopes.items()}), join({k: s.upper for k, s in slopes.items()})
        undecided = high > low
        none = {k: torch.zeros_like(s.lower) for k, s in slopes.items()}
        relevant = undecided & (
            join({k: gradients[k].magnitude[:, 0] if k in gradients else none[k] for k in none}) > 0
        )
        leaf, reference = ~relevant.any(-1), self.gatewise.reference
        pattern = torch.where(leaf.unsqueeze(-1), low, self.relaxed.slopes)
        pattern = torch.where(undecided & ~relevant, reference, pattern)
        upper, value = self._leaves(leaf, pattern)
        host = _Host(
            numbering=self.numbering,
            active=self.gatewise.active(pattern).cpu().numpy(),
            undecided=undecided.cpu().numpy(),
            relevant=relevant.cpu().numpy(),
            score=self.relaxed.score.cpu().numpy(),
            upper=upper.cpu().numpy().tolist(),
        )
        open_ = upper > target
        room = torch.maximum(_TIGHT * (upper - target), _SOLVED * upper)
        close = leaf | (value >= upper - room)
        # Elsewhere a program for the point that may be there is worth it once in a batch.
        hopeful = torch.zeros_like(leaf)
        hopeful[torch.where(leaf | ~open_, -torch.inf, value).argmax()] = True
        asked = open_ & (leaf | ((close | hopeful) & (value > floor * (1 + TIE))))
        index = asked.nonzero().squeeze(-1)
        located = self.locate(pattern[index], Interval(*(v[index] for v in self.box))) if len(index) else []
        found = dict(zip(index.tolist(), located, strict=True))
        ends, values, tight = leaf.cpu().numpy(), value.cpu().numpy(), close.cpu().numpy()
        results: dict[int, Assessment] = {}
        points: dict[int, np.ndarray | None] = {}
        for i, bound in enumerate(host.upper):
            if bound <= target:
                results[i] = Assessment(bound)
            elif i not in found:
                results[i] = host.split(i)
            elif found[i].empty:
                results[i] = host.exclude(i, found[i].conflict) if tight[i] else host.split(i)
            else:
                points[i] = found[i].point
        witnesses = self._attained({i: point for i, point in points.items() if point is not None}, pattern)
        for i in points:
            attained = witnesses.get(i, ())
            best = max((witness.value for witness in attained), default=0.0)
            if ends[i] and (best >= values[i] * (1 - TIE) or not host.undecided[i].any()):
                # Exact; or a region too thin for a point in floating point. Its bound stands in either case.
                results[i] = Assessment(host.upper[i], witnesses=attained)
            else:
                results[i] = host.split(i, attained)
        return [results[i] for i in range(len(host.upper))]

    def _leaves(self, leaf: Tensor, pattern: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds and values (subdomains,) of the patterns; those of ``leaf``, which have one gradient, are its norm."""
        upper, value = self.relaxed.upper.clone(), self.relaxed.value.clone()
        some = leaf.nonzero().squeeze(-1)
        if len(some):
            slopes, functionals = self.numbering.split(pattern[some]), self.batch.functionals[some]
            exact = pattern_bound(self.problem.network, slopes, functionals, self.problem.norm).squeeze(1)
            upper[some] = torch.minimum(upper[some], exact)
            value[some] = self._norms(pattern[some], some)
        return upper, value

    def _norms(self, slopes: Tensor, subdomains: Tensor) -> Tensor:
        """Norms (some,) of the gradients of some subdomains' rows under slopes (some, gates)."""
        functionals = self.batch.functionals[subdomains].squeeze(1)
        return self.problem.norm.dual.of(self.problem.network.pull_back(self.numbering.split(slopes), functionals))

    def _attained(self, points: dict[int, np.ndarray], pattern: Tensor) -> dict[int, tuple[Witness, ...]]:
        """The values at the programs' points: with the slopes there, or with the pattern where its kinks allow that."""
        if not points:
            return {}
        like = self.batch.linear
        index = torch.tensor(list(points), device=like.device)
        at = clarke(self.problem.network, torch.from_numpy(np.stack(list(points.values()))).to(like))
        plain = self.numbering.join(at.slopes)
        bent = torch.where(self.numbering.join(at.kinks), pattern[index], plain)
        values, kinked = self._norms(plain, index), self._norms(bent, index)
        columns = [v.cpu().numpy() for v in (self.row[index], values, kinked, kinked > values * (1 + TIE), bent)]
        witnesses: dict[int, tuple[Witness, ...]] = {}
        for (i, point), row, value, other, better, slopes in zip(points.items(), *columns, strict=True):
            # A tie is not worth a pattern.
            chosen = (
                Witness(int(row), float(other), point, slopes) if better else Witness(int(row), float(value), point)
            )
            witnesses[i] = (chosen,)
        return witnesses


@dataclasses.dataclass(frozen=True, eq=False)
class _Host:
    """What splits are chosen by, on the host: (subdomains, gates), scores (subdomains, gates + inputs).

    Attributes:
        active: sides of the patterns that were tried.
        upper: certified bounds, one each.
    """

    numbering: Numbering
    active: np.ndarray
    undecided: np.ndarray
    relevant: np.ndarray
    score: np.ndarray
    upper: list[float]

    def exclude(self, i: int, conflict: tuple[int, ...]) -> Assessment:
        """Split so that a contradictory pattern is left out."""
        node_of, open_, score = self.numbering.node_of, self.undecided[i], self.score[i]
        named = [g for g in conflict if open_[g]]
        # The constraints of these neurons are affine only where the earlier ones are decided as the pattern has them.
        last = max(node_of[g] for g in conflict)
        earlier = np.flatnonzero(open_ & (node_of < last))
        together = sorted({*named, *earlier.tolist()})
        if not together:
            return EMPTY
        if len(together) <= _CHAIN:
            together.sort(key=lambda g: -float(score[g]))
            return Assessment(self.upper[i], tuple(self._decision(i, g) for g in together), closed=True)
        layer = self.numbering.layer_of
        gate = max(named or together, key=lambda g: float(score[g]) * _EARLY ** int(layer[g]))
        return Assessment(self.upper[i], (self._decision(i, gate),))

    def _decision(self, i: int, gate: int) -> int:
        return 2 * gate + int(self.active[i, gate])

    def split(self, i: int, witnesses: tuple[Witness, ...] = ()) -> Assessment:
        """Split where the relaxation asks for it."""
        gates, relevant = self.numbering.gates, self.relevant[i]
        score = self.score[i].copy()
        score[:gates] *= relevant
        if (score > 0).any():
            return Assessment(self.upper[i], (2 * int(score.argmax()) + 1,), witnesses=witnesses)
        rest = np.flatnonzero(relevant if relevant.any() else self.undecided[i])
        if len(rest):
            return Assessment(self.upper[i], (2 * int(rest[0]) + 1,), witnesses=witnesses)
        return Assessment(self.upper[i], witnesses=witnesses)
