"""Import of ``.npz`` files with ``W0, b0, W1, b1, ...``: ``y = W x + b`` with ReLU between layers."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lipcompare.errors import InvalidInput
from lipcompare.network.activations import relu
from lipcompare.network.agreement import check_agreement
from lipcompare.network.graph import Network
from lipcompare.network.linear_maps import Dense
from lipcompare.network.lowering.builder import Builder
from lipcompare.network.simplify import simplify

Layer = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def from_npz(path: str | os.PathLike[str], *, name: str | None = None) -> Network:
    """Import a fully connected ReLU network; arrays under other names than ``W<k>`` and ``b<k>`` are ignored.

    Raises:
        InvalidInput: the file is broken, has no layers, or shapes that do not follow each other.
    """
    layers = _layers(Path(path))
    builder = Builder((1, layers[0][0].shape[1]))
    x = builder.input
    for k, (weight, bias) in enumerate(layers):
        builder.at = f"W{k}"
        if k:
            x = builder.activate(x, relu())
        x = builder.affine([(x, Dense(torch.from_numpy(weight)))], (1, len(bias)), torch.from_numpy(bias))
    network = builder.finish(x, (layers[0][0].shape[1],), (len(layers[-1][1]),), name or Path(path).stem)
    network = simplify(network)

    def source(value: torch.Tensor) -> torch.Tensor:
        y = value.numpy()
        for k, (weight, bias) in enumerate(layers):
            y = weight @ (np.maximum(y, 0) if k else y) + bias
        return torch.from_numpy(y)

    check_agreement(network, source, torch.float64)
    return network


def _layers(path: Path) -> list[Layer]:
    try:
        with path.open("rb") as file, zipfile.ZipFile(file):  # an array alone (.npy) is no archive
            archive = np.load(file, allow_pickle=False)
            arrays = {key: archive[key] for key in archive.files if re.fullmatch(r"[Wb]\d+", key)}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInput(
            f"{path} is not a readable .npz file of plain arrays ({type(error).__name__}): save it again with "
            "numpy.savez."
        ) from None
    count = sum(key.startswith("W") for key in arrays)
    if not count or any(f"W{k}" not in arrays for k in range(count)):
        raise InvalidInput(
            f"{path} has no layers W0, b0, W1, b1, ...: found {', '.join(sorted(arrays)) or 'none of them'}."
        )
    layers: list[Layer] = []
    for k in range(count):
        weight = np.ascontiguousarray(arrays[f"W{k}"], dtype=np.float64)
        bias = np.asarray(arrays.get(f"b{k}", np.zeros(weight.shape[:1])), dtype=np.float64).reshape(-1)
        expected = layers[-1][0].shape[0] if layers else weight.shape[-1]
        if weight.ndim != 2 or weight.shape[1] != expected or bias.shape != weight.shape[:1]:
            raise InvalidInput(
                f"Layer {k} of {path} does not fit: W{k} is {weight.shape}, b{k} is {bias.shape}, its input has "
                f"{expected} entries (weights are stored as outputs x inputs)."
            )
        layers.append((weight, bias))
    return layers
