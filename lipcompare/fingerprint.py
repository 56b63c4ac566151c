"""Content hashes: equal questions have equal keys, wherever and whenever they are asked."""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor


class Fingerprints:
    """SHA-256 fingerprints of plain values, arrays, tensors, dataclasses and containers of them.

    Fields of dataclasses that do not take part in comparisons (names for people) are left out.

    The digest of each tensor is remembered, since a study asks many questions about one network. The object keeps the
    tensors alive meanwhile; changing one in place between two calls would go unnoticed.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Tensor, bytes]] = {}

    def of(self, *values: object) -> str:
        """Thirty-two hexadecimal digits that change with any of the values."""
        digest = hashlib.sha256()
        for value in values:
            digest.update(self._encode(value))
        return digest.hexdigest()[:32]

    def _encode(self, value: object) -> bytes:
        """An unambiguous encoding: every piece carries its type and its length."""
        if isinstance(value, Tensor):
            if id(value) not in self._known:
                array = value.detach().cpu().numpy()
                self._known[id(value)] = value, hashlib.sha256(self._encode(array)).digest()
            return _piece("tensor", self._known[id(value)][1])
        if isinstance(value, np.ndarray):
            return _piece(f"array {value.dtype.str} {value.shape}", np.ascontiguousarray(value).tobytes())
        if isinstance(value, enum.Enum):
            return _piece(f"enum {type(value).__qualname__}", value.name.encode())
        if value is None or isinstance(value, (bool, int, float, str)):
            return _piece(type(value).__name__, repr(value).encode())
        if isinstance(value, Mapping):
            items = sorted((self._encode(k), self._encode(v)) for k, v in value.items())
            return _piece("mapping", b"".join(k + v for k, v in items))
        if isinstance(value, Sequence):
            return _piece("sequence", b"".join(map(self._encode, value)))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = [f.name for f in dataclasses.fields(value) if f.compare]
            content = b"".join(_piece(name, self._encode(getattr(value, name))) for name in fields)
            return _piece(f"dataclass {type(value).__qualname__}", content)
        if isinstance(value, functools.partial):
            return _piece("partial", self._encode((value.func, value.args, value.keywords)))
        if callable(value):  # an activation's function: the package's version stands for what it does
            return _piece("callable", f"{value.__module__}.{getattr(value, '__qualname__', type(value))}".encode())
        raise TypeError(f"A {type(value).__name__} has no fingerprint.")


def _piece(kind: str, content: bytes) -> bytes:
    return f"{kind} {len(content)}:".encode() + content
