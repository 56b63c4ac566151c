"""Whatever the multipliers, slopes and decisions: no bound lies under what sampling attains; exact and float agree."""

from __future__ import annotations

import networks
import numpy as np
import pytest
from lipverify.backward import gradients, norm_bound
from lipverify.check import check
from lipverify.forward import Below, Interval, everywhere
from lipverify.network import Leaf, Question
from lipverify.numbers import Exact, Floating, semidefinite, shift
from lipverify.quadratic import _cuts, _repair, coordinates, quadratic_bound
from lipverify.tree import Case, case_bounds, largest, parts_of, settled

CASES = [
    networks.dense(0, 3, 6, 5, 2),
    networks.dense(1, 2, 5, 5, 5, 2, leaky=True),
    networks.dense(2, 4, 6, 6, 3, residual=True),
    networks.dense(3, 3, 2),
]


def box(network: networks.Network, radius: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    center = np.linspace(-0.3, 0.4, network.inputs)
    return center - radius, center + radius


def sampled(network: networks.Network, norm: str) -> np.ndarray:
    lower, upper = box(network)
    points = np.random.default_rng(5).uniform(lower, upper, (4000, network.inputs))
    rows = np.eye(network.size(network.last))
    return networks.dual_norm(networks.gradients(network, rows, points), norm).max(0)


def asked(network: networks.Network, norm: str, exact: bool = False) -> Question:
    rows = np.eye(network.size(network.last))
    return Question(network, Floating(), *box(network), rows, norm).to(Exact() if exact else Floating())


@pytest.mark.parametrize("network", CASES)
@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("kind", ["norms", "linear"])
def test_plain_bounds(network: networks.Network, norm: str, kind: str) -> None:
    rows = [{"claim": [0.0, None], "upper": {"kind": kind}} for _ in range(network.size(network.last))]
    certificate = networks.made(network, *box(network), norm, rows)
    floating, exact = check(certificate), check(certificate, exact=True)
    for attained, f, e in zip(sampled(network, norm), floating, exact, strict=True):
        assert not f.failures and not e.failures
        assert attained <= f.upper * (1 + 1e-12) and attained <= e.upper * (1 + 1e-12)
        assert f.upper == pytest.approx(e.upper, rel=1e-9)
        assert f.upper < 100 * attained


def some_slopes(network: networks.Network, scale: float) -> dict[int, Below]:
    """Lines below for some functions of every value before a kink, valid ones and others."""
    random, found = np.random.default_rng(7), {}
    for k, node in network.kinks.items():
        neurons = random.integers(len(node.alpha), size=4)
        before = {j: other for j, other in network.kinks.items() if j < k}
        low = {j: random.normal(0.5, scale, (8, len(other.alpha))) for j, other in before.items()}
        found[node.parent] = Below(neurons, low)
    return found


@pytest.mark.parametrize("network", CASES[:3])
@pytest.mark.parametrize("scale", [0.0, 0.3, 1e300])
@pytest.mark.parametrize("exact", [False, True])
def test_bounds_before_kinks_hold_at_samples(network: networks.Network, scale: float, exact: bool) -> None:
    question = asked(network, "inf", exact)
    found = everywhere(question, some_slopes(network, scale) if scale else {})
    points = np.random.default_rng(6).uniform(*box(network), (4000, network.inputs))
    values = [points]
    for node in network.nodes:
        if isinstance(node, networks.Affine):
            values.append(node.bias + sum(values[p] @ m.T for p, m in node.terms))
        else:
            values.append(np.maximum(values[node.parent], node.alpha * values[node.parent]))
    for k, ends in found.bounds.items():
        lower, upper = (question.arithmetic.floats(end) for end in ends)
        z = values[network.kinks[k].parent]
        assert (z >= lower).all() and (z <= upper).all()


@pytest.mark.parametrize("network", CASES[:3])
@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("exact", [False, True])
def test_any_multipliers_give_a_bound(network: networks.Network, norm: str, exact: bool) -> None:
    attained = sampled(network, norm) ** (2 if norm == "2" else 1)
    random = np.random.default_rng(3)
    for trial in range(2 if exact else 40):
        theta = {g: float(v) for g, v in enumerate(random.exponential(10.0 ** random.integers(-2, 3), network.gates))}
        lam = {j: float(v) for j, v in enumerate(random.exponential(size=network.inputs)) if trial % 3 or j}
        if trial % 7 == 6:
            theta[0], lam[0] = 1e300, 1e-300
        question = asked(network, norm, exact)
        count, size = 1 + 2 * (network.gates + network.inputs), 10.0 ** random.integers(-3, 2)
        pairs = random.integers(count**2, size=40 * (trial % 2))
        cuts = {int(pair): float(v) for pair, v in zip(pairs, random.exponential(size, len(pairs)), strict=True)}
        slopes = {k: repeated(ends, len(attained)) for k, ends in everywhere(question, {}).slopes.items()}
        gradient = gradients(question, question.rows, slopes)
        for i, best in enumerate(attained):
            bound, _ = quadratic_bound(question, gradient, slopes, i, Leaf(theta=theta, lam=lam, cuts=cuts))
            assert float(question.arithmetic.floats(np.asarray([bound]))[0]) >= best * (1 - 1e-12)


def repeated(ends: Interval, cases: int) -> Interval:
    """An interval of one case for so many."""
    lower, upper = (np.repeat(end, cases, 0) for end in ends)
    return lower, upper


@pytest.mark.parametrize("network", CASES[:3])
@pytest.mark.parametrize("exact", [False, True])
def test_forms_of_cuts_are_not_negative(network: networks.Network, exact: bool) -> None:
    """With the coordinates that the gradient has at points of the box; most come near 0 somewhere."""
    question = asked(network, "inf", exact)
    floats, ranges = question.arithmetic.floats, everywhere(question, {}).slopes
    found, signs = gradients(question, question.rows[:1], ranges), list(range(network.inputs))
    at = coordinates(question, found, ranges, 0, len(signs))
    numbers = [*at.gates, *(network.gates + j for j in signs)]
    lower, upper = (end[0] for end in found.intervals[0])
    named = {1 + side + 2 * n: 1.0 for side in (0, 1) for n in numbers}  # pairs with the constant, which is named 0
    _, forms, _ = _cuts(question, at, signs, (lower, upper), named)
    points = np.random.default_rng(8).uniform(*box(network), (4000, network.inputs))
    slopes, back = networks.passes(network, np.eye(network.size(network.last))[:1], points)
    v = np.concatenate([(slopes[k] - floats(ranges[k][0])) * back[k][:, 0] for k in network.kinks], 1)
    w = np.concatenate([np.ones((len(points), 1)), v[:, at.gates], np.where(back[0][:, 0] >= 0, 1.0, -1.0)], 1)
    values, scale = w @ floats(forms).T, np.abs(floats(forms)) @ np.abs(floats(at.limits))
    assert values.shape[1] == 2 * len(numbers) and (values >= -1e-12 * scale).all()
    assert (values.min(0) < 0.2 * scale).mean() > 0.6


def test_a_case_without_multipliers_is_looked_at_from_both_sides_of_its_gates() -> None:
    question = asked(CASES[1], "inf")
    whole = everywhere(question, {})
    (plain,) = norm_bound(question, gradients(question, question.rows[:1], whole.slopes))
    easy, hard = (case_bounds(question, whole, [Case(0, Leaf(), target)])[0] for target in (plain * 1.1, 0.0))
    assert sampled(CASES[1], "inf")[0] <= hard < 0.9 * easy <= 0.9 * plain * (1 + 1e-9)


def random_tree(random: np.random.Generator, names: int, most: int = 20) -> list[int]:
    nodes, open_ = list[int](), 1
    while open_:
        split = len(nodes) < most and bool(random.uniform() < 0.7)
        nodes.append(int(random.integers(names)) if split else -1)
        open_ += 1 if split else -1
    return nodes


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_settled_holds(seed: int, exact: bool) -> None:
    """Trees of decisions that mean something or nothing: what they prove of the whole box is true, and no looser."""
    network = CASES[seed % 3]
    random = np.random.default_rng(seed)
    names = 2 * (network.gates + 2 * network.inputs)
    trees = [(k, random_tree(random, names, 8 if exact else 60)) for k in (*network.kinks, *network.kinks)]
    question = asked(network, "inf", exact)
    plain = everywhere(question, {})
    found = settled(question, {}, [(k, nodes, parts_of(nodes, names)) for k, nodes in trees])
    points = random.uniform(*box(network), (4000, network.inputs))
    values = networks.inputs_of_kinks(network, points)
    for k, (lower, upper) in found.bounds.items():
        low, high = (v.astype(float) for v in (lower[0], upper[0]))
        assert (values[k] >= low - 1e-12).all() and (values[k] <= high + 1e-12).all()
        wide, slack = [v[0].astype(float) for v in plain.bounds[k]], 1e-12
        assert (low >= wide[0] - slack).all() and (high <= wide[1] + slack).all()


def test_halving_settles_signs() -> None:
    network = CASES[1]
    question, names = asked(network, "inf"), 2 * (network.gates + 2 * network.inputs)
    first = 2 * (network.gates + network.inputs)
    nodes: list[int] = []
    for depth in range(6):  # every input in turn, all the way down
        nodes = [first + 2 * (depth % 2) + 1, *nodes, *nodes] if nodes else [first + 1, -1, -1]
    lemmas = [(k, nodes, parts_of(nodes, names)) for k in network.kinks]
    before, after = (
        sum(int(((low < 0) & (high > 0)).sum()) for low, high in whole.bounds.values())
        for whole in (everywhere(question, {}), settled(question, {}, lemmas))
    )
    assert after < before


@pytest.mark.parametrize("seed", range(12))
def test_any_tree_gives_a_bound(seed: int) -> None:
    network = CASES[seed % 3]
    random = np.random.default_rng(seed)
    norm = ("inf", "2", "1")[seed % 3]
    names = 2 * (network.gates + 2 * network.inputs)
    nodes = random_tree(random, names)
    conflict = {g: float(v) for g, v in enumerate(random.exponential(size=network.gates))}
    ones = dict.fromkeys(range(network.gates), 1.0)
    count = 1 + 2 * (network.gates + network.inputs)
    cuts = {int(pair): 0.01 for pair in random.integers(count**2, size=seed)}
    ends = [part for node, part in zip(nodes, parts_of(nodes, names), strict=True) if node < 0]
    leaves = [Leaf(decisions, ones, {0: 1.0}, conflict, cuts) for decisions in ends]
    question = asked(network, norm)
    whole = everywhere(question, {})
    loose = norm_bound(question, gradients(question, question.rows, whole.slopes))
    for row, best in enumerate(sampled(network, norm) ** (2 if norm == "2" else 1)):
        bound = largest(case_bounds(question, whole, [Case(row, leaf, 0.0) for leaf in leaves]))
        assert best * (1 - 1e-12) <= bound <= loose[row] * (1 + 1e-9)


def test_semidefiniteness() -> None:
    random = np.random.default_rng(0)
    for n in range(1, 8):
        factor = random.integers(-3, 4, (n, n)).astype(float)
        matrix = factor @ factor.T  # exactly semidefinite, often singular
        exact = Exact()
        assert semidefinite(exact.array(matrix))
        worse = exact.array(matrix)
        worse[0, 0] = -exact.array(2.0**-100)[()]
        assert not semidefinite(worse)
        # Without its margin a factorisation may run through on a matrix that is not semidefinite.
        found = shift(Floating(), matrix - 0.25 * np.eye(n))
        least = np.linalg.eigvalsh(matrix)[0]
        assert 0.25 - least <= found <= max(0.0, 0.25 - least) + 1e-10


@pytest.mark.parametrize("size", [1e-8, 0.3, 1.0, 2.7, 4e5])
def test_a_matrix_is_made_semidefinite_at_about_the_least_cost(size: float) -> None:
    """With ``[[a, b], [b, c]]`` at least 0 the trace ``a + c`` is 2 |b| at least."""
    matrix = np.array([[0.0, size], [size, 0.0]])
    added = _repair(matrix)
    assert np.linalg.eigvalsh(matrix + added).min() >= -1e-12 * size
    assert 2 * size * (1 - 1e-12) <= np.trace(added) <= 2 * size * (1 + 1e-3)
