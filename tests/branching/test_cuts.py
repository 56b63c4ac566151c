"""Cuts that a part inherits: valid at its patterns, found again by name, and worth having."""

from __future__ import annotations

import dataclasses

import nets
import pytest
import torch
from torch import Tensor

from lipcompare.branching import cuts as module
from lipcompare.branching.cuts import CutBound, NamedCuts, solve_with_cuts
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.multipliers import remember
from lipcompare.budget import Deadline
from lipcompare.gates import Gates
from lipcompare.jacobian import Gradients, gradient_intervals, norm_bound
from lipcompare.network.interval import Interval
from lipcompare.preactivation import interval_bounds
from lipcompare.quadratic.cuts.separation import with_signs
from lipcompare.quadratic.patterns import evaluate, random_patterns
from lipcompare.quadratic.program import GateMaps, SdpData, gate_maps, l1_data
from lipcompare.quadratic.solver.certificate import certify
from lipcompare.quadratic.solver.dual import dual_value, slack_matrix
from lipcompare.quadratic.solver.interior_point import SdpSolution, solve

PROBLEM = nets.problem(nets.dense(21, (4, 7, 7, 2)), 0.4)
NUMBERING = Numbering(PROBLEM.network)


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the box for every row: its gates decided, its program, and what that says without cuts."""

    gradients: Gradients
    maps: GateMaps
    data: SdpData
    solution: SdpSolution

    @classmethod
    def of(cls, every: int = 0, high: bool = False, entry: int | None = None) -> Part:
        """With every so many gates of a layer decided, and the sign of an entry."""
        root = Gates.from_preactivations(PROBLEM.network, interval_bounds(PROBLEM.network, PROBLEM.box.interval))
        slopes = {}
        for k, (low, top) in root.slopes.items():
            chosen = (top > low) & (torch.arange(low.shape[-1]) % max(every, 1) == 0) & (every > 0)
            ends = (torch.where(chosen, top, low), top) if high else (low, torch.where(chosen, low, top))
            slopes[k] = Interval(*(end.expand(PROBLEM.rows, -1) for end in ends))
        functionals = PROBLEM.functionals[0].unsqueeze(1)
        gates = Gates(slopes)
        gradients = gradient_intervals(PROBLEM.network, gates, functionals)
        if entry is not None:
            lower, upper = gradients.intervals[0]
            lower = lower.clone()
            lower[..., entry].clamp_(min=0)
            gradients = dataclasses.replace(gradients, intervals={**gradients.intervals, 0: Interval(lower, upper)})
        linear = norm_bound(PROBLEM.network, functionals, gradients, PROBLEM.norm)[:, 0]
        maps = gate_maps(PROBLEM.network, gates, functionals, gradients)
        data = l1_data(maps, gradients, linear, torch.arange(PROBLEM.rows), torch.zeros(PROBLEM.rows).long())
        return cls(gradients, maps, data, solve(data, tolerance=1e-4))

    @property
    def entries(self) -> Interval:
        return Interval(*(v.squeeze(1) for v in self.gradients.intervals[0]))

    def cut(self, inherited: NamedCuts | None = None, multipliers: Tensor | None = None, rounds: int = 4) -> CutBound:
        if multipliers is None:
            multipliers = torch.zeros(PROBLEM.rows, 1 + NUMBERING.gates + PROBLEM.network.in_size)
        return solve_with_cuts(
            self.data,
            self.maps,
            self.entries,
            NUMBERING,
            multipliers,
            inherited or NamedCuts.none(PROBLEM.rows, self.data.scale),
            self.solution.moments if inherited is None else None,
            most=60,
            rounds=rounds,
            tolerance=1e-4,
            target=torch.zeros(PROBLEM.rows),
            deadline=Deadline(),
        )


@pytest.mark.parametrize("part", [(0, False), (3, False), (3, True), (4, True, 1)])
def test_inherited_cuts_hold_at_every_pattern_of_a_part_and_tighten_it(part: tuple[int, bool, int | None]) -> None:
    root, child = Part.of(), Part.of(*part)
    found = root.cut()
    left = remember(root.data, found.solution.dual, NUMBERING)
    plain = certify(child.data, child.solution.dual)
    bound = child.cut(found.cuts, left, rounds=0)
    patterns = evaluate(child.data, random_patterns(child.data, 300))
    # Where a sign is decided, patterns with the other one do not count; the objective is smaller there.
    best = patterns.values.amax(-1) + child.data.offset
    assert bool((bound.upper >= best * (1 - 1e-12)).all()) and bool((bound.upper <= plain * (1 + 3e-4)).all())
    gap, less = (plain - best).sum(), (plain - bound.upper).sum()
    assert float(less) > 0.15 * float(gap)
    # Another round exchanges some of them and never hurts.
    assert bool((child.cut(found.cuts, left, rounds=1).upper <= bound.upper * (1 + 1e-6)).all())


def test_cuts_are_found_again_by_name() -> None:
    root = Part.of()
    found = root.cut().cuts
    assert bool((found.nu > 0).any())
    signed = with_signs(root.data, root.solution.moments, 64)
    named = module._named_forms(root.data, signed, root.maps, root.entries, NUMBERING)
    chosen = module._Chosen.inherited(named, found, root.data.scale)
    assert bool((chosen.mask == (found.nu > 0)).all())
    again = chosen.by_name(named, root.data.scale)
    assert bool((again.names == found.names)[chosen.mask].all())
    torch.testing.assert_close(again.nu, found.nu)


def test_forms_of_decided_gates_are_gone_and_those_of_decided_signs_are_constants() -> None:
    child = Part.of(3, False, entry=1)
    signed = with_signs(child.data, child.solution.moments, 64)
    positions = module._named_forms(child.data, signed, child.maps, child.entries, NUMBERING).positions
    first = 1 + 2 * NUMBERING.gates
    assert bool((positions[:, 0] == 0).all()) and bool((positions[:, first + 2] == 0).all())
    assert bool((positions[:, first + 3] == -1).all())  # 1 - s, which is 0
    gates = positions[:, 1:first].unflatten(1, (-1, 2))
    undecided = torch.zeros_like(gates[..., 0], dtype=torch.bool)
    undecided.scatter_(1, module.gate_numbers(child.data, NUMBERING)[:, 1:], child.data.mask[:, 1:])
    assert bool(((gates >= 0) == undecided.unsqueeze(-1)).all()) and bool((gates < 0).any())


@pytest.mark.parametrize("high", [False, True])
def test_a_part_without_undecided_gates_drops_all_cuts(high: bool) -> None:
    found, child = Part.of().cut(), Part.of(1, high)
    assert child.data.size == 1
    bound = child.cut(found.cuts, rounds=1)
    assert not bool((bound.cuts.nu > 0).any())
    torch.testing.assert_close(bound.upper, certify(child.data, child.solution.dual), rtol=1e-3, atol=0)


def test_signs_as_coordinates_keep_a_dual_point_feasible_at_its_value() -> None:
    root = Part.of()
    signed = with_signs(root.data, root.solution.moments, 64)
    dual = root.solution.dual
    dual = dataclasses.replace(dual, theta=dual.theta * (1 + 1e-3) + 1e-6 * root.data.mask, d=0 * dual.d)
    wide = module._with_sign_coordinates(root.data, signed, dual)
    torch.testing.assert_close(dual_value(signed, wide), dual_value(root.data, dual))
    inner = torch.linalg.eigvalsh(slack_matrix(root.data, dual))[:, 0]
    assert bool((inner > 0).all()) and bool((torch.linalg.eigvalsh(slack_matrix(signed, wide))[:, 0] > 0).all())
    back = module._without_sign_coordinates(root.data, signed, wide)
    torch.testing.assert_close(torch.where(root.data.entry_mask, back.lam, 1.0), dual.lam)
    torch.testing.assert_close(back.theta, dual.theta)


def test_batches_of_cuts_come_together_and_apart() -> None:
    random = torch.Generator().manual_seed(0)
    draw = lambda n, m: NamedCuts(torch.randint(9, (n, m, 2), generator=random), torch.rand(n, m, generator=random))  # noqa: E731
    few, many = draw(2, 3), draw(1, 5)
    both = NamedCuts.joined([few, many])
    assert both.nu.shape == (3, 5) and bool((both.nu[:2, 3:] == 0).all())
    assert torch.equal(both.select(torch.tensor([2])).names, many.names)
    spread = few.put(torch.tensor([3, 1]), 4)
    assert torch.equal(spread.nu[[3, 1]], few.nu) and bool((spread.nu[[0, 2]] == 0).all())
