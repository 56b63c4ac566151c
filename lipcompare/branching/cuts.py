"""Cutting planes in the tree: found near its root, handed on by name, rebuilt from what a part of the box knows.

A cut is a product of two forms that are not negative (:mod:`lipcompare.quadratic.cuts`). A child's gates have other
coordinates, units and intervals than its parent's, but chords and signs have names that last: the gate or the entry,
and which of its two forms it is. So a subdomain leaves names and multipliers of its cuts, and each part multiplies its
own forms of these names, which are tighter. Cuts at a gate that was decided drop out; a form of a sign that was decided
is 0, and the cut drops out, or 2, and the cut is its other form alone.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lipcompare.branching.decisions import Numbering
from lipcompare.branching.multipliers import gate_numbers, recall
from lipcompare.budget import Deadline
from lipcompare.network.interval import Interval
from lipcompare.quadratic.cuts.forms import Forms, chords, one, sign_sides
from lipcompare.quadratic.cuts.products import most_violated_pairs, products_of, weighty
from lipcompare.quadratic.cuts.separation import CutFamily, allowed_products, lifted_moments, with_signs
from lipcompare.quadratic.program import GateMaps, SdpData
from lipcompare.quadratic.solver.certificate import certify
from lipcompare.quadratic.solver.dual import Dual
from lipcompare.quadratic.solver.interior_point import SdpSolution, solve
from lipcompare.quadratic.solver.start import default_cuts

MOST_SIGNS = 64
"""Undecided signs, at most, of a program that gets cuts: all of them become coordinates."""
MOST_CUTS = 60
"""Cuts of a program, at most (docs/performance.md)."""
FIRST = 4
"""Rounds of separation of a program that inherits no cuts; each adds a quarter of them."""
_SHARE = 0.8
"""Weight of inherited multipliers beside those of a cold start, as for all others."""


@dataclasses.dataclass(frozen=True, eq=False)
class NamedCuts:
    """Cuts of a batch of subdomains.

    Attributes:
        names: (subdomains, cuts, 2) of the forms that are multiplied: 0 for the constant 1, ``1 + 2 g`` for the upper
            chord of the gate ``g`` (or ``1 + s`` of the entry with that number), ``2 + 2 g`` for the lower one (``1 -
            s``).
        nu: (subdomains, cuts) their multipliers in the network's units; 0 where there is none.
    """

    names: Tensor
    nu: Tensor

    @classmethod
    def none(cls, subdomains: int, like: Tensor) -> NamedCuts:
        """No cuts for so many subdomains."""
        nu = like.new_zeros(subdomains, 0)
        return cls(nu.unsqueeze(-1).expand(-1, -1, 2).long(), nu)

    @classmethod
    def joined(cls, parts: list[NamedCuts]) -> NamedCuts:
        """Those of several batches, one after another."""
        most = max(part.nu.shape[-1] for part in parts)
        pad = torch.nn.functional.pad
        names = [pad(part.names, (0, 0, 0, most - part.nu.shape[-1])) for part in parts]
        return cls(torch.cat(names), torch.cat([pad(part.nu, (0, most - part.nu.shape[-1])) for part in parts]))

    def to(self, device: torch.device) -> NamedCuts:
        """The same on a device."""
        return NamedCuts(self.names.to(device), self.nu.to(device))

    def select(self, index: Tensor) -> NamedCuts:
        """Those of some subdomains."""
        return NamedCuts(self.names[index], self.nu[index])

    def put(self, index: Tensor, subdomains: int) -> NamedCuts:
        """The same for the subdomains at ``index`` of so many; the others have none."""
        names, nu = (v.new_zeros(subdomains, *v.shape[1:]).index_copy(0, index, v) for v in (self.names, self.nu))
        return NamedCuts(names, nu)


@dataclasses.dataclass(frozen=True, eq=False)
class CutBound:
    """What programs with cuts say.

    Attributes:
        upper: (programs,) certified, in scaled units.
        solution: in the coordinates of the programs without cuts.
        cuts: for the parts.
    """

    upper: Tensor
    solution: SdpSolution
    cuts: NamedCuts


def solve_with_cuts(
    data: SdpData,
    maps: GateMaps,
    entries: Interval,
    numbering: Numbering,
    multipliers: Tensor,
    inherited: NamedCuts,
    moments: Tensor | None,
    *,
    most: int,
    rounds: int,
    tolerance: float,
    target: Tensor,
    deadline: Deadline,
) -> CutBound:
    """Solve programs with the cuts that they inherit, then with the most violated ones of the solution.

    Args:
        data: programs for p = inf with at most ``MOST_SIGNS`` undecided signs.
        maps: where these come from.
        entries: (programs, inputs) of the input gradient.
        multipliers: (programs, 1 + gates + inputs) that the parents left.
        inherited: cuts that the parents left.
        moments: (programs, n, n) solution without cuts, to separate from at once; None to solve with inherited cuts
            first.
        most: cuts of a program.
        rounds: of separation.
        target: (programs,) in scaled units: smaller bounds are of no use.
    """
    signed = with_signs(data, torch.zeros_like(data.columns), MOST_SIGNS)
    named = _named_forms(data, signed, maps, entries, numbering)
    cuts = _Chosen.inherited(named, inherited, data.scale)
    allowed = allowed_products(CutFamily.SIGN | CutFamily.CHORD).to(data.row.device)
    start: Dual | None = _with_sign_coordinates(data, signed, recall(data, multipliers, numbering))
    upper = torch.full_like(data.scale, torch.inf)
    at = None if moments is None else lifted_moments(data, moments, signed)
    share, turns = -(-most // FIRST), rounds + (moments is None)
    for turn in range(turns):
        if at is not None:
            cuts = cuts.with_violated(*most_violated_pairs(at, named.forms, allowed, share))
        program = signed.with_cuts(products_of(signed, named.forms, cuts.first, cuts.second, cuts.mask))
        if start is not None:
            start = dataclasses.replace(start, nu=_mixed(program, cuts.nu))
        solution = solve(program, tolerance=tolerance, target=target, start=start, deadline=deadline)
        upper = torch.minimum(upper, certify(program, solution.dual))
        at, start = solution.moments, None
        if not cuts.mask.shape[-1]:
            break
        assert solution.dual.nu is not None
        last = turn == turns - 1 or deadline.passed() or bool((upper <= target).all())
        # All cuts of the last program stay: they and its multipliers prove the bound together.
        cuts = cuts.weighed(solution.dual.nu, most if last else most - share)
        if last:
            break
    n = data.size
    dual = _without_sign_coordinates(data, signed, solution.dual)
    plain = dataclasses.replace(solution, dual=dual, moments=solution.moments[:, :n, :n])
    return CutBound(upper, plain, cuts.by_name(named, data.scale))


@dataclasses.dataclass(frozen=True, eq=False)
class _NamedForms:
    """Forms of a batch of programs and their names.

    Attributes:
        forms: the constant, sides of signs, chords.
        names: (programs, forms), -1 for what a program does not have.
        positions: (programs, names) where in ``forms`` each name is, -1 for nowhere.
    """

    forms: Forms
    names: Tensor
    positions: Tensor


def _named_forms(
    data: SdpData, signed: SdpData, maps: GateMaps, entries: Interval, numbering: Numbering
) -> _NamedForms:
    n = data.size
    forms = one(signed) + sign_sides(signed) + chords(signed, maps, data.example, data.row)
    gate = gate_numbers(data, numbering)[:, 1:]
    sign = numbering.gates + signed.coordinates.neuron[:, n:]
    has_gate, has_sign = data.mask[:, 1:], signed.mask[:, n:]
    ends = [torch.where(has_sign, 1 + 2 * sign + i, -1) for i in (0, 1)]
    sides = [torch.where(has_gate, 1 + 2 * gate + i, -1) for i in (0, 1)]
    names = torch.cat([torch.zeros_like(data.row).unsqueeze(-1), *ends, *sides], -1)
    # The last column takes what has no name.
    positions = torch.full((data.problems, 2 + 2 * numbering.count), -1, device=names.device)
    position = torch.arange(forms.count, device=names.device).expand_as(names)
    positions.scatter_(1, torch.where(names >= 0, names, positions.shape[1] - 1), position)
    positions = positions[:, :-1]
    # 1 + s or 1 - s of a decided sign is a constant.
    first = 1 + 2 * numbering.gates
    positions[:, first::2].masked_fill_(entries.lower >= 0, 0)
    positions[:, first + 1 :: 2].masked_fill_(entries.upper <= 0, 0)
    return _NamedForms(forms, names, positions)


@dataclasses.dataclass(frozen=True, eq=False)
class _Chosen:
    """Products of forms as cuts of a batch of programs; (programs, cuts) each.

    Attributes:
        first, second: places of the forms.
        mask: those that exist.
        nu: multipliers in scaled units, 0 where none is known.
    """

    first: Tensor
    second: Tensor
    mask: Tensor
    nu: Tensor

    @classmethod
    def inherited(cls, named: _NamedForms, cuts: NamedCuts, scale: Tensor) -> _Chosen:
        first, second = (named.positions.gather(1, cuts.names[..., i]) for i in (0, 1))
        mask = (cuts.nu > 0) & (first >= 0) & (second >= 0)
        nu = torch.where(mask, cuts.nu.to(scale) / scale.unsqueeze(-1), 0.0)
        return cls(first.clamp(min=0), second.clamp(min=0), mask, nu)

    def by_name(self, named: _NamedForms, scale: Tensor) -> NamedCuts:
        names = torch.stack([named.names.gather(1, position) for position in (self.first, self.second)], -1)
        return NamedCuts(names, torch.where(self.mask, self.nu * scale.unsqueeze(-1), 0.0))

    def with_violated(self, first: Tensor, second: Tensor, mask: Tensor) -> _Chosen:
        """These cuts and new ones."""
        pairs = ((self.first, first), (self.second, second), (self.mask, mask))
        all_first, all_second, both = (torch.cat(pair, -1) for pair in pairs)
        nu = torch.nn.functional.pad(self.nu, (0, mask.shape[-1]))
        return _Chosen(all_first, all_second, both, nu)._kept(both)

    def weighed(self, nu: Tensor, most: int) -> _Chosen:
        """The ``most`` with the largest multipliers ``nu`` (programs, cuts), without those that do nothing."""
        nu = torch.where(self.mask, nu, 0.0)
        return dataclasses.replace(self, nu=nu)._kept(weighty(nu, most))

    def _kept(self, keep: Tensor) -> _Chosen:
        """Those marked in ``keep`` (programs, cuts), moved to the front, as wide as the program with most needs."""
        width = int(keep.sum(-1).max())
        order = torch.argsort((~keep).to(torch.uint8), dim=-1, stable=True)[:, :width]
        return _Chosen(*(v.gather(-1, order) for v in (self.first, self.second, keep, self.nu)))


def _mixed(program: SdpData, nu: Tensor) -> Tensor:
    """Where the multipliers of cuts start: mostly inherited."""
    cold = default_cuts(program)
    return torch.where(nu > 0, _SHARE * nu + (1 - _SHARE) * cold, cold)


def _with_sign_coordinates(data: SdpData, signed: SdpData, dual: Dual) -> Dual:
    """The same dual point where signs are coordinates: ``theta = 1 / (4 lam)``, with ``S`` as its Schur complement."""
    sign = signed.coordinates.neuron[:, data.size :]
    lam = _by_input(data.entry, data.entry_mask, dual.lam)
    theta = torch.where(signed.mask[:, data.size :], 0.25 / lam.gather(1, sign), 0.0)
    return Dual(torch.cat([dual.theta, theta], -1), dual.lam[:, :0], dual.d)


def _without_sign_coordinates(data: SdpData, signed: SdpData, dual: Dual) -> Dual:
    """The inverse of :func:`_with_sign_coordinates`, for multipliers that a start is made of."""
    n = data.size
    theta = (dual.theta[:, n:] + dual.d.unsqueeze(-1)).clamp(min=torch.finfo(dual.theta.dtype).eps)
    lam = _by_input(signed.coordinates.neuron[:, n:], signed.mask[:, n:], 0.25 / theta)
    return Dual(dual.theta[:, :n], lam.gather(1, data.entry), dual.d)


def _by_input(entry: Tensor, mask: Tensor, lam: Tensor) -> Tensor:
    """Multipliers (programs, some) of signs by their entry, (programs, inputs); 1 for those that have none."""
    most = int(entry.max()) + 1 if entry.numel() else 0
    # The last column takes what does not exist.
    table = lam.new_ones(len(lam), most + 1).scatter(1, torch.where(mask, entry, most), lam)
    table[:, most] = 1.0
    return table
