"""The whole space: brute force over all patterns, with another linear program for which of them are there."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import nets
import numpy as np
import pytest
import scipy.optimize
import torch

import lipcompare
from lipcompare import Network, Problem, Space, Status
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.driver import Assessment
from lipcompare.branching.everywhere import EverywhereEvaluator
from lipcompare.methods.searches import UNDECIDED
from lipcompare.questions import exact_operator_norms
from lipcompare.regions.pieces import affine_pieces
from lipcompare.regions.unbounded import WholeSpace
from lipcompare.testing import exact, hostile


def _patterns(network: Network) -> list[dict[int, torch.Tensor]]:
    sizes = [network.nodes[k].size for k in network.activations]
    every = itertools.product([0.0, 1.0], repeat=sum(sizes))
    split = (torch.tensor(bits, dtype=torch.float64).split(sizes) for bits in every)
    return [dict(zip(network.activations, slopes, strict=True)) for slopes in split]


def _is_there(network: Network, slopes: dict[int, torch.Tensor]) -> bool:
    """Whether the closed region has a point, by a solver's word."""
    A, b = [], []
    for k, piece in affine_pieces(network, slopes).items():
        sign = (2 * slopes[k] - 1).numpy()
        A.append(-piece.matrix.numpy() * sign[:, None])
        b.append(piece.offset.numpy() * sign)
    A_, b_ = np.concatenate(A), np.concatenate(b)
    found = scipy.optimize.linprog(np.zeros(A_.shape[1]), A_, b_, bounds=(None, None))
    return bool(found.status == 0)


SIZES = [(2, 3, 2, 2), (1, 3, 3, 1), (3, 4, 2), (2, 2, 2, 2, 1)]


@pytest.mark.parametrize("seed", range(8))
def test_brute_force_over_patterns_agrees(seed: int) -> None:
    sizes = SIZES[seed % 4]
    network, norm = nets.dense(seed, sizes), ["inf", "2", "1"][seed % 3]
    problem = Problem(network, Space.of(sizes[0]), norm)  # type: ignore[arg-type]
    there = [s for s in _patterns(network) if _is_there(network, s)]
    functionals = problem.functionals[0].cpu()
    jacobians = torch.stack([network.pull_back(s, functionals) for s in there])
    found = lipcompare.bound(problem, "bab", gap=1e-11, time_limit=60)
    truth = float(problem.norm.dual.of(jacobians).max())
    assert found.status is Status.EXACT
    assert found.overall_upper[0] == pytest.approx(truth, rel=1e-9)
    assert found.overall_lower[0] == pytest.approx(truth, rel=1e-9)
    if norm == "2":
        together = exact_operator_norms(network, problem.box, 2, gap=1e-9)
        largest = float(torch.linalg.matrix_norm(jacobians, ord=2).max())
        assert together.upper[0] == pytest.approx(largest, rel=1e-8) and together.lower[0] <= largest * (1 + 1e-12)


def test_empty_regions_are_empty_by_proof_and_no_other_ones() -> None:
    network = nets.dense(1, (2, 4, 3, 1))
    space = WholeSpace(network)
    kinds = set()
    for slopes in _patterns(network):
        found = space.deepest(slopes, {k: s > 0 for k, s in slopes.items()})
        assert found.empty is not _is_there(network, slopes)
        kinds.add(found.empty)
        if found.empty:
            # Helly: as many rows as inputs and one more contradict each other.
            assert 0 < len(found.conflict) == len(found.weights) <= 3 and min(found.weights) > 0
    assert kinds == {True, False}


def test_exact_takes_it_and_smooth_networks_are_refused() -> None:
    network = nets.dense(0, (2, 3, 2))
    found = lipcompare.bound(Problem(network, Space.of(2)), "exact", time_limit=60)
    assert found.status is Status.EXACT and "bab" in found.detail
    smooth = Problem(nets.FAMILIES["gelu"](0), Space.of(nets.FAMILIES["gelu"](0).in_size))
    assert lipcompare.bound(smooth, "exact").status is Status.UNSUPPORTED


def test_relaxations_hold_on_all_inputs() -> None:
    network = nets.dense(2, (2, 3, 3, 2))
    for norm in ("inf", "2"):
        problem = Problem(network, Space.of(2), norm)  # type: ignore[arg-type]
        truth = lipcompare.bound(problem, "bab", time_limit=60).overall_lower[0]
        uppers = {m: lipcompare.bound(problem, m).overall_upper[0] for m in ("sdp", "lbp", "lipsdp", "naive")}
        assert truth <= uppers["sdp"] <= uppers["lbp"] * (1 + 1e-9)
        assert truth <= uppers["lipsdp"] and truth <= uppers["naive"]


@pytest.mark.parametrize("seed", [18, 41, 49])
def test_neurons_without_a_kink_have_no_sides(seed: int) -> None:
    """PReLU with a slope of 1: its sign was taken for a side, and regions that have points for empty ones."""
    b = nets.Builder(2, seed)
    for _ in range(2):
        b.dense(3)
        b.activate(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))
    b.dense(2)
    network = b.build()
    x = 100 * torch.randn(4000, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    slopes = {k: v.unsqueeze(1) for k, v in network.slopes(network.values(x)).items()}
    jacobian = network.pull_back(slopes, torch.eye(2, dtype=torch.float64))
    found = lipcompare.bound(Problem(network, Space.of(2)), "bab")
    assert found.status is Status.EXACT
    assert (found.upper[0] >= jacobian.abs().sum(-1).amax(0).numpy() * (1 - 1e-12)).all()
    spectral = exact_operator_norms(network, Space.of(2), 2)
    assert spectral.upper[0] >= float(torch.linalg.matrix_norm(jacobian, ord=2).max()) * (1 - 1e-12)


def test_a_pattern_that_is_there_but_out_of_reach_leaves_a_gap_and_its_reason() -> None:
    """Rows that differ by 1e-13: the pattern with the largest gradient begins at inputs of 1e12."""
    problem = hostile.problem("everywhere", 0, "inf", torch.float64)
    truth = exact.truth(problem)
    found = lipcompare.bound(problem, "bab", bound="lbp", time_limit=60)
    upper = float(found.upper[0, 0])
    assert truth.admits_upper(0, problem.norm, upper) and upper <= truth.value(0, problem.norm) * (1 + 1e-12)
    assert found.lower[0, 0] < 0.95 * upper
    assert found.status is Status.COMPLETE and UNDECIDED in found.sentence


def test_a_contradiction_is_empty_only_where_all_it_rests_on_is_decided() -> None:
    """Gates 3 and 4 are of the second layer, whose constraints are affine once those of the first are decided."""
    numbering = Numbering(nets.dense(0, (2, 3, 2, 1)))
    score = torch.tensor([1.0, 3.0, 2.0, 9.0, 9.0, 0.0, 0.0])

    def split(undecided: list[int], conflict: tuple[int, ...]) -> Assessment:
        open_ = torch.zeros(5, dtype=torch.bool)
        open_[undecided] = True
        evaluator = SimpleNamespace(numbering=numbering)
        return EverywhereEvaluator._exclude(evaluator, 7.0, (), score, open_, conflict)  # type: ignore[arg-type]

    assert split([0, 1, 2], (3, 4)) == Assessment(7.0, (2 * 1 + 1,))
    assert split([1, 2, 4], (2, 3)) == Assessment(7.0, (2 * 2 + 1,))
    assert split([4], (0, 3)) == split([], (0,)) == Assessment(-np.inf)
