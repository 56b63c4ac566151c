"""Cutting planes for the quadratic-gate relaxation: products of two valid linear forms, added by separation.

A gate ``v = a K`` with ``K`` in ``[l, u]`` lies between two chords, and a sign ``s`` in ``[-1, 1]`` between its ends.
The product of two such inequalities ``f' w >= 0`` and ``g' w >= 0`` holds at every admissible point, so ``f' M g >=
0``. Products with a sign are the strongest family, chord times chord the next. Signs that cuts mention become
coordinates again, with ``M_ss = 1`` and ``s g_j' w`` in the cost; the others stay eliminated.

What is known of the inputs comes in twice. Two states of gates that no input attains together give an equation, as the
two states of one gate do (:mod:`~lipcompare.quadratic.cuts.pairs`); and where few inputs move, they and the
activations' outputs become coordinates (:mod:`~lipcompare.quadratic.cuts.forward`), and their inequalities join the
products.
"""

from __future__ import annotations

import dataclasses
import enum

import torch
from torch import Tensor

from lipcompare.budget import Deadline
from lipcompare.gates import Coupling
from lipcompare.network.graph import Network
from lipcompare.quadratic.cuts.forms import SIGN, Forms, Group, chords, forward_forms, one, sign_sides
from lipcompare.quadratic.cuts.forward import forward_maps, moving_inputs, with_forward
from lipcompare.quadratic.cuts.pairs import conflict_pairs, equations, links
from lipcompare.quadratic.cuts.products import most_violated, separate, useful
from lipcompare.quadratic.program import Coordinates, Cuts, GateMaps, SdpData
from lipcompare.quadratic.solver.certificate import certify
from lipcompare.quadratic.solver.interior_point import SdpSolution, solve


class CutFamily(enum.Flag):
    """Which cuts are tried."""

    SIGN = enum.auto()
    """Products with a sign."""
    CHORD = enum.auto()
    """Products of chords, and chords themselves."""
    CONFLICT = enum.auto()
    """Equations of gate states that exclude each other."""
    FORWARD = enum.auto()
    """Products of a neuron's side with everything, inequalities of inputs and outputs included (lift and project)."""
    ALL = SIGN | CHORD | CONFLICT | FORWARD


_ROUNDS = 4
_ROUGH = 3e-3  # tolerance before the last round
_INPUTS = 64  # moving inputs, at most, for the forward pass to join
_COORDINATES = 400  # of a program with the forward pass, at most
_SIGNS = 64  # signs that become coordinates again, at most


def tightened_bytes(gates: int, cuts: int, coupled: bool) -> int:
    """Memory of one program with ``cuts`` in the interior point method, the forward pass in it if it is ``coupled``."""
    n = gates + _SIGNS
    links = 0
    if coupled:
        n, links = max(n, min(_COORDINATES, 3 * gates + _SIGNS + _INPUTS)), 6 * gates + _INPUTS
    return 8 * (24 * n * n + 6 * (n + links + 2 * cuts) ** 2)


@dataclasses.dataclass(frozen=True, eq=False)
class Tightened:
    """What cuts made of a batch of problems.

    Attributes:
        data, solution: the last round's problems, with their cuts, and its solution.
        upper: (problems,) the best certified bound of all rounds, in the network's units.
    """

    data: SdpData
    solution: SdpSolution
    upper: Tensor


def with_signs(data: SdpData, moments: Tensor, most: int) -> SdpData:
    """The same problems with up to ``most`` undecided signs each as coordinates, the ones that weigh most in ``M``."""
    weight = ((moments @ data.entries) * data.entries).sum(-2).masked_fill(~data.entry_mask, -1.0)
    count = min(most, data.entries.shape[-1])
    _, chosen = weight.topk(count, dim=-1)
    present = data.entry_mask.gather(-1, chosen)
    g = data.entries.gather(-1, chosen.unsqueeze(1).expand(-1, data.size, -1))  # (problems, n, count)
    n = data.size
    columns = torch.nn.functional.pad(data.columns, (0, count, 0, count))
    columns.diagonal(dim1=-2, dim2=-1)[:, n:] = 0.5 * present
    cost = torch.nn.functional.pad(data.cost, (0, count, 0, count))
    cost[:, :n, n:] = 0.5 * g
    cost[:, n:, :n] = 0.5 * g.mT
    eliminated = torch.ones_like(data.entry_mask).scatter_(-1, chosen, False)
    rest = torch.argsort(eliminated.to(torch.uint8), dim=-1, descending=True, stable=True)
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
        coordinates=coordinates,
    ).without_cuts()


def allowed_products(family: CutFamily) -> Tensor:
    """(groups, groups) which products a family asks for."""
    table = torch.zeros(len(Group), len(Group), dtype=torch.bool)
    if CutFamily.SIGN in family:
        table[Group.SIGN, [Group.SIGN, Group.CHORD]] = True
    if CutFamily.CHORD in family:
        table[Group.CHORD, [Group.ONE, Group.CHORD]] = True
    if CutFamily.FORWARD in family:
        table[Group.SIDE] = True
    return table | table.T


def tighten(
    data: SdpData,
    solution: SdpSolution,
    maps: GateMaps,
    example: Tensor,
    row: Tensor,
    *,
    cuts: int,
    tolerance: float,
    deadline: Deadline | None = None,
    family: CutFamily = CutFamily.ALL,
    network: Network | None = None,
    coupling: Coupling | None = None,
) -> Tightened:
    """Solve again with cuts, in rounds of separation; the last round is solved to the tolerance.

    Each round adds its share of the ``cuts`` most violated products and equations; cuts of earlier rounds stay if
    their multipliers say that they matter. With few moving inputs, further rounds follow that have the forward pass in
    their coordinates.

    Args:
        example, row: (problems,) where in ``maps`` each problem comes from.
        cuts: most new cuts per problem, of products and of equations each, in all rounds together.
        deadline: after it there are no more rounds, and iterations end.
        family: the cuts that are tried.
        network, coupling: what the inputs allow, for the examples of ``maps``; None for cuts of gates alone.
    """
    deadline = deadline or Deadline()
    signed = with_signs(data, solution.moments, _SIGNS)
    rounds = _Rounds(cuts, tolerance, deadline, allowed_products(family))
    forms = one(signed) + sign_sides(signed) + chords(signed, maps, example, row)
    conflicts = Cuts.none(signed.columns)
    if coupling is not None and CutFamily.CONFLICT in family:
        conflicts = equations(signed, *conflict_pairs(coupling.conflicts, maps.coordinates, example))
    moments = lifted_moments(data, solution.moments, signed)
    conflicts = most_violated(moments, conflicts, cuts)
    best = rounds(signed, moments, forms, conflicts)
    if coupling is None or network is None or CutFamily.FORWARD not in family or deadline.passed():
        return best
    if moving_inputs(coupling) > _INPUTS:
        return best
    forward = forward_maps(network, coupling)
    gates = maps.coordinates.count
    varying = (maps.gate_linear != 0).any(1)
    joined = with_forward(signed, forward, gates, varying, example)
    if joined.data.size > _COORDINATES:
        return best
    size = joined.data.size
    forms = one(joined.data) + sign_sides(joined.data) + chords(joined.data, maps, example, row)
    forms += forward_forms(joined, maps, example, row)
    fixed = links(joined) + conflicts.grown(size)
    start = solve(joined.data.with_cuts(fixed), tolerance=_ROUGH, deadline=deadline)
    last = rounds(joined.data, start.moments, forms, fixed)
    return dataclasses.replace(last, upper=torch.minimum(best.upper, last.upper))


@dataclasses.dataclass(frozen=True, eq=False)
class _Rounds:
    """Rounds of separation and solution."""

    cuts: int
    tolerance: float
    deadline: Deadline
    allowed: Tensor

    def __call__(self, data: SdpData, moments: Tensor, forms: Forms, fixed: Cuts) -> Tightened:
        """The problems after all rounds, with the cuts that they ended with and the ``fixed`` ones.

        Args:
            moments: (problems, n, n) where to start separating.
        """
        added = Cuts.none(data.columns)
        share = -(-self.cuts // _ROUNDS)
        upper = torch.full_like(data.scale, torch.inf)
        allowed = self.allowed.to(moments.device)
        for turn in range(_ROUNDS):
            added = added + separate(data, moments, forms, allowed, share)
            current = data.with_cuts(fixed + added)
            last = turn == _ROUNDS - 1
            tolerance = self.tolerance if last else max(self.tolerance, _ROUGH)
            result = solve(current, tolerance=tolerance, deadline=self.deadline)
            upper = torch.minimum(upper, certify(current, result.dual) * data.scale)
            moments = result.moments
            assert result.dual.nu is not None
            added = useful(added, result.dual.nu[:, fixed.count :], self.cuts - share)
            if self.deadline.passed():
                break
        return Tightened(current, result, upper)


def lifted_moments(data: SdpData, moments: Tensor, augmented: SdpData) -> Tensor:
    """Moments with the eliminated signs: ``E w s_j = M g_j / sqrt(g_j' M g_j)``."""
    n = data.size
    g = 2 * augmented.cost[:, :n, n:]
    image = moments @ g
    # Only what is separated depends on it, and what is lost where a sign's entry has no variance is nothing.
    cross = image / (image * g).sum(1, keepdim=True).clamp(min=1e-12).sqrt()
    lifted = torch.nn.functional.pad(moments, (0, augmented.size - n, 0, augmented.size - n))
    lifted[:, :n, n:] = cross
    lifted[:, n:, :n] = cross.mT
    lifted.diagonal(dim1=-2, dim2=-1)[:, n:] = 1
    return lifted
