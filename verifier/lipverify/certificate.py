"""Reading a certificate: one ``.npz`` without pickles, whose member ``certificate`` is JSON that names the others."""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from typing import Any

import numpy as np

from lipverify.network import Affine, Kink, Map, Network
from lipverify.numbers import Array

FORMAT, VERSION = "lipcompare certificate", 1


class Malformed(Exception):
    """The file is no certificate; the message says where it fails first."""


@dataclasses.dataclass(frozen=True, eq=False)
class Certificate:
    """What the file says.

    Attributes:
        network: in doubles.
        lower, upper: (inputs,) the box.
        norm: ``inf``, ``2`` or ``1``, the norm on the input.
        rows: (rows, outputs).
        claims: per row the interval that is said to be proved.
        proofs: per row the JSON objects ``lower`` and ``upper``, either may be missing.
        bounds: JSON object on the optimised slopes of bounds over the whole box.
        arrays: the file's other members.
    """

    network: Network
    lower: Array
    upper: Array
    norm: str
    rows: Array
    claims: list[tuple[float, float]]
    proofs: list[dict[str, Any]]
    bounds: dict[str, Any]
    arrays: dict[str, Array]


def read(path: str | os.PathLike[str]) -> Certificate:
    """The certificate in a file.

    Raises:
        Malformed: something in it is not as docs/certificates.md says.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop("certificate").tobytes().decode())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, RecursionError) as error:
        raise Malformed(f"not a certificate: {type(error).__name__}: {error}") from error
    try:
        return _parse(header, arrays)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise Malformed(f"{type(error).__name__}: {error}") from error


def _parse(header: dict[str, Any], arrays: dict[str, Array]) -> Certificate:
    if header["format"] != FORMAT or header["version"] != VERSION:
        raise Malformed(f"format {header['format']!r}, version {header['version']!r}: expected {FORMAT!r}, {VERSION}")

    def numbers(name: str, *shape: int) -> Array:
        array = arrays[name]
        if array.dtype != np.float64 or array.shape != shape or not np.isfinite(array).all():
            raise Malformed(f"array {name!r} must hold finite float64 numbers of shape {shape}, not {array.shape}")
        return array

    sizes = [int(header["inputs"])]
    nodes: list[Affine | Kink] = []
    for item in header["nodes"]:
        size = int(item["size"])
        if item["kind"] == "affine":
            terms = [
                (int(t["parent"]), Map(numbers(t["matrix"], size, sizes[int(t["parent"])]))) for t in item["terms"]
            ]
            parents, maps = zip(*terms, strict=True)
            nodes.append(Affine(parents, maps, numbers(item["bias"], size)))
        elif item["kind"] == "kink":
            nodes.append(Kink(int(item["parent"]), numbers(item["alpha"], size)))
        else:
            raise Malformed(f"a node of kind {item['kind']!r}")
        sizes.append(size)
    network = Network(sizes[0], tuple(nodes))
    lower, upper = numbers(header["box"][0], sizes[0]), numbers(header["box"][1], sizes[0])
    if bool((lower > upper).any()):
        raise Malformed("the box is empty")
    if header["norm"] not in ("inf", "2", "1"):
        raise Malformed(f"norm {header['norm']!r}")
    rows = numbers(header["functionals"], len(header["rows"]), sizes[-1])
    claims = [
        (float(r["claim"][0]), float("inf") if r["claim"][1] is None else float(r["claim"][1])) for r in header["rows"]
    ]
    if any(np.isnan(end) for claim in claims for end in claim):
        raise Malformed("a claim is not a number")
    proofs = [{part: r.get(part) for part in ("lower", "upper")} for r in header["rows"]]
    return Certificate(
        network, lower, upper, str(header["norm"]), rows, claims, proofs, dict(header.get("bounds") or {}), arrays
    )
