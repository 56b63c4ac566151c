"""Reading a certificate: one ``.npz`` without pickles, whose member ``certificate`` is JSON that names the others."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from lipverify.forward import Below
from lipverify.network import Affine, Kink, Leaf, Network, Question
from lipverify.numbers import Array, Floating
from lipverify.tree import Lemma, parts_of

FORMAT, VERSION = "lipcompare certificate", 1


class Malformed(Exception):
    """The file is not what it should be; the message says what it is instead, or where it fails first."""


class Proof(NamedTuple):
    """What is said of one row.

    Attributes:
        lower, upper: the interval that is claimed.
        point: (inputs,) where the lower end is attained; None for no proof.
        sides: per kink node (size,), positive where a neuron exactly at its kink counts as active.
        norms: whether the upper end is a product of norms.
        leaves: cases that cover the box, with the proof of each; none for no proof of this kind.
    """

    lower: float
    upper: float
    point: Array | None = None
    sides: Mapping[int, Array] = {}
    norms: bool = False
    leaves: tuple[Leaf, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Certificate:
    """What the file says, in doubles.

    Attributes:
        proofs: one for each row.
        below: by node, lines below kinks that are best for some functions of its value.
        lemmas: cases that prove bounds on values before kinks over the whole box, one after another.
    """

    question: Question
    proofs: tuple[Proof, ...]
    below: Mapping[int, Below]
    lemmas: tuple[Lemma, ...] = ()

    @property
    def digest(self) -> str:
        """Names the question: network, box, functionals and norm, number by number."""
        asked, nodes = self.question, self.question.network.nodes
        made = hashlib.sha256(repr((asked.norm, [(type(node).__name__, node.parents) for node in nodes])).encode())
        for part in (asked.lower, asked.upper, asked.rows, *(part for node in nodes for part in node.numbers)):
            made.update(repr(part.shape).encode() + (part + 0.0).tobytes())
        return made.hexdigest()[:16]


@contextlib.contextmanager
def opened(file: str | os.PathLike[str] | BinaryIO, what: str) -> Iterator[Any]:
    """The members of an ``.npz``, by its path or open; what fails inside, while they are read, is said of the file.

    Args:
        what: the file should be, in words.

    Raises:
        Malformed: anything did. Damaged archives make zipfile, zlib and numpy raise whatever there is.
    """
    try:
        # numpy leaves a file open that is broken.
        source = contextlib.nullcontext(file) if hasattr(file, "read") else os.fdopen(os.open(file, os.O_RDONLY), "rb")
        with source as whole, np.load(whole, allow_pickle=False) as members:
            yield members
    except Exception as error:
        said = getattr(error, "strerror", None) or (error if zipfile.is_zipfile(file) else "it is no whole .npz file")
        raise Malformed(f"{'the file' if hasattr(file, 'read') else file} is no {what}: {said}") from error


def read(file: str | os.PathLike[str] | BinaryIO) -> Certificate:
    """The certificate in a file.

    Raises:
        Malformed: something in it is not as docs/certificates.md says.
    """
    with opened(file, "certificate") as members:
        if "certificate" not in members.files:
            raise ValueError(f"it is an .npz file of {', '.join(members.files[:4]) or 'nothing'}")
        arrays = {name: members[name] for name in members.files}
        header = json.loads(arrays.pop("certificate").tobytes().decode())
        return _Parser(arrays).certificate(header)


def _integer(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no number of something")
    return value


class _Parser(NamedTuple):
    arrays: Mapping[str, Array]

    def numbers(self, name: str, *shape: int, kind: str = "f", below: int | None = None) -> Array:
        """A member with finite entries, floating (``f``) or integer (``i``; with ``below``, from 0 on), of a shape in
        which -1 is any size."""
        array = self.arrays[name]
        fits = array.ndim == len(shape) and all(b in (a, -1) for a, b in zip(array.shape, shape, strict=True))
        if not fits or array.dtype.kind != kind or array.dtype.itemsize > 8 or not np.isfinite(array).all():
            raise ValueError(f"array {name!r} must hold finite numbers ({kind}) of shape {shape}")
        if below is not None and array.size and not 0 <= array.min() <= array.max() < below:
            raise ValueError(f"array {name!r} must hold integers from 0 to {below - 1}")
        return array.astype(np.float64 if kind == "f" else np.int64)

    def certificate(self, header: Mapping[str, Any]) -> Certificate:
        if header["format"] != FORMAT or header["version"] != VERSION:
            raise ValueError(f"this is {header['format']!r}, version {header['version']!r}, not {FORMAT!r}, {VERSION}")
        network = self.network(header)
        lower, upper = (self.numbers(name, network.inputs) for name in header["box"])
        if bool((lower > upper).any()):
            raise ValueError("the box is empty")
        if header["norm"] not in ("inf", "2", "1"):
            raise ValueError(f"norm {header['norm']!r}")
        rows = self.numbers(header["functionals"], len(header["rows"]), network.size(network.last))
        if not len(rows):
            raise ValueError("there are no rows")
        proofs = []
        for number, item in enumerate(header["rows"]):
            try:
                proofs.append(self.proof(item, network))
            except (LookupError, ValueError, TypeError, AttributeError) as error:
                raise ValueError(f"row {number}: {error}") from error
        below = {_integer(item["node"]): self.below(item, network) for item in header.get("slopes", [])}
        listed = header.get("settled", [])
        lemmas = tuple((_integer(item["node"]), *self.tree(item["tree"], network)) for item in listed)
        if not {node for node, *_ in lemmas} <= set(network.kinks):
            raise ValueError("what is settled are values before kinks")
        question = Question(network, Floating(), lower, upper, rows, header["norm"])
        return Certificate(question, tuple(proofs), below, lemmas)

    def tree(self, name: str, network: Network) -> tuple[list[int], list[tuple[int, ...]]]:
        nodes = self.numbers(name, -1, kind="i").tolist()
        return nodes, parts_of(nodes, 2 * (network.gates + 2 * network.inputs))

    def below(self, item: Mapping[str, Any], network: Network) -> Below:
        neurons = self.numbers(item["neurons"], -1, kind="i", below=network.size(item["node"]))
        kinks = {int(k): (name, len(network.kinks[int(k)].alpha)) for k, name in item["below"].items()}
        return Below(neurons, {k: self.numbers(name, 2 * len(neurons), size) for k, (name, size) in kinks.items()})

    def network(self, header: Mapping[str, Any]) -> Network:
        sizes = [_integer(header["inputs"])]
        nodes: list[Affine | Kink] = []
        for item in header["nodes"]:
            size = _integer(item["size"])
            if item["kind"] == "affine":
                parents = [_integer(term["parent"]) for term in item["terms"]]
                names = [term["matrix"] for term in item["terms"]]
                maps = (self.numbers(name, size, sizes[p]) for p, name in zip(parents, names, strict=True))
                nodes.append(Affine(tuple(zip(parents, maps, strict=True)), self.numbers(item["bias"], size)))
            elif item["kind"] == "kink":
                nodes.append(Kink(_integer(item["parent"]), self.numbers(item["alpha"], size)))
            else:
                raise ValueError(f"node {len(sizes)} is of kind {item['kind']!r}")
            sizes.append(size)
        return Network(sizes[0], tuple(nodes))

    def proof(self, item: Mapping[str, Any], network: Network) -> Proof:
        low, high = item["claim"]
        lower, upper = float(low), np.inf if high is None else float(high)
        if np.isnan([lower, upper]).any():
            raise ValueError("the claim is not a number")
        found = Proof(lower, upper)
        if (below := item.get("lower")) is not None:
            sides = {int(k): self.numbers(a, network.size(int(k)), kind="i") for k, a in below.get("sides", {}).items()}
            found = found._replace(point=self.numbers(below["point"], network.inputs), sides=sides)
        above = item.get("upper") or {"kind": None}
        if (kind := above["kind"]) not in (None, "norms", "linear", "tree"):
            raise ValueError(f"no proof is called {kind!r}")
        if kind != "tree":
            return found._replace(norms=kind == "norms", leaves=(Leaf(),) if kind == "linear" else ())
        cases = [part for node, part in zip(*self.tree(above["nodes"], network), strict=True) if node < 0]
        gates, inputs, forms = network.gates, network.inputs, 1 + 2 * (network.gates + network.inputs)
        sizes = {"theta": gates, "lam": inputs, "conflict": gates, "cuts": forms**2}
        parts = (self.table(above.get(name), len(cases), below) for name, below in sizes.items())
        return found._replace(leaves=tuple(map(Leaf, cases, *parts)))

    def table(self, names: Any, leaves: int, below: int) -> list[dict[int, float]]:
        """Per leaf numbers by index, from ``[starts, index, value]``; nothing for no names."""
        if names is None:
            return [{} for _ in range(leaves)]
        index = self.numbers(names[1], -1, kind="i", below=below)
        value = self.numbers(names[2], len(index)).tolist()
        starts = self.numbers(names[0], leaves + 1, kind="i", below=len(index) + 1).tolist()
        pairs = list(zip(index.tolist(), value, strict=True))
        return [dict(pairs[starts[i] : starts[i + 1]]) for i in range(leaves)]
