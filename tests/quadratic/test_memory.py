"""What fits in memory: packs, what is left out where not all fits, and the batches' widths."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import nets
import pytest
import torch
from quadratic.programs import propagated

from lipcompare import Network, Problem
from lipcompare.network import Affine
from lipcompare.quadratic import memory
from lipcompare.quadratic.coordinates import coordinate_count, undecided_gates
from lipcompare.quadratic.memory import Pack, lifted_gates, packs, program_bytes, sign_count, widths

PROBLEM = nets.problem(nets.dense(7, (4, 12, 12, 3)), 0.4, batch=6)


def packed(problem: Problem, room: int, squared: bool = False) -> list[Pack]:
    gates, gradients, _ = propagated(problem)
    return packs(problem.network, gates, gradients, problem.rows, squared, room)


def test_every_example_is_in_one_pack_and_nothing_is_left_out_where_there_is_room() -> None:
    found = packed(PROBLEM, 2**30)
    assert sorted(b for pack in found for b in pack.examples.tolist()) == list(range(6))
    count = coordinate_count(*propagated(PROBLEM)[:2])
    for pack in found:
        assert not pack.restricted and pack.most_signs is None
        assert pack.coordinates.tolist() == count[pack.examples].tolist()


def test_little_room_makes_small_packs() -> None:
    largest = program_bytes(int(coordinate_count(*propagated(PROBLEM)[:2]).max()), 4)
    found = packed(PROBLEM, largest)
    assert len(found) > len(packed(PROBLEM, 2**30))
    assert sorted(b for pack in found for b in pack.examples.tolist()) == list(range(6))


def test_examples_of_very_different_sizes_are_in_packs_of_their_own() -> None:
    small, large = (nets.problem(nets.dense(7, (4, 60, 60, 3)), eps) for eps in (0.01, 1.0))
    both = Problem(small.network, type(small.box)(torch.cat([small.box.lower, large.box.lower]),
                                                  torch.cat([small.box.upper, large.box.upper])))  # fmt: skip
    few, many = coordinate_count(*propagated(both)[:2]).tolist()
    assert many > 1.25 * few + 16
    assert [pack.examples.tolist() for pack in packed(both, 2**30)] == [[0], [1]]


@pytest.mark.parametrize("room", [100_000, 30_000, 10_000])
def test_what_does_not_fit_is_restricted_to_what_does(room: int) -> None:
    found = packed(PROBLEM, room)
    assert any(pack.restricted for pack in found)
    for pack in found:
        if pack.restricted:
            n = int(pack.coordinates.max())
            assert n > 1 and program_bytes(n, pack.most_signs or 0) <= room
            # One more would not.
            wide = PROBLEM.network.widest
            maps = 8 * (4 * (n + 1) * (wide + n + 1) + 2 * (n + 1) * 4 + 8 * PROBLEM.rows * wide)
            signs = int(sign_count(propagated(PROBLEM)[1])[pack.examples].max())
            kept = signs if pack.most_signs is None else pack.most_signs
            assert max(maps, program_bytes(n + 1, kept)) > room


def test_without_any_room_there_is_no_pack() -> None:
    assert packed(PROBLEM, 100) == []


def paths(network: Network, slopes: dict[int, torch.Tensor], start: int) -> torch.Tensor:
    """Sums of absolute values along all paths from the input to the neurons of a node, by listing the paths."""

    def arriving(k: int) -> Iterator[tuple[int, float]]:
        node = network.nodes[k]
        if k == 0:
            yield from ((i, 1.0) for i in range(node.size))
        elif isinstance(node, Affine):
            for p, m in node.terms:
                table = m.to(torch.device("cpu"), torch.float64).matrix().abs()
                for (j, weight), i in itertools.product(arriving(p), range(node.size)):
                    yield i, weight * float(table[i, j])
        else:
            yield from ((i, weight * float(slopes[k][i])) for i, weight in arriving(node.parents[0]))

    total = torch.zeros(network.nodes[start].size, dtype=torch.float64)
    for i, weight in arriving(start):
        total[i] += weight
    return total


@pytest.mark.parametrize("family", ["dense", "residual", "leaky"])
def test_the_gates_with_coordinates_are_those_that_change_most(family: str) -> None:
    problem = nets.problem(nets.FAMILIES[family](7), 0.4)
    network = problem.network
    gates, gradients, _ = propagated(problem)
    weight = {}
    for k in network.activations:
        low, high = (end[0] for end in gates.slopes[k])
        tops = {j: gates.slopes[j].magnitude[0] for j in network.activations}
        size = gradients.intervals[k].magnitude[0].amax(0)
        reach = paths(network, tops, network.nodes[k].parents[0])
        open_ = undecided_gates(gates, gradients, k)[0]
        weight |= {(k, i): float((high - low)[i] * size[i] * reach[i]) for i in range(len(low)) if open_[i]}
    assert len(weight) > 3
    for most in (2, 4):
        chosen = lifted_gates(network, gates, gradients, most)
        assert sum(int(mask.sum()) for mask in chosen.values()) == most - 1
        best = sorted(weight, key=lambda name: -weight[name])[: most - 1]
        assert {(k, i) for k, mask in chosen.items() for i in mask[0].nonzero().squeeze(-1).tolist()} == set(best)


def test_the_largest_number_that_fits() -> None:
    for most, least in itertools.product(range(6), repeat=2):
        assert memory._largest(most, lambda n, least=least: n <= least) == min(most, least)


def test_widths_follow_the_largest_and_each_ones_own_size() -> None:
    count = torch.tensor([10, 20, 40])
    pack = Pack(torch.tensor([0, 2]), count[[0, 2]], None, False)
    signs = torch.tensor([3, 3, 5])
    room = 4 * program_bytes(40, 5)
    largest, own = widths(pack, signs, room)
    assert largest == 4 and own.tolist() == [room // program_bytes(10, 3), 4]
    few = Pack(torch.tensor([0, 2]), count[[0, 2]], 1, True)
    assert widths(few, signs, room)[1].tolist() == [room // program_bytes(10, 1), room // program_bytes(40, 1)]


def test_a_program_takes_at_least_its_matrices() -> None:
    for n, signs in ((10, 0), (50, 30), (200, 500)):
        # M and S and the inverses of their factors, and the Newton matrix with its factor.
        assert program_bytes(n, signs) >= 8 * (4 * n * n + 2 * (n + signs) ** 2 + 2 * n * signs)
