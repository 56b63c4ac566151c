"""The one linear program over an activation region: a point deep inside it, or a proof that it meets no input.

Under a fixed pattern the network is affine, and the pattern holds on the polytope ``A x + b >= 0`` (one row per neuron
that may have either sign). The program maximises the depth ``t`` of a point of the box inside it. Its duals are
multipliers ``y >= 0``; if ``y'b + max_box (A'y)'x < 0`` beyond rounding, no input satisfies all rows (Farkas). That is
evaluated here for whatever multipliers are proposed, so that a region is empty by proof only, never by a solver's word.
A region of depth zero is not empty: a point on the kinks counts.

An interior point method proposes points and multipliers for many regions at once; where they tell nothing, in regions
that hardly have an interior or hardly none, a solver's are asked for, one region after another.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

import solvers
from lipcompare.network.graph import Network
from lipcompare.network.interval import Interval
from lipcompare.regions.interior import deepest_points
from lipcompare.regions.pieces import chosen_pieces, piece_errors
from lipcompare.rounding import allowance

_UNSEEN = np.errstate(over="ignore", invalid="ignore", divide="ignore")
"""Numbers out of range are looked for where they matter."""
_COPIES = 12
"""Dense matrices (neurons, inputs) that a linear program takes on its way to either method."""
_SECONDS = 10.0
"""Time limit of one program of a solver, unless there is less."""
_TIGHT = 1e-7
"""Distance at which a row counts as tight: the solver's tolerance. It only decides what is proposed."""
_NOISE = 1e-9
"""Multipliers under this share of the largest are left out where the proof holds without them: fewer gates to name."""
_INNER_NOISE = (1e-2, 1e-4, 1e-6, 0.0)
"""The same of the interior point method, which leaves a little of every row; the first that proves it is taken."""
_ALONE = 2
"""Of no more regions than this each is as quick by a solver."""
_MOST_INPUTS = 128
"""With more of them, whose square matrices the interior point method factors, a solver alone is asked."""


@dataclasses.dataclass(frozen=True, eq=False)
class Regions:
    """``matrix x + offset >= 0`` for ``x`` in a box, one row per neuron; rows of zeros fill up.

    Attributes:
        matrix: (regions, rows, inputs), double precision like all others.
        offset: (regions, rows).
        error: (regions, rows) what the exact function may differ by from the one stored, anywhere in the box.
        gate: (regions, rows) number of the neuron, through all activation nodes from the input on.
        lower, upper: (regions, inputs) of the boxes.
    """

    matrix: Tensor
    offset: Tensor
    error: Tensor
    gate: Tensor
    lower: Tensor
    upper: Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Deepest:
    """What is known of a region.

    Attributes:
        point: (inputs,) the deepest point that was found, in the box; None if there is none, or the region is empty.
        depth: of that point, in units of each row's half range over the box: positive inside, 0 on a kink, negative
            outside (then the region is empty or too thin to tell).
        empty: proved to hold no input.
        conflict: numbers of the gates whose rows contradict each other; empty unless the region is.
        weights: multipliers of these rows, as :class:`Regions` states them, which prove that; in the whole space, of
            rows of integers without a common divisor in their place.
    """

    point: np.ndarray | None
    depth: float
    empty: bool = False
    conflict: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def inside(self) -> np.ndarray | None:
        """The point if it is strictly inside, beyond rounding."""
        return self.point if self.depth > INTERIOR else None


INTERIOR = 1e-9
"""Depth from which a point counts as strictly inside: the solver's tolerance on rows is 1e-7 of their scale, and a
witness is checked in exact arithmetic afterwards, so this only spares checks."""
UNKNOWN = Deepest(None, -np.inf)
"""Nothing was found out."""


def regions_of(
    network: Network,
    box: Interval,
    slopes: Mapping[int, Tensor],
    active: Mapping[int, Tensor],
    rows: Mapping[int, Tensor],
) -> Regions:
    """The regions of patterns in boxes (regions, inputs), described by the neurons in ``rows``.

    Args:
        slopes: of the patterns, (regions, neurons) per activation node.
        active: which side of its kink each neuron is on, boolean, likewise.
        rows: neurons whose sign restricts a region, boolean, (neurons,) or (regions, neurons); those of all others are
            taken for granted.
    """
    count = len(box.lower)
    matrices, offsets, errors, gates = [], [], [], []
    allowances = piece_errors(network, slopes, box.magnitude)
    first = 0
    chosen = {k: rows[k].reshape(-1, rows[k].shape[-1]).any(0).nonzero().squeeze(-1) for k in network.activations}
    for k, piece in chosen_pieces(network, slopes, chosen).items():
        some = chosen[k]
        sign = torch.where(active[k][:, some], 1.0, -1.0).to(piece.offset) * rows[k].expand(count, -1)[:, some]
        matrices.append(piece.matrix * sign.unsqueeze(-1))
        offsets.append(piece.offset * sign)
        errors.append(allowances[k][:, some] * sign.abs())
        gates.append((some + first).expand(count, -1))
        first += network.nodes[k].size
    matrix, offset, error = (torch.cat(parts, 1).double() for parts in (matrices, offsets, errors))
    lower, upper = (end.double() for end in box)
    return Regions(matrix, offset, error, torch.cat(gates, 1), lower, upper)


def fitting_regions(network: Network, rows: int, memory: int) -> int:
    """The programs of how many regions that so many neurons describe each fit in memory at once; 0: not even one."""
    return memory // (_COPIES * 8 * max(rows, network.widest) * max(1, network.in_size))


@dataclasses.dataclass(frozen=True, eq=False)
class _Scaled:
    """The rows that cut their box, in coordinates of it: ``A u + b >= 0`` for ``|u| <= 1``, each of half range about 1;
    the other rows, which hold everywhere, are ``1 >= 0``.

    Attributes:
        A: (regions, rows, inputs).
        b, error: (regions, rows).
    """

    A: Tensor
    b: Tensor
    error: Tensor

    def contradictory(self, y: Tensor) -> Tensor:
        """Where multipliers ``y >= 0`` (regions, rows) prove that no ``u`` satisfies all rows, (regions,).

        ``y'(A u + b)`` is at most ``y'b + |A'y|_1``. Evaluating that makes at most ``rows + inputs + 4`` roundings on
        any product, and centre, half range and the scaling by them, which made ``A`` and ``b``, are in ``error``.
        """
        size = (y * (self.b.abs() + self.A.abs().sum(-1) + self.error)).sum(-1)
        rounding = allowance(sum(self.A.shape[1:]) + 4, torch.float64) * size
        most = (y * self.b).sum(-1) + (y.unsqueeze(-2) @ self.A).abs().sum((-1, -2)) + (y * self.error).sum(-1)
        return most < -rounding

    def named(self, y: Tensor, noise: tuple[float, ...]) -> Tensor:
        """``y`` without the rows that the proof does not need, of which the first share of the largest in ``noise``
        that leaves a proof says which; zeros where there is none."""
        found = torch.zeros_like(y)
        for share in reversed(noise):
            less = torch.where(y >= share * y.amax(-1, keepdim=True), y, 0.0)
            found = torch.where(self.contradictory(less).unsqueeze(-1), less, found)
        return found

    def depth(self, u: Tensor) -> Tensor:
        """Of points (regions, inputs): (regions,)."""
        return ((self.A @ u.unsqueeze(-1)).squeeze(-1) + self.b).amin(-1)

    def one(self, i: int) -> _Scaled:
        """A region alone, on the host."""
        return _Scaled(*(getattr(self, f.name)[i : i + 1].cpu() for f in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True, eq=False)
class _Measured:
    """Regions and what is seen of them without a program.

    Attributes:
        center, radius: (regions, inputs) of the boxes.
        alone: (regions, rows) rows that no point of their box satisfies.
        cutting: (regions, rows) rows that some point of it does not satisfy.
        order: (regions, some) numbers of the rows in ``scaled``.
        scale: (regions, some) what these were divided by.
        unknown: (regions,) boxes out of range.
    """

    center: Tensor
    radius: Tensor
    alone: Tensor
    cutting: Tensor
    order: Tensor
    scale: Tensor
    scaled: _Scaled
    unknown: Tensor


def _measured(regions: Regions) -> _Measured:
    center, radius = (regions.lower + regions.upper) / 2, (regions.upper - regions.lower) / 2
    size = regions.matrix.abs()
    reach = (size @ radius.unsqueeze(-1)).squeeze(-1)
    middle = (regions.matrix @ center.unsqueeze(-1)).squeeze(-1) + regions.offset
    # Half ranges, centres and their products round too: relative to the size of all terms.
    largest = torch.maximum(regions.lower.abs(), regions.upper.abs())
    total = (size @ largest.unsqueeze(-1)).squeeze(-1) + regions.offset.abs()
    error = regions.error + 2 * allowance(center.shape[-1] + 4, torch.float64) * total
    alone = middle + reach < -error
    # Rows that hold everywhere need no attention; the others are measured by their range over the box. Of numbers that
    # are out of range nothing is known, and a region with fewer rows is no smaller.
    cutting = (middle - reach < error) & error.isfinite()
    width = int(cutting.sum(-1).max()) if cutting.numel() else 0
    order = torch.argsort((~cutting).to(torch.uint8), dim=-1, stable=True)[:, :width]
    middle, reach, error, present = (v.gather(1, order) for v in (middle, reach, error, cutting))
    scale = torch.maximum(reach, 1e3 * error) + torch.finfo(torch.float64).tiny
    A = regions.matrix.gather(1, order.unsqueeze(-1).expand(-1, -1, center.shape[-1]))
    scaled = _Scaled(
        A=torch.where(present.unsqueeze(-1), A / scale.unsqueeze(-1) * radius.unsqueeze(1), 0.0),
        b=torch.where(present, middle / scale, 1.0),
        error=torch.where(present, error / scale, 0.0),
    )
    return _Measured(center, radius, alone, cutting, order, scale, scaled, ~center.isfinite().all(-1))


def _proposed(scaled: _Scaled) -> tuple[Tensor, Tensor]:
    """The interior point method's points (regions, inputs) and its proofs: multipliers (regions, rows), or zeros."""
    u, y = deepest_points(scaled.A, scaled.b)
    return u.nan_to_num(0.0).clamp(-1, 1), scaled.named(y.nan_to_num(0.0, 0.0, 0.0).clamp(min=0), _INNER_NOISE)


def contradictory(regions: Regions) -> Tensor:
    """Which regions (regions,) are proved to be empty at once, without a solver."""
    known = _measured(regions)
    empty = known.alone.any(-1)
    if known.order.shape[1] and regions.lower.shape[1] <= _MOST_INPUTS:
        empty = empty | (_proposed(known.scaled)[1] > 0).any(-1)
    return empty & ~known.unknown


@_UNSEEN
def deepest(regions: Regions, *, time_limit: float = np.inf) -> list[Deepest]:
    """The deepest point of each region within its box, or a proof that there is none.

    Args:
        time_limit: seconds for a solver; a program gets no more than ``_SECONDS`` in any case.

    Raises:
        KeyboardInterrupt: the solver was interrupted.
    """
    known = _measured(regions)
    scaled, (count, width) = known.scaled, known.order.shape
    u, y = known.center.new_zeros(count, known.center.shape[-1]), known.scale.new_zeros(count, width)
    depth = known.center.new_full((count,), -torch.inf)
    if width and count > _ALONE and regions.lower.shape[1] <= _MOST_INPUTS:
        u, y = _proposed(scaled)
        depth = scaled.depth(u)
    point = torch.clamp(known.center + known.radius * u, regions.lower, regions.upper)
    gate = regions.gate.gather(1, known.order)
    # A row that no point satisfies, or -1.
    alone = torch.nn.functional.pad(torch.where(known.alone, regions.gate, -1), (0, 1), value=-1).amax(-1)
    found = (known.unknown, alone, ~known.cutting.any(-1), gate, y, y / known.scale, depth, point, known.center)
    unknown, single, free, gates, rows, weights, depths, points, center = (v.cpu().numpy() for v in found)
    results = []
    for i in range(count):
        if unknown[i]:
            results.append(UNKNOWN)
        elif single[i] >= 0:
            results.append(Deepest(None, -np.inf, True, (int(single[i]),), (1.0,)))
        elif free[i]:
            results.append(Deepest(center[i], np.inf))
        elif rows[i].any():
            results.append(_contradiction(gates[i], rows[i], weights[i]))
        elif depths[i] > INTERIOR:
            results.append(Deepest(points[i], float(depths[i])))
        else:
            results.append(_solved(known, i, regions, gates[i], time_limit))
    return results


def _contradiction(gates: np.ndarray, y: np.ndarray, weights: np.ndarray) -> Deepest:
    """From multipliers (rows,) of the rows as they are measured, and as they are stated."""
    some = y > 0
    return Deepest(None, -np.inf, True, tuple(gates[some].tolist()), tuple(weights[some].tolist()))


def _solved(known: _Measured, i: int, regions: Regions, gates: np.ndarray, time_limit: float) -> Deepest:
    """What a solver finds of one region."""
    present = int(known.cutting[i].sum())
    alone = known.scaled.one(i)
    scaled = _Scaled(alone.A[:, :present], alone.b[:, :present], alone.error[:, :present])
    A, b = scaled.A[0].numpy(), scaled.b[0].numpy()
    solution = solvers.get("highs").solve(
        _program(A, b), solvers.Limits(time_limit=max(min(time_limit, _SECONDS), 0.01))
    )
    if solution.status is solvers.SolveStatus.INTERRUPTED:
        raise KeyboardInterrupt  # the solver made a status of it
    u = None if solution.x is None else solution.x[:-1]
    depth = -np.inf if u is None else float((A @ u + b).min())
    for y in _proposals(A, b, solution, u, depth) if depth < 0 else ():
        proof = scaled.named(torch.from_numpy(y).unsqueeze(0), (_NOISE, 0.0))[0].numpy()
        if proof.any():
            return _contradiction(gates[:present], proof, proof / known.scale[i, :present].cpu().numpy())
    if u is None:
        return Deepest(None, depth)
    lower, upper, center, radius = (
        v[i].cpu().numpy() for v in (regions.lower, regions.upper, known.center, known.radius)
    )
    return Deepest(np.clip(center + radius * u, lower, upper), depth)


def _proposals(
    A: np.ndarray, b: np.ndarray, solution: solvers.Solution, u: np.ndarray | None, depth: float
) -> Iterator[np.ndarray]:
    """Multipliers (rows,) that may prove that there is no point: the solver's, then those of the rows that are tight.

    A solver is content with multipliers that are optimal up to its tolerances. Where the rows contradict each other by
    less than these, the exact solution of the conditions of optimality at its point may still prove it.
    """
    if solution.multipliers is not None:
        yield np.maximum(np.nan_to_num(solution.multipliers, posinf=0.0, neginf=0.0), 0.0)
    if u is not None:
        yield _tight(A, b, u, depth)


def _tight(A: np.ndarray, b: np.ndarray, u: np.ndarray, depth: float) -> np.ndarray:
    """Multipliers of ``max t : A u + b >= t, |u| <= 1`` from the rows that are tight at ``u``.

    Optimality asks for ``sum y = 1`` and ``A'y`` to vanish in the coordinates that are not at a bound and to point
    outward in those that are: a small problem of non-negative least squares.
    """
    import scipy.optimize  # a quarter of a second, which few runs need

    tight = np.flatnonzero(A @ u + b <= depth + _TIGHT)
    high, low = np.flatnonzero(u >= 1 - _TIGHT), np.flatnonzero(u <= -1 + _TIGHT)
    inputs = A.shape[1]
    system = np.zeros((inputs + 1, len(tight) + len(high) + len(low)))
    system[:inputs, : len(tight)] = A[tight].T
    system[high, len(tight) + np.arange(len(high))] = -1
    system[low, len(tight) + len(high) + np.arange(len(low))] = 1
    system[inputs, : len(tight)] = 1
    y = np.zeros(len(b))
    with contextlib.suppress(RuntimeError):  # it met its limit on iterations: no proposal
        y[tight] = scipy.optimize.nnls(system, np.append(np.zeros(inputs), 1.0))[0][: len(tight)]
    return y


def _program(A: np.ndarray, b: np.ndarray) -> solvers.MixedIntegerProgram:
    """``max t : A u + b >= t, |u| <= 1, t <= 1``."""
    rows, inputs = A.shape
    return solvers.MixedIntegerProgram(
        cost=np.append(np.zeros(inputs), -1.0),
        A=np.hstack([A, -np.ones((rows, 1))]),
        row_lower=-b,
        row_upper=np.full(rows, np.inf),
        lower=np.append(-np.ones(inputs), -1e6),
        upper=np.append(np.ones(inputs), 1.0),
    )
