"""Checking: both ends of every row derived anew. What fails proves less, and is named; nothing is taken on trust."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from lipverify.backward import gradients, norm_bound
from lipverify.certificate import Certificate
from lipverify.forward import Domain, Interval, forward
from lipverify.lower import Refused, attained
from lipverify.numbers import Arithmetic, Array, Exact, Floating, _to_float
from lipverify.quadratic import quadratic_bound
from lipverify.tree import Leaf, tree_bound

SLACK = 1e-9
"""A claim counts as met if what is proved here is within this, relative to it: the checker's own rounding."""


@dataclasses.dataclass(frozen=True)
class Proved:
    """One row: the proved interval, rounded outward, and what failed on the way, in words."""

    lower: float
    upper: float
    failures: tuple[str, ...]


def check(certificate: Certificate, *, exact: bool = False) -> list[Proved]:
    """What the certificate proves, row by row."""
    arithmetic: Arithmetic = Exact() if exact else Floating()
    network = certificate.network.to(arithmetic)
    box = arithmetic.array(certificate.lower), arithmetic.array(certificate.upper)
    signs = {k: np.zeros(network.size(k), int) for k in network.kinks}
    failures: list[str] = []
    try:
        chosen = _slopes(certificate)
    except (Refused, KeyError, TypeError, ValueError, IndexError) as error:
        failures.append(f"slopes: {error}")
        chosen = {}
    found = forward(network, arithmetic, Domain(*box, signs), None, chosen)
    rational = certificate.network.to(Exact())
    results = []
    for number, proof in enumerate(certificate.proofs):
        said = list(failures)
        low, high = 0.0, float("inf")
        if proof["lower"] is not None:
            try:
                low = _lower(certificate, rational, number, proof["lower"])
            except (Refused, KeyError, TypeError, ValueError, IndexError) as error:
                said.append(f"row {number}, lower end: {error}")
        if proof["upper"] is not None:
            try:
                high = _upper(certificate, network, arithmetic, found.bounds, found.slopes, number, proof["upper"])
            except (Refused, KeyError, TypeError, ValueError, IndexError) as error:
                said.append(f"row {number}, upper end: {error}")
        claim = certificate.claims[number]
        if low < claim[0] * (1 - SLACK):
            said.append(f"row {number}: claims at least {claim[0]!r}, proved is {low!r}")
        if high > claim[1] * (1 + SLACK):
            said.append(f"row {number}: claims at most {claim[1]!r}, proved is {high!r}")
        results.append(Proved(low, high, tuple(said)))
    return results


def _slopes(certificate: Certificate) -> dict[int, tuple[Array, Array, Mapping[int, Array]]]:
    """Optimised lower slopes by kink node (see :func:`lipverify.forward.forward`)."""
    network = certificate.network
    chosen: dict[int, tuple[Array, Array, Mapping[int, Array]]] = {}
    for name, item in certificate.bounds.items():
        k = int(name)
        if k not in network.kinks:
            raise Refused(f"node {k} has no activation")
        neurons, side = certificate.arrays[item["neurons"]], certificate.arrays[item["signs"]]
        if neurons.dtype.kind != "i" or side.shape != neurons.shape or neurons.ndim != 1:
            raise Refused(f"node {k}: neurons and signs do not fit")
        if len(neurons) and not 0 <= neurons.min() <= neurons.max() < network.size(k):
            raise Refused(f"node {k}: a neuron that is not there")
        shares = {int(j): np.asarray(certificate.arrays[a], np.float64) for j, a in item["shares"].items()}
        for j, share in shares.items():
            if j not in network.kinks or j >= k or share.shape != (len(neurons), network.size(j)):
                raise Refused(f"node {k}: slopes of node {j} do not fit")
        chosen[k] = neurons, np.where(side > 0, 1.0, -1.0), shares
    return chosen


def _lower(certificate: Certificate, rational: Any, number: int, proof: Mapping[str, Any]) -> float:
    exact = Exact()
    sides = {int(k): certificate.arrays[name] for k, name in proof.get("sides", {}).items()}
    for k, side in sides.items():
        if k not in rational.kinks or side.shape != (rational.size(k),):
            raise Refused(f"sides of node {k} do not fit")
    value = attained(
        rational,
        exact.array(certificate.lower),
        exact.array(certificate.upper),
        exact.array(certificate.rows[number]),
        certificate.norm,
        certificate.arrays[proof["point"]],
        sides,
    )
    return _root(value, up=False) if certificate.norm == "2" else _outward(value, up=False)


def _upper(
    certificate: Certificate,
    network: Any,
    arithmetic: Arithmetic,
    bounds: Mapping[int, Interval],
    slopes: Mapping[int, Interval],
    number: int,
    proof: Mapping[str, Any],
) -> float:
    row, norm, kind = arithmetic.array(certificate.rows[number]), certificate.norm, proof["kind"]
    squared = norm == "2"

    def end(value: Array) -> float:
        return _root(value, up=True) if squared else _outward(value, up=True)

    if kind in ("interval", "recurjac", "linear"):
        found = gradients(network, arithmetic, slopes, row, kind, norm)
        return end(norm_bound(network, arithmetic, row, found, norm, pushed=kind != "interval")[0])
    if kind == "quadratic":
        found = gradients(network, arithmetic, slopes, row, "linear", norm)
        leaf = _leaves(certificate, proof)(0)
        linear = norm_bound(network, arithmetic, row, found, norm, pushed=True)[0]
        better = quadratic_bound(network, arithmetic, slopes, row, found, norm, leaf.constant, leaf.theta, leaf.lam)
        return end(linear if better is None else min(linear, better))
    if kind == "tree":
        nodes = certificate.arrays[proof["nodes"]]
        if nodes.dtype.kind != "i" or nodes.ndim != 1:
            raise Refused("the tree is not a list of integers")
        box = arithmetic.array(certificate.lower), arithmetic.array(certificate.upper)
        claim = certificate.claims[number][1]
        target = arithmetic.array(claim if np.isfinite(claim) else 0.0)[()]
        goal = target * target if squared else target
        found_bound, _ = tree_bound(
            network, arithmetic, *box, row, norm, bounds, nodes, _leaves(certificate, proof), goal
        )
        return end(found_bound)
    raise Refused(f"no proof is called {kind!r}")


def _leaves(certificate: Certificate, proof: Mapping[str, Any]) -> Any:
    """Access to the multipliers of leaf ``i``: slices of flat arrays."""

    def table(name: str) -> tuple[Array, Array, Array]:
        item = proof.get(name)
        if item is None:
            return np.zeros(0, int), np.zeros(0, int), np.zeros(0)
        starts, index, value = (certificate.arrays[a] for a in item)
        if starts.dtype.kind != "i" or index.dtype.kind != "i" or index.shape != value.shape or starts.ndim != 1:
            raise Refused(f"the multipliers {name!r} do not fit")
        return starts, index, np.asarray(value, np.float64)

    tables = {name: table(name) for name in ("theta", "lam", "conflict")}
    constants = np.asarray(certificate.arrays[proof["constant"]], np.float64) if "constant" in proof else np.zeros(0)

    def pick(name: str, i: int) -> dict[int, float]:
        starts, index, value = tables[name]
        if i + 1 >= len(starts) or not 0 <= starts[i] <= starts[i + 1] <= len(index):
            return {}
        some = slice(int(starts[i]), int(starts[i + 1]))
        return dict(zip(index[some].tolist(), value[some].tolist(), strict=True))

    def leaf(i: int) -> Leaf:
        constant = float(constants[i]) if i < len(constants) and np.isfinite(constants[i]) else 0.0
        return Leaf(constant, pick("theta", i), pick("lam", i), pick("conflict", i))

    return leaf


def _outward(value: Any, *, up: bool) -> float:
    """The nearest double on the safe side."""
    near = _to_float(value) if not isinstance(value, np.floating) else float(value)
    if not np.isfinite(near):
        return float("inf") if up else 0.0
    true = (
        value
        if isinstance(value, (float, np.floating))
        else Fraction(str(value))
        if not isinstance(value, (int, Fraction))
        else Fraction(value)
    )
    if isinstance(true, Fraction) and (Fraction(near) < true if up else Fraction(near) > true):
        near = float(np.nextafter(near, np.inf if up else -np.inf))
    return near


def _root(value: Any, *, up: bool) -> float:
    """A square root on the safe side."""
    near = float(np.sqrt(max(0.0, _outward(value, up=up))))
    return float(np.nextafter(near, np.inf if up else 0.0))
