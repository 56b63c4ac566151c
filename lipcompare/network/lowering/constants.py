"""Weights as the lowering takes them: real numbers in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lipcompare.errors import InvalidInput


def double(value: Tensor, name: str) -> Tensor:
    """A float64 copy on the CPU, never the model's own memory; integers and truth values keep their type.

    Raises:
        InvalidInput: as :func:`require_real`.
    """
    require_real(value, name)
    copied = value.detach().cpu()
    return copied.to(torch.float64, copy=True) if value.is_floating_point() else copied.clone()


def from_numpy(array: Any, name: str) -> Tensor:
    """An array as a tensor, floating-point numbers in float64 (every narrower one is one exactly).

    Raises:
        InvalidInput: the entries are no real numbers.
    """
    array = np.asarray(array)
    if array.dtype.kind == "f" or (array.dtype.kind == "V" and array.dtype.names is None and array.dtype.itemsize <= 2):
        array = array.astype(np.float64)  # of kind V: bfloat16 and the floats of one byte
    if array.dtype.kind not in "fiub":
        raise InvalidInput(f"{name} has entries of type {array.dtype}: a network is made of real numbers.")
    return torch.from_numpy(np.array(array))


def require_real(value: Tensor, name: str) -> None:
    """Weights are plain real numbers.

    Raises:
        InvalidInput: they are complex, quantised or sparse.
    """
    if value.is_complex() or value.is_quantized or value.layout != torch.strided:
        kind = "complex" if value.is_complex() else "quantised" if value.is_quantized else "sparse"
        raise InvalidInput(f"{name} has {kind} entries: models with plain real weights are supported.")


def require_finite(value: Tensor, name: str) -> None:
    """Trained numbers are finite.

    Raises:
        InvalidInput: some are NaN or infinite.
    """
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise InvalidInput(f"{name} has NaN or infinite entries: retrain or repair the model.")
