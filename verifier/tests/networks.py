"""Small networks, certificates made by hand, and what sampling finds: for the tests, without lipcompare."""

from __future__ import annotations

import io
import itertools
import json
from typing import Any

import numpy as np
from lipverify.certificate import Certificate, read
from lipverify.network import Affine, Kink, Network


def dense(seed: int, *sizes: int, leaky: bool = False, residual: bool = False) -> Network:
    """A random network; ``residual`` adds the first hidden value to the last one."""
    random = np.random.default_rng(seed)
    nodes: list[Affine | Kink] = []
    for a, b in itertools.pairwise(sizes):
        if nodes:
            alpha = random.uniform(-1, 1, a) if leaky else np.zeros(a)
            nodes.append(Kink(len(nodes), alpha))
        matrix, bias = random.normal(size=(b, a)) / np.sqrt(a), random.normal(size=b) * 0.3
        nodes.append(Affine(((len(nodes), matrix),), bias))
    if residual:
        last = nodes[-1]
        assert isinstance(last, Affine)
        extra = random.normal(size=(len(last.bias), sizes[1]))
        nodes[-1] = Affine((*last.terms, (2, extra)), last.bias)
    return Network(sizes[0], tuple(nodes))


def gradients(network: Network, rows: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(points, rows, inputs) by the chain rule at points that lie on no kink."""
    return passes(network, rows, points)[1][0]


def passes(
    network: Network, rows: np.ndarray, points: np.ndarray
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """By kink the slopes (points, size), and the gradients (points, rows, size) with respect to its output, also for
    the input (0)."""
    values, slopes = [points], {}
    for k, node in enumerate(network.nodes, 1):
        if isinstance(node, Affine):
            values.append(node.bias + sum(values[p] @ m.T for p, m in node.terms))
        else:
            z = values[node.parent]
            slopes[k] = np.where(z > 0, 1.0, node.alpha)
            values.append(np.maximum(z, node.alpha * z))
    back: dict[int, Any] = {network.last: np.broadcast_to(rows, (len(points), *rows.shape))}
    found: dict[int, np.ndarray] = {}
    for k in range(network.last, 0, -1):
        if k not in back:
            continue
        node, gradient = network.nodes[k - 1], back.pop(k)
        if isinstance(node, Affine):
            for p, m in node.terms:
                back[p] = back.get(p, 0) + gradient @ m
        else:
            found[k] = gradient
            back[node.parent] = back.get(node.parent, 0) + gradient * slopes[k][:, None]
    return slopes, found | {0: back[0]}


def inputs_of_kinks(network: Network, points: np.ndarray) -> dict[int, np.ndarray]:
    """(points, size) by kink."""
    values, found = [points], {}
    for k, node in enumerate(network.nodes, 1):
        if isinstance(node, Affine):
            values.append(node.bias + sum(values[p] @ m.T for p, m in node.terms))
        else:
            found[k] = values[node.parent]
            values.append(np.maximum(found[k], node.alpha * found[k]))
    return found


def dual_norm(values: np.ndarray, norm: str) -> np.ndarray:
    size = np.abs(values)
    return {"inf": size.sum(-1), "2": np.sqrt((size**2).sum(-1)), "1": size.max(-1)}[norm]


def pack(
    network: Network,
    lower: np.ndarray,
    upper: np.ndarray,
    norm: str,
    rows: list[dict[str, Any]],
    extra: dict[str, np.ndarray] | None = None,
    functionals: np.ndarray | None = None,
) -> bytes:
    """The bytes of a certificate file."""
    arrays: dict[str, np.ndarray] = {"lower": lower, "upper": upper, **(extra or {})}
    arrays["rows"] = np.eye(network.size(network.last)) if functionals is None else functionals
    nodes = []
    for k, node in enumerate(network.nodes, 1):
        if isinstance(node, Kink):
            arrays[f"{k}.alpha"] = node.alpha
            nodes.append({"kind": "kink", "size": network.size(k), "parent": node.parent, "alpha": f"{k}.alpha"})
            continue
        terms = []
        for i, (parent, one) in enumerate(node.terms):
            arrays[f"{k}.{i}"] = one
            terms.append({"parent": parent, "matrix": f"{k}.{i}"})
        arrays[f"{k}.bias"] = node.bias
        nodes.append({"kind": "affine", "size": network.size(k), "terms": terms, "bias": f"{k}.bias"})
    header = {
        "format": "lipcompare certificate", "version": 1, "inputs": network.inputs, "nodes": nodes,
        "box": ["lower", "upper"], "norm": norm, "functionals": "rows", "rows": rows,
    }  # fmt: skip
    arrays["certificate"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def made(*arguments: Any, **options: Any) -> Certificate:
    """The certificate that :func:`pack` writes, read again."""
    return read(io.BytesIO(pack(*arguments, **options)))
