"""Scores of branching heuristics against their definitions, and one that a user registers."""

from __future__ import annotations

import dataclasses

import nets
import numpy as np
import pytest
import torch
from branching.brute import exact_rows

import lipcompare
from lipcompare import InvalidInput, Problem, Status
from lipcompare.branching import bounds
from lipcompare.branching.bounds import BOUNDS, Settings
from lipcompare.branching.cuts import NamedCuts
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.heuristics import HEURISTICS, Area, Babsr, Candidates, Heuristic, Mixed, Moment
from lipcompare.branching.heuristics.linear import _area
from lipcompare.branching.heuristics.weights import gate_weights
from lipcompare.branching.subdomains import Subdomains
from lipcompare.gates import Gates
from lipcompare.jacobian import gradient_intervals, norm_bound
from lipcompare.methods.bab import Bab
from lipcompare.preactivation import interval_bounds


def subdomains(problem: Problem) -> Subdomains:
    """The whole box, once per row."""
    network = problem.network
    gates = Gates.from_preactivations(network, interval_bounds(network, problem.box.interval))
    gates = gates.of(torch.zeros(problem.rows, dtype=torch.int64, device=problem.device))
    functionals = problem.functionals[0].unsqueeze(1)
    gradients = gradient_intervals(network, gates, functionals, norm=problem.norm)
    return Subdomains(
        gates=gates,
        functionals=functionals,
        gradients=gradients,
        linear=norm_bound(network, functionals, gradients, problem.norm).squeeze(1),
        multipliers=torch.zeros(problem.rows, 1 + network.neurons + network.in_size, device=problem.device),
        cuts=NamedCuts.none(problem.rows, problem.functionals),
        depth=torch.zeros(problem.rows, dtype=torch.int64, device=problem.device),
    )


PROBLEM = nets.problem(nets.dense(3, (4, 10, 8, 3)), 0.6)
NUMBERING = Numbering(PROBLEM.network)


def area(below: float, above: float) -> float:
    """Area of ``{(J, a J)}`` for ``a`` in [0, 1], two triangles, by summing heights."""
    J = np.linspace(below, above, 20_001)
    return float(np.trapezoid(np.abs(J), J))


@pytest.mark.parametrize("rule", [Area(), Babsr()])
def test_the_papers_scores(rule: Heuristic) -> None:
    batch = subdomains(PROBLEM)
    score = rule(Candidates.above(0.0, batch.linear, NUMBERING, PROBLEM.norm, batch))
    weights = gate_weights(PROBLEM.network, batch.gates, batch.functionals, batch.gradients, PROBLEM.norm)
    assert (score[:, NUMBERING.gates :] == 0).all()
    seen = 0
    for k, start in NUMBERING.start.items():
        low, high = batch.gates.slopes[k]
        for i in range(PROBLEM.network.nodes[k].size):
            for row in range(PROBLEM.rows):
                below, above = (float(v[row, 0, i]) for v in batch.gradients.intervals[k])
                got = float(score[row, start + i])
                if low[row, i] == high[row, i]:
                    assert got == 0
                    continue
                if not below < 0 < above:
                    assert got > 0  # its decision may settle others
                    continue
                chord = -below * above / (above - below)
                expected = 2 * area(below, above) if isinstance(rule, Area) else chord
                assert got == pytest.approx(
                    expected * float(weights[k][row, 0, i]), rel=1e-6, abs=2e-6 * max(above, -below)
                )
                seen += 1
    assert seen > 5


def test_moments_of_a_point_leave_nothing_to_split() -> None:
    """The score is what a gate adds to the bound, so where the bound is attained by one pattern it all but vanishes."""
    wide, narrow = (dataclasses.replace(PROBLEM, box=nets.problem(PROBLEM.network, eps).box) for eps in (0.6, 0.0))
    totals = []
    for problem in (wide, narrow):
        batch = subdomains(problem)
        numbering = Numbering(problem.network)
        bound = BOUNDS["sdp"].on(numbering, problem.norm, Moment(), Settings(tolerance=1e-6))
        totals.append(float(bound(batch, 0.0, 0.0).score.sum()))
    assert totals[0] > 0 and totals[1] < 1e-6 * totals[0]


class Watched:
    """Moment's scores, with what they were made of."""

    name = "watched"
    reads_moments = True

    def __call__(self, candidates: Candidates) -> torch.Tensor:
        self.seen = candidates
        self.score = Moment()(candidates)
        return self.score


def test_mixed_scores_are_geometric_means_where_gates_are_crowded_and_moments_elsewhere() -> None:
    """Signs count there where the bound is far from the target."""
    gates = NUMBERING.gates
    for inputs, crowded in ((4, True), (40, False)):
        problem = nets.problem(nets.dense(3, (inputs, 10, 8, 3)), 0.6)
        watched, numbering = Watched(), Numbering(problem.network)
        BOUNDS["sdp"].on(numbering, problem.norm, watched, Settings(tolerance=1e-3))(subdomains(problem), 0.0, 0.0)
        batch, moment = watched.seen.subdomains, watched.score
        share = (batch.gates.unstable_count / inputs).clamp(max=1).unsqueeze(-1)
        assert (share == 1).all() if crowded else (share < 0.5).all()
        mean = moment[:, :gates] ** (1 - share / 2) * Area()(watched.seen)[:, :gates] ** (share / 2)
        assert (watched.seen.excess == torch.inf).all() and (moment[:, gates:] > 0).any()
        for excess, weight in ((torch.inf, 0.5), (0.1, 0.5), (0.05, 0.25), (0.0, 0.0)):
            seen = dataclasses.replace(watched.seen, excess=torch.full_like(watched.seen.excess, excess))
            score = Mixed()(seen)
            largest = score[:, :gates].amax(-1, keepdim=True)
            torch.testing.assert_close(largest, moment[:, :gates].amax(-1, keepdim=True))
            torch.testing.assert_close(score[:, :gates] / largest, mean / mean.amax(-1, keepdim=True))
            torch.testing.assert_close(score[:, gates:], (1 - share * (1 - weight)) * moment[:, gates:])


def test_candidates_know_how_far_their_bounds_are_from_the_target() -> None:
    batch = subdomains(PROBLEM)
    target = float(batch.linear.sort().values[1])
    seen = Candidates.above(target, batch.linear, NUMBERING, PROBLEM.norm, batch)
    torch.testing.assert_close(seen.excess, (batch.linear / target - 1).clamp(min=0))
    assert (seen.excess == 0).sum() == 2 and (seen.excess > 0).sum() == PROBLEM.rows - 2


def test_scores_of_moments_are_what_gates_and_signs_add() -> None:
    """By their definition, gate by gate: the multiplier times the distance from both states, and a tenth of the
    variance; of an undecided sign the root of the mean square beyond the mean."""
    watched = Watched()
    BOUNDS["sdp"].on(NUMBERING, PROBLEM.norm, watched, Settings(tolerance=1e-3))(subdomains(PROBLEM), 0.0, 0.0)
    assert watched.seen.moments is not None
    data, solution = watched.seen.moments.data, watched.seen.moments.solution
    gates = signs = 0
    for p in range(data.problems):
        moments, mean = solution.moments[p].numpy(), solution.moments[p, 0].numpy() / float(solution.moments[p, 0, 0])
        columns, entries, name = data.columns[p].numpy(), data.entries[p].numpy(), data.coordinates
        for c in data.mask[p, 1:].nonzero().squeeze(-1).add(1).tolist():
            node, neuron = int(name.node[c]), int(name.neuron[data.example[p], c])
            opposite = mean[c] - 2 * mean @ columns[:, c]  # K_c
            distance = abs(mean[c] * (opposite - mean[c])) + 0.1 * max(moments[c, c] - mean[c] ** 2, 0.0)
            expected = abs(float(solution.dual.theta[p, c])) * distance
            assert float(watched.score[p, NUMBERING.start[node] + neuron]) == pytest.approx(expected, rel=1e-9)
            gates += expected > 0
        for j in data.entry_mask[p].nonzero().squeeze(-1).tolist():
            g = entries[:, j]
            loss = max(np.sqrt(g @ moments @ g) - abs(mean @ g), 0.0)
            got = float(watched.score[p, NUMBERING.gates + int(data.entry[p, j])])
            assert got == pytest.approx(loss, rel=1e-6, abs=1e-12)
            signs += loss > 1e-6
    assert gates > 5 and signs > 2


class First:
    """Splits the first undecided gate."""

    name = "first"
    reads_moments = False

    def __call__(self, candidates: Candidates) -> torch.Tensor:
        numbering, slopes = candidates.numbering, candidates.subdomains.gates.slopes
        open_ = numbering.join({k: (s.upper > s.lower).double() for k, s in slopes.items()})
        ranks = torch.arange(numbering.gates, 0, -1, dtype=torch.float64)
        return torch.cat([open_ * ranks, open_.new_zeros(len(open_), numbering.network.in_size)], -1)


@pytest.mark.parametrize("name", sorted(HEURISTICS))
def test_whatever_chooses_the_gates_the_value_is_the_same(name: str) -> None:
    """Over the table, also for heuristics of other packages: a bad choice costs subdomains, never the value."""
    heuristic = HEURISTICS[name]
    problem = nets.problem(nets.dense(4, (2, 4, 4, 2)), 0.5)
    bound = "sdp" if heuristic.reads_moments else "lbp"
    result = lipcompare.bound(problem, Bab(bound=bound, heuristic=name, attack_seconds=0.1))
    assert result.status is Status.EXACT
    np.testing.assert_allclose(result.overall_upper, exact_rows(problem).max(), rtol=2e-4)


@pytest.mark.parametrize("name", bounds.names())
def test_whatever_bounds_the_subdomains_the_value_is_the_same(name: str) -> None:
    """Over the table: relaxations, and what goes beyond them."""
    problem = nets.problem(nets.dense(4, (2, 4, 4, 2)), 0.5)
    result = lipcompare.bound(problem, Bab(bound=name, attack_seconds=0.1))
    assert result.status is Status.EXACT
    np.testing.assert_allclose(result.overall_upper, exact_rows(problem).max(), rtol=2e-4)


def test_the_names_that_the_documentation_gives_are_there() -> None:
    assert {"area", "babsr", "moment", "mixed"} <= set(HEURISTICS)


def test_a_registered_heuristic_works_and_an_unknown_one_is_refused() -> None:
    with pytest.raises(InvalidInput, match="Unknown heuristic 'first'"):
        Bab(heuristic="first")
    with pytest.raises(InvalidInput, match="Did you mean 'sdp'"):
        Bab(bound="sdpp")
    with pytest.raises(ValueError, match="take another"):
        HEURISTICS.register("area", First())
    with pytest.raises(InvalidInput, match="is no heuristic called 'second'"):
        HEURISTICS.register("second", First())
    with pytest.raises(InvalidInput, match="is no bound called 'mine'"):
        BOUNDS.register("mine", First())  # type: ignore[arg-type]
    HEURISTICS.register("first", First())
    try:
        method = Bab(bound="lbp", heuristic="first", attack_seconds=0.1)
        result = lipcompare.bound(PROBLEM, method)
        same = lipcompare.bound(PROBLEM, dataclasses.replace(method, heuristic="area"))
    finally:
        HEURISTICS.unregister("first")
    assert result.status is same.status is Status.EXACT
    assert result.overall_upper[0] == pytest.approx(same.overall_upper[0], rel=2e-4)
    assert result.detail != same.detail


def test_the_area_by_hand() -> None:
    """Twice that between the lines ``0`` and ``J``, over [-1, 2] and, where J has a sign, over [1, 2]."""
    ends = torch.tensor([[-1.0, 2.0], [1.0, 2.0], [-2.0, -1.0]]).T
    assert _area(*ends).tolist() == [5.0, 3.0, 3.0]
