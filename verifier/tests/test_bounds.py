"""Whatever the multipliers, slopes and decisions: no bound lies under what sampling attains; exact and float agree."""

from __future__ import annotations

import networks
import numpy as np
import pytest
from lipverify.backward import gradients, norm_bound
from lipverify.check import check
from lipverify.forward import Domain, forward
from lipverify.numbers import Exact, Floating
from lipverify.quadratic import _semidefinite, _shift, quadratic_bound
from lipverify.tree import Leaf, tree_bound

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


def whole(network: networks.Network, arithmetic: Floating | Exact) -> Domain:
    lower, upper = (arithmetic.array(v) for v in box(network))
    return Domain(lower, upper, {k: np.zeros(network.size(k), int) for k in network.kinks})


@pytest.mark.parametrize("network", CASES)
@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("kind", ["interval", "recurjac", "linear"])
def test_plain_bounds(network: networks.Network, norm: str, kind: str) -> None:
    rows = [{"claim": [0.0, None], "upper": {"kind": kind}} for _ in range(network.size(network.last))]
    certificate = networks.made(network, *box(network), norm, rows)
    floating, exact = check(certificate), check(certificate, exact=True)
    for attained, f, e in zip(sampled(network, norm), floating, exact, strict=True):
        assert not f.failures and not e.failures
        assert attained <= f.upper * (1 + 1e-12) and attained <= e.upper * (1 + 1e-12)
        assert f.upper == pytest.approx(e.upper, rel=1e-9)
        assert f.upper < 100 * attained


@pytest.mark.parametrize("network", CASES[:3])
def test_bounds_before_kinks_hold_at_samples(network: networks.Network) -> None:
    found = forward(network, Floating(), whole(network, Floating()))
    points = np.random.default_rng(6).uniform(*box(network), (4000, network.inputs))
    values = [points]
    for node in network.nodes:
        if isinstance(node, networks.Affine):
            values.append(node.bias + sum(values[p] @ m.matrix.T for p, m in zip(node.parents, node.maps, strict=True)))
        else:
            values.append(np.maximum(values[node.parent], node.alpha * values[node.parent]))
    for k, (lower, upper) in found.bounds.items():
        z = values[network.nodes[k - 1].parent]
        assert (z >= lower).all() and (z <= upper).all()


def test_chosen_slopes_stay_valid_and_can_help() -> None:
    network = CASES[0]
    random = np.random.default_rng(1)
    domain = whole(network, Floating())
    plain = forward(network, Floating(), domain)
    last = network.kinks[-1]
    size = network.size(last)
    points = random.uniform(*box(network), (4000, network.inputs))
    first = points @ network.nodes[0].maps[0].matrix.T + network.nodes[0].bias
    z = np.maximum(first, 0) @ network.nodes[2].maps[0].matrix.T + network.nodes[2].bias
    helped = False
    for _ in range(30):
        shares = random.uniform(-1, 2, (2 * size, network.size(network.kinks[0])))
        chosen = {last: (np.tile(np.arange(size), 2), np.repeat([1.0, -1.0], size), {network.kinks[0]: shares})}
        found = forward(network, Floating(), domain, None, chosen)
        lower, upper = found.bounds[last]
        assert (z >= lower).all() and (z <= upper).all()
        helped |= bool((upper < plain.bounds[last][1] - 1e-9).any())
    assert helped


@pytest.mark.parametrize("network", CASES[:3])
@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("exact", [False, True])
def test_any_multipliers_give_a_bound(network: networks.Network, norm: str, exact: bool) -> None:
    arithmetic = Exact() if exact else Floating()
    moved = network.to(arithmetic)
    found = forward(moved, arithmetic, whole(network, arithmetic))
    attained = sampled(network, norm) ** (2 if norm == "2" else 1)
    random = np.random.default_rng(3)
    for trial in range(3 if exact else 40):
        theta = {g: float(v) for g, v in enumerate(random.exponential(10.0 ** random.integers(-2, 3), network.gates))}
        lam = {j: float(v) for j, v in enumerate(random.exponential(size=network.inputs)) if trial % 3 or j}
        for i, best in enumerate(attained):
            row = arithmetic.array(np.eye(len(attained))[i])
            gradient = gradients(moved, arithmetic, found.slopes, row, "linear", norm)
            bound = quadratic_bound(moved, arithmetic, found.slopes, row, gradient, norm, 1.0, theta, lam)
            assert bound is None or float(arithmetic.floats(np.asarray([bound]))[0]) >= best * (1 - 1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_any_tree_gives_a_bound(seed: int) -> None:
    network = CASES[seed % 3]
    random = np.random.default_rng(seed)
    norm = ("inf", "2", "1")[seed % 3]
    names = 2 * (network.gates + 2 * network.inputs)
    nodes, open_ = [], 1
    while open_:
        split = len(nodes) < 20 and bool(random.uniform() < 0.7)
        nodes.append(int(random.integers(names)) if split else -1)
        open_ += 1 if split else -1
    arithmetic = Floating()
    domain = whole(network, arithmetic)
    start = forward(network, arithmetic, domain).bounds
    conflict = {g: float(v) for g, v in enumerate(random.exponential(size=network.gates))}
    attained = sampled(network, norm) ** (2 if norm == "2" else 1)
    root = [
        norm_bound(network, arithmetic, row, gradients(
            network, arithmetic, forward(network, arithmetic, domain).slopes, row, "linear", norm
        ), norm, pushed=True)[0]
        for row in np.eye(len(attained))
    ]  # fmt: skip
    for row, best, loose in zip(np.eye(len(attained)), attained, root, strict=True):
        bound, leaves = tree_bound(
            network, arithmetic, domain.lower, domain.upper, row, norm, start, np.array(nodes),
            lambda _: Leaf(0.5, dict.fromkeys(range(network.gates), 1.0), {0: 1.0}, conflict), np.float64(0.0),
        )  # fmt: skip
        assert leaves == nodes.count(-1) and best * (1 - 1e-12) <= bound <= loose * (1 + 1e-9)


def test_semidefiniteness() -> None:
    random = np.random.default_rng(0)
    for n in range(1, 8):
        factor = random.integers(-3, 4, (n, n)).astype(float)
        matrix = factor @ factor.T  # exactly semidefinite, often singular
        exact = Exact()
        assert _semidefinite(exact.array(matrix))
        worse = exact.array(matrix)
        worse[0, 0] = -exact.array(2.0**-100)[()]
        assert not _semidefinite(worse)
        # Without its margin a factorisation may run through on a matrix that is not semidefinite.
        shift = _shift(Floating(), matrix - 0.25 * np.eye(n))
        least = np.linalg.eigvalsh(matrix)[0]
        assert shift is not None and 0.25 - least <= shift <= max(0.0, 0.25 - least) + 1e-10
