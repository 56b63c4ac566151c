"""One entry point for everything that can be read as a network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn
from torch.export import ExportedProgram

from lipcompare.errors import InvalidInput, known_keywords, nearest, require_file, shown
from lipcompare.network.environment import ordinary
from lipcompare.network.from_npz import from_npz
from lipcompare.network.from_onnx import from_onnx
from lipcompare.network.from_torch import from_exported, from_module, from_pt2
from lipcompare.network.graph import Network
from lipcompare.network.lowering.heads import no_softmax
from lipcompare.network.room import MEMORY

Source = Network | nn.Module | ExportedProgram | str | os.PathLike[str]

_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin")


@known_keywords
@ordinary()
def load(
    source: Source,
    *,
    input_shape: Sequence[int] | None = None,
    name: str | None = None,
    memory: int = MEMORY,
    logits: bool = False,
) -> Network:
    """Read a trained network.

    Args:
        source: a ``torch.nn.Module``, an ``ExportedProgram``, the path of an ``.onnx``, ``.pt2`` or ``.npz`` file, or a
            :class:`Network` (returned as it is).
        input_shape: shape of one example without the batch axis. A module whose first layer is not ``Linear`` needs it;
            a file only where its own shape is ambiguous.
        name: name of the network; by default the file's or the class's.
        memory: bytes that loading may take, beyond what the source's own size explains.
        logits: leave out a softmax (or its logarithm) at the end; the network's outputs are what it reads.

    Returns:
        The network in float64 on the CPU, checked against its source on random inputs.

    Raises:
        InvalidInput: missing or broken file, unknown kind, wrong shape, NaN weights, a model that does not fit in
            memory, or a result that differs.
        UnsupportedOperation: the model has an operation that is no linear map or supported activation.
    """
    if input_shape is not None and any(int(n) < 1 for n in input_shape):
        raise InvalidInput(f"input_shape {tuple(input_shape)} must have positive entries.")
    if isinstance(source, Network):
        _require_shape(source, input_shape)
        return source if name is None else replace(source, name=name)
    if isinstance(source, nn.Module):
        return from_module(source, input_shape=input_shape, name=name, memory=memory, logits=logits)
    if isinstance(source, ExportedProgram):
        return from_exported(source, input_shape=input_shape, name=name or "network", memory=memory, logits=logits)
    if not isinstance(source, (str, os.PathLike)):
        raise InvalidInput(
            f"Cannot read a network from {type(source).__name__}: give a torch.nn.Module, an ExportedProgram, or the "
            "path of an .onnx, .pt2 or .npz file."
        )
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise InvalidInput(
            f"{shown(path)} is a pickle, and loading it could run code: load it in Python where you trust it and pass "
            "the module, or export it with torch.export.save(torch.export.export(model, (example,)), 'model.pt2')."
        )
    if suffix not in (".onnx", ".pt2", ".npz"):
        raise InvalidInput(
            f"{shown(path)}: unknown kind of file {suffix!r}.{nearest(suffix, ('.onnx', '.pt2', '.npz'))}"
        )
    require_file(path)
    name = name or shown(path.stem)
    if suffix == ".onnx":
        return from_onnx(path, input_shape=input_shape, name=name, memory=memory, logits=logits)
    if suffix == ".pt2":
        return from_pt2(path, input_shape=input_shape, name=name, memory=memory, logits=logits)
    if logits:
        raise no_softmax("a linear layer")
    network = from_npz(path, name=name, memory=memory)
    _require_shape(network, input_shape)
    return network


def _require_shape(network: Network, input_shape: Sequence[int] | None) -> None:
    if input_shape is not None and tuple(input_shape) != network.input_shape:
        raise InvalidInput(f"input_shape {tuple(input_shape)} does not fit the network's own {network.input_shape}.")
