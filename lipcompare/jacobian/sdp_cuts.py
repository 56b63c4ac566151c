"""Cutting planes for the quadratic-gate relaxation: products of two valid linear inequalities, added by separation.

A gate ``v = a K`` with ``K`` in ``[l, u]`` lies between two chords, and a sign ``s`` in ``[-1, 1]`` between its ends.
The product of two such inequalities ``f' w >= 0`` and ``g' w >= 0`` holds at every admissible point, so ``f' M g >=
0``. Sign times chord is the stronger family, chord times chord the next. Signs that cuts mention become coordinates
again, with ``M_ss = 1`` and ``s g_j' w`` in the cost; the others stay eliminated.
"""

from __future__ import annotations

import dataclasses
import enum

import torch
from torch import Tensor

from lipcompare.deadline import Deadline
from lipcompare.jacobian.sdp_data import Coordinates, GateMaps, SdpData
from lipcompare.jacobian.sdp_solver import Solution, solve


class Family(enum.Enum):
    """Which products are tried."""

    BOTH = "both"
    SIGN_CHORD = "sign x chord"
    CHORD_CHORD = "chord x chord"


SIGN = -2  # the "node" of a coordinate that is a sign of the input gradient
_ROUNDS = 4
_VIOLATION = 1e-5  # relative to the size of the forms; smaller ones are not worth a cut
_WIDEN = 1e-9  # relative widening of the intervals of K, which makes the chords safe against rounding


def with_signs(data: SdpData, moments: Tensor, most: int) -> SdpData:
    """The same problems with up to ``most`` undecided signs each as coordinates, the ones that weigh most in ``M``."""
    weight = ((moments @ data.entries) * data.entries).sum(-2).masked_fill(~data.entry_mask, -1.0)
    count = min(most, data.entries.shape[-1])
    _, chosen = weight.topk(count, dim=-1)
    present = data.entry_mask.gather(-1, chosen)
    g = data.entries.gather(-1, chosen.unsqueeze(1).expand(-1, data.size, -1))  # (problems, n, count)
    n, size = data.size, data.size + count
    columns = torch.nn.functional.pad(data.columns, (0, count, 0, count))
    columns.diagonal(dim1=-2, dim2=-1)[:, n:] = 0.5 * present
    cost = torch.nn.functional.pad(data.cost, (0, count, 0, count))
    cost[:, :n, n:] = 0.5 * g
    cost[:, n:, :n] = 0.5 * g.mT
    kept = torch.ones_like(data.entry_mask).scatter_(-1, chosen, False)
    rest = torch.argsort(kept.to(torch.uint8), dim=-1, descending=True, stable=True)
    rest = rest[:, : data.entries.shape[-1] - count]
    entries = data.entries.gather(-1, rest.unsqueeze(1).expand(-1, n, -1))
    ones = present.to(data.limit)
    names = data.coordinates
    extra = names.node.new_full((count,), SIGN)
    # Signs differ from row to row, and names belong to examples: each problem becomes an example of its own.
    coordinates = Coordinates(
        torch.cat([names.node, extra]),
        torch.cat([names.neuron[data.example], data.entry.gather(-1, chosen)], 1),
        torch.cat([names.present[data.example], present], 1),
    )
    pad = torch.nn.functional.pad
    none = data.cut_left.new_zeros(data.problems, size, 0)
    return dataclasses.replace(
        data,
        columns=columns,
        mask=torch.cat([data.mask, present], 1),
        right=torch.cat([data.right, ones], 1),
        cost=cost,
        entries=pad(entries, (0, 0, 0, count)),
        entry_mask=data.entry_mask.gather(-1, rest),
        limit=torch.cat([data.limit, ones], 1),
        trace=data.trace + 3 * ones.sum(-1),
        radius=torch.cat([data.radius, ones], 1),
        gate_slack=pad(data.gate_slack, (0, count)),
        entry=data.entry.gather(-1, rest),
        example=torch.arange(data.problems, device=data.row.device),
        cut_left=none,
        cut_right=none,
        cut_mask=none[:, 0].bool(),
        coordinates=coordinates,
    )


def chords(data: SdpData, maps: GateMaps, place: Tensor, row: Tensor) -> Tensor:
    """Forms ``f`` (problems, n, 2 gates) with ``f' w >= 0`` around every gate; 0 for gates that do not exist.

    Args:
        place, row: (problems,) where in ``maps`` each problem comes from.
    """
    gates = maps.coordinates.count
    unit = data.radius[:, 1:gates]
    safe = torch.where(unit > 0, unit, torch.ones_like(unit))
    lower, upper = (end[place, row][:, 1:] / safe for end in maps.gate_interval)
    wide = _WIDEN * torch.maximum(-lower, upper) + 4 * data.gate_slack[:, 1:gates]
    lower, upper = (lower - wide).clamp(max=0), (upper + wide).clamp(min=0)
    span = (upper - lower).clamp(min=1e-300)
    form = -2 * data.columns[:, :, 1:gates]  # K_i
    index = torch.arange(1, gates, device=unit.device)
    form[:, index, index - 1] = 0
    above = form * (upper / span).unsqueeze(1)
    above[:, 0] -= upper * lower / span
    above[:, index, index - 1] -= 1
    below = form * (lower / span).unsqueeze(1)
    below[:, 0] -= lower * upper / span
    below[:, index, index - 1] += 1
    exists = data.mask[:, 1:gates].to(form).unsqueeze(1)
    return torch.cat([above * exists, below * exists], -1)


def sign_sides(data: SdpData) -> Tensor:
    """Forms ``1 + s`` and ``1 - s`` (problems, n, 2 signs) of the signs that are coordinates."""
    spots = (data.coordinates.node == SIGN).nonzero().squeeze(-1)
    exists = data.mask[:, spots].to(data.columns)
    side = data.columns.new_zeros(data.problems, data.size, len(spots))
    side[:, 0] = exists
    index = torch.arange(len(spots), device=spots.device)
    one = torch.zeros_like(side)
    one[:, spots, index] = exists
    return torch.cat([side + one, side - one], -1)


def separate(
    data: SdpData, moments: Tensor, forms: Tensor, sides: Tensor, count: int, family: Family = Family.BOTH
) -> tuple[Tensor, Tensor, Tensor]:
    """The ``count`` most violated products per problem: forms ``f``, ``g`` (problems, n, count) and which exist.

    Args:
        forms: (problems, n, a) chords.
        sides: (problems, n, b) sides of signs; all products with chords are tried, and of chords with each other,
            unless the ``family`` leaves some out.
    """
    forms = forms / torch.linalg.vector_norm(forms, dim=1, keepdim=True).clamp(min=1e-300)
    sides = sides / torch.linalg.vector_norm(sides, dim=1, keepdim=True).clamp(min=1e-300)
    image = moments @ forms
    both = torch.cat([sides, forms], -1)
    value = both.mT @ image  # (problems, b + a, a)
    a, b = forms.shape[-1], sides.shape[-1]
    half = torch.ones(a, a, dtype=torch.bool, device=value.device).tril()
    value[:, b:] = value[:, b:].masked_fill(~half, 0.0)
    if family is not Family.BOTH:
        left_out = slice(b, None) if family is Family.SIGN_CHORD else slice(0, b)
        value[:, left_out] = 0.0
    lowest, index = value.flatten(1).topk(min(count, (a + b) * a), dim=-1, largest=False)
    size = moments.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
    found = lowest < -_VIOLATION * size
    first, second = index // a, index % a
    pick = found.unsqueeze(1)
    f = both.gather(-1, first.unsqueeze(1).expand(-1, data.size, -1)) * pick
    g = forms.gather(-1, second.unsqueeze(1).expand(-1, data.size, -1)) * pick
    return f, g, found


def tighten(
    data: SdpData,
    solution: Solution,
    maps: GateMaps,
    place: Tensor,
    row: Tensor,
    *,
    cuts: int,
    tolerance: float,
    most_signs: int = 64,
    deadline: Deadline | None = None,
    family: Family = Family.BOTH,
) -> tuple[SdpData, Solution]:
    """Solve again with cuts, in rounds of separation; the last round is solved to the tolerance.

    Each round adds its share of the ``cuts`` most violated products; cuts of earlier rounds stay if their multipliers
    say that they matter. Returns the problems with signs as coordinates and with their cuts.

    Args:
        place, row: (problems,) where in ``maps`` each problem comes from.
        cuts: most cuts per problem.
        most_signs: most signs that become coordinates.
        deadline: after it there are no more rounds, and iterations end.
        family: the products that are tried.
    """
    deadline = deadline or Deadline()
    augmented = with_signs(data, solution.moments, most_signs)
    forms, sides = chords(augmented, maps, place, row), sign_sides(augmented)
    moments = _lift(data, solution.moments, augmented)
    result: Solution | None = None
    for turn in range(_ROUNDS):
        f, g, found = separate(augmented, moments, forms, sides, cuts // _ROUNDS, family)
        if result is not None and result.dual.nu is not None and result.dual.nu.shape[-1]:
            nu = result.dual.nu * augmented.cut_mask
            useful = nu > 1e-4 * nu.amax(-1, keepdim=True)
            f, g = torch.cat([augmented.cut_left * useful.unsqueeze(1), f], -1), torch.cat([augmented.cut_right, g], -1)
            found = torch.cat([useful, found], 1)
        f, g, found = _packed(f, g, found)
        augmented = dataclasses.replace(augmented, cut_left=f, cut_right=g, cut_mask=found)
        last = turn == _ROUNDS - 1
        result = solve(augmented, tolerance=tolerance if last else max(tolerance, 3e-3), deadline=deadline)
        moments = result.moments
        if deadline.passed():
            break
    assert result is not None
    return augmented, result


def _packed(f: Tensor, g: Tensor, found: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cuts moved to the front, as wide as the problem with most of them needs."""
    width = int(found.sum(-1).max()) if len(found) else 0
    order = torch.argsort(found.to(torch.uint8), dim=-1, descending=True, stable=True)[:, :width]
    wide = order.unsqueeze(1).expand(-1, f.shape[1], -1)
    found = found.gather(-1, order)
    return f.gather(-1, wide) * found.unsqueeze(1), g.gather(-1, wide) * found.unsqueeze(1), found


def _lift(data: SdpData, moments: Tensor, augmented: SdpData) -> Tensor:
    """Moments with the eliminated signs: ``E w s_j = M g_j / sqrt(g_j' M g_j)``."""
    n = data.size
    g = 2 * augmented.cost[:, :n, n:]
    image = moments @ g
    cross = image / (image * g).sum(1, keepdim=True).clamp(min=1e-12).sqrt()
    lifted = torch.nn.functional.pad(moments, (0, augmented.size - n, 0, augmented.size - n))
    lifted[:, :n, n:] = cross
    lifted[:, n:, :n] = cross.mT
    lifted.diagonal(dim1=-2, dim2=-1)[:, n:] = 1
    return lifted
