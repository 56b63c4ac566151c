"""The file of a certificate: an ``.npz`` without pickles; its member ``certificate`` is JSON that names the others."""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lipcompare.errors import InvalidInput, UnsupportedOperation, reading, shown
from lipcompare.network.activations import LeakyReLU
from lipcompare.network.graph import Activate, Affine, Input, Network
from lipcompare.problem import Problem

_DENSE_LIMIT = 2**24
"""Entries of a matrix that is still written out: 128 MiB, where a certificate stops being something to hand on."""


@dataclasses.dataclass(eq=False)
class Writer:
    """Collects arrays under names, and writes them with their header."""

    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def add(self, name: str, values: Any, dtype: type = np.float64) -> str:
        """Keep an array; returns its name."""
        self.arrays[name] = np.ascontiguousarray(values, dtype)
        return name

    def save(self, header: dict[str, Any], path: str | os.PathLike[str]) -> int:
        """Write the file as a whole; returns its size in bytes."""
        text = json.dumps(header, allow_nan=False).encode()
        target = Path(path)
        partial = target.with_name(target.name + ".partial")
        with partial.open("wb") as file:
            members = {"certificate": np.frombuffer(text, np.uint8), **self.arrays}
            np.savez_compressed(file, **members)  # type: ignore[arg-type]  # the stub takes names for options
        partial.replace(target)
        return target.stat().st_size


def differs(path: str | os.PathLike[str], network: Network) -> str | None:
    """Where the network of a certificate differs from this one, number by number, in words; None if nowhere.

    Raises:
        UnsupportedOperation: no certificate covers this network.
        InvalidInput: the file is no certificate.
    """
    check_network(network)
    own = Writer()
    nodes = [_node(network, k, own) for k in range(1, len(network.nodes))]
    said = f"{shown(path)} is no certificate: it is"
    with reading(path, "certificate", "write it again"), Path(path).open("rb") as opened:
        if not zipfile.is_zipfile(opened):
            raise InvalidInput(f"{said} no .npz file, which --certificate writes, or only a part of one.")
    with reading(path, "certificate", "write it again"), np.load(path, allow_pickle=False) as file:
        if "certificate" not in file.files:
            raise InvalidInput(f"{said} an .npz file of {', '.join(map(shown, file.files[:4])) or 'nothing'}.")
        header = json.loads(file["certificate"].tobytes().decode())
        if header["inputs"] != network.in_size or header["nodes"] != nodes:
            return "the nodes, their sizes or their order"
        for name, array in own.arrays.items():
            if not np.array_equal(file[name], array):
                return f"array {name}"
    return None


def check_network(network: Network) -> None:
    """Whether a network can be written out.

    Raises:
        UnsupportedOperation: activations without kinks at the origin, or matrices that are too large.
    """
    for node in network.nodes:
        if isinstance(node, Activate) and not isinstance(node.activation, LeakyReLU):
            covered = "Certificates cover piecewise linear networks with kinks at the origin only"
            remedy = ": --logits (logits=True) leaves out the softmax at the end" if _softmax_alone(network) else ""
            raise UnsupportedOperation(f"{covered}{remedy}.")
        for linear in node.maps if isinstance(node, Affine) else ():
            if linear.in_size * linear.out_size > _DENSE_LIMIT:
                raise UnsupportedOperation(
                    f"A map {linear.in_size} -> {linear.out_size} is too large to write out in a certificate."
                )


def _softmax_alone(network: Network) -> bool:
    """Whether a softmax (or its logarithm) at the end, as the model calls it, is all that is not covered."""
    last = network.nodes[-1]
    smooth = {n.name for n in network.nodes if isinstance(n, Activate) and not isinstance(n.activation, LeakyReLU)}
    return not isinstance(last, Input) and smooth == {last.name} and "softmax" in last.name.lower()


def describe(problem: Problem, writer: Writer) -> dict[str, Any]:
    """The header's part on the question, of a problem with one example, in float64, of a network that was checked."""
    network = problem.network
    return {
        "format": "lipcompare certificate",
        "version": 1,
        "inputs": network.in_size,
        "nodes": [_node(network, k, writer) for k in range(1, len(network.nodes))],
        "box": [writer.add("lower", problem.box.lower[0].cpu()), writer.add("upper", problem.box.upper[0].cpu())],
        "norm": str(problem.norm.value),
        "functionals": writer.add("functionals", problem.functionals[0].cpu()),
    }


def _node(network: Network, k: int, writer: Writer) -> dict[str, Any]:
    node = network.nodes[k]
    if isinstance(node, Activate):
        assert isinstance(node.activation, LeakyReLU)
        alpha = torch.as_tensor(node.activation.alpha, dtype=torch.float64).cpu().expand(node.size)
        return {"kind": "kink", "size": node.size, "parent": node.parent, "alpha": writer.add(f"{k}.alpha", alpha)}
    assert isinstance(node, Affine)
    terms = []
    for i, (parent, linear) in enumerate(node.terms):
        matrix = linear.matrix(device=torch.device("cpu"), dtype=torch.float64)
        terms.append({"parent": parent, "matrix": writer.add(f"{k}.{i}", matrix)})
    bias = np.zeros(node.size) if node.bias is None else node.bias.cpu()
    return {"kind": "affine", "size": node.size, "terms": terms, "bias": writer.add(f"{k}.bias", bias)}
