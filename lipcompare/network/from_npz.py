"""Import of ``.npz`` files with ``W0, b0, W1, b1, ...``: ``y = W x + b`` with ReLU between layers."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from lipcompare.errors import InvalidInput, reading, shown
from lipcompare.network.activations import relu
from lipcompare.network.agreement import check_agreement
from lipcompare.network.arrays import Array, read_npz
from lipcompare.network.graph import Network
from lipcompare.network.linear_maps import Dense
from lipcompare.network.lowering.builder import Builder
from lipcompare.network.lowering.constants import require_finite
from lipcompare.network.room import MEMORY, Room
from lipcompare.network.simplify import simplify

Layer = tuple[Array, Array]


def from_npz(path: str | os.PathLike[str], *, name: str | None = None, memory: int = MEMORY) -> Network:
    """Import a fully connected ReLU network; arrays under other names than ``W<k>`` and ``b<k>`` are ignored.

    Args:
        path: the file.
        name: name of the network (default: the file's name).
        memory: bytes that the import may take beyond what the file's own size explains.

    Raises:
        InvalidInput: the file is broken, does not fit in memory, has no layers, or its shapes do not follow each other.
    """
    path = Path(path)
    with reading(path, ".npz file of plain arrays", "save it again with numpy.savez"):
        room = Room(memory, path.stat().st_size)
        layers = _layers(path, read_npz(path, room, re.compile(r"[Wb](0|[1-9]\d*)", re.ASCII)))
        return _network(layers, name or shown(path.stem), room)


def _network(layers: list[Layer], name: str, room: Room) -> Network:
    builder = Builder((1, layers[0][0].shape[1]), room)
    x = builder.input
    for k, (weight, bias) in enumerate(layers):
        builder.at = f"W{k}"
        if k:
            x = builder.activate(x, relu())
        x = builder.affine([(x, Dense(torch.from_numpy(weight)))], (1, len(bias)), torch.from_numpy(bias))
    network = builder.finish(x, (layers[0][0].shape[1],), (len(layers[-1][1]),), name)
    network = simplify(network)

    def source(value: torch.Tensor) -> torch.Tensor:
        y = value.numpy()
        for k, (weight, bias) in enumerate(layers):
            y = weight @ (np.maximum(y, 0) if k else y) + bias
        return torch.from_numpy(y)

    check_agreement(network, source, torch.float64)
    return network


def _layers(path: Path, arrays: dict[str, Array]) -> list[Layer]:
    for key, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise InvalidInput(f"{key} in {shown(path)} has entries of type {array.dtype}: save real numbers.")
    count = sum(key.startswith("W") for key in arrays)
    if not count or any(f"W{k}" not in arrays for k in range(count)):
        raise InvalidInput(
            f"{shown(path)} has no layers W0, b0, W1, b1, ...: found {', '.join(sorted(arrays)[:9]) or 'none of them'}."
        )
    transposed = _transposed([arrays[f"W{k}"] for k in range(count)], [arrays.get(f"b{k}") for k in range(count)])
    hint = "; these fit as inputs x outputs, as Keras has them: save each as W.T" if transposed else ""
    layers: list[Layer] = []
    for k in range(count):
        weight = np.ascontiguousarray(arrays[f"W{k}"], dtype=np.float64)
        bias = np.asarray(arrays.get(f"b{k}", np.zeros(weight.shape[:1])), dtype=np.float64).reshape(-1)
        expected = layers[-1][0].shape[0] if layers else weight.shape[-1]
        if weight.ndim != 2 or weight.shape[1] != expected or bias.shape != weight.shape[:1]:
            raise InvalidInput(
                f"Layer {k} of {shown(path)} does not fit: W{k} is {weight.shape}, b{k} is {bias.shape}, its input has "
                f"{expected} entries (weights are stored as outputs x inputs{hint})."
            )
        for name, values in ((f"W{k}", weight), (f"b{k}", bias)):
            require_finite(torch.from_numpy(values), f"{name} in {shown(path)}")
        if 0 in weight.shape:
            raise InvalidInput(f"W{k} in {shown(path)} has the shape {weight.shape}: a layer has inputs and outputs.")
        layers.append((weight, bias))
    return layers


def _transposed(weights: list[Array], biases: list[Array | None]) -> bool:
    """Whether the layers follow each other as inputs x outputs and not as outputs x inputs."""

    def fits(inputs: int) -> bool:
        """With the inputs on that axis."""
        chain = all(a.shape[1 - inputs] == b.shape[inputs] for a, b in pairwise(weights))
        return chain and all(b is None or w.shape[1 - inputs] == b.size for w, b in zip(weights, biases, strict=True))

    return all(w.ndim == 2 for w in weights) and fits(0) and not fits(1)
