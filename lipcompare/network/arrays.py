"""Arrays in numpy's file formats, with their sizes checked before they are read."""

from __future__ import annotations

import io
import math
import os
import re
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from lipcompare.network.room import Room

Array = np.ndarray[Any, Any]
_LONGEST_HEADER = 2**17


def read_npy(path: str | os.PathLike[str]) -> Array:
    """The array in a ``.npy`` file.

    Raises:
        ValueError, OSError: the file is none, is cut off, or holds Python objects.
    """
    size = Path(path).stat().st_size
    with Path(path).open("rb") as file:
        return _read(file, size, Room(source=size))


def read_npz(path: str | os.PathLike[str], room: Room, names: re.Pattern[str]) -> dict[str, Array]:
    """The arrays in a ``.npz`` file whose names match; errors as :func:`read_npy`, and one that does not fit."""
    with zipfile.ZipFile(path) as archive:
        arrays = {}
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if names.fullmatch(name):
                with archive.open(info) as file:
                    arrays[name] = _read(file, info.file_size, room)
        return arrays


def _read(file: IO[bytes], size: int, room: Room) -> Array:
    # A header says how long it is in up to ten digits, and a read of that many bytes allocates them first.
    start = io.BytesIO(file.read(_LONGEST_HEADER))
    version = np.lib.format.read_magic(start)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a header of Python 2 is read all the same
        shape, fortran, dtype = header(start)
    file.seek(start.tell())
    if dtype.hasobject:
        raise ValueError("it holds Python objects, and reading those could run code")
    needed = math.prod(shape) * dtype.itemsize
    if min((0, *shape)) < 0 or needed > size - file.tell():
        raise ValueError(f"the array of shape {shape} is cut off")
    room.take(needed / 8, f"An array of shape {shape}")
    flat = np.frombuffer(bytearray(file.read(needed)), dtype=dtype)  # bytes would be read-only
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
