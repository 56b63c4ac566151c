"""Certificates changed at random, one thing at a time: what is then accepted must be true."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lipverify.certificate import Certificate, Malformed, read
from lipverify.check import check
from lipverify.network import Affine, Network, Refused
from lipverify.numbers import Floating
from lipverify.tree import settled

_POINTS = 200
"""Points of a box at which a tampered file's upper ends are tried."""
_TRIES = 20
"""Draws of a change before another kind is tried: some find nothing to change in some files."""


@dataclasses.dataclass(eq=False)
class Members:
    """What is in a file: the arrays by their names, and the header."""

    arrays: dict[str, np.ndarray]
    header: dict[str, Any]

    @classmethod
    def of(cls, path: Path) -> Members:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        return cls(arrays, json.loads(arrays.pop("certificate").tobytes()))

    @property
    def trees(self) -> list[dict[str, Any]]:
        """Upper ends that are proved by cases."""
        ends = [row.get("upper") for row in self.header["rows"]]
        return [end for end in ends if end and end["kind"] == "tree"]

    def copy(self) -> Members:
        return Members({name: array.copy() for name, array in self.arrays.items()}, copy.deepcopy(self.header))

    def same(self, other: Members) -> bool:
        """Whether both say the same, number by number."""
        named = self.header == other.header and self.arrays.keys() == other.arrays.keys()
        return named and all(np.array_equal(array, other.arrays[name]) for name, array in self.arrays.items())

    def packed(self) -> bytes:
        stream = io.BytesIO()
        header = np.frombuffer(json.dumps(self.header).encode(), np.uint8)
        np.savez_compressed(stream, certificate=header, **self.arrays)  # type: ignore[arg-type]  # names for options
        return stream.getvalue()


def _some(members: Members, random: np.random.Generator) -> tuple[str, tuple[int, ...] | None]:
    """An array's name, and a place in it if it has any."""
    name = str(random.choice(sorted(members.arrays)))
    array = members.arrays[name]
    return name, tuple(int(random.integers(n)) for n in array.shape) if array.size else None


def _entry(members: Members, random: np.random.Generator) -> None:
    name, place = _some(members, random)
    if place is not None:
        array = members.arrays[name]
        array[place] = (array[place] * random.normal() * 3).astype(array.dtype)


def _sign(members: Members, random: np.random.Generator) -> None:
    name, place = _some(members, random)
    if place is not None:
        members.arrays[name][place] *= -1


def _shuffle(members: Members, random: np.random.Generator) -> None:
    name, place = _some(members, random)
    if place is not None:
        members.arrays[name] = random.permutation(members.arrays[name])


def _drop(members: Members, random: np.random.Generator) -> None:
    del members.arrays[_some(members, random)[0]]


def _any_tree(members: Members, random: np.random.Generator) -> dict[str, Any] | None:
    return members.trees[int(random.integers(len(members.trees)))] if members.trees else None


def _leaf(members: Members, random: np.random.Generator) -> None:
    """A leaf is gone, and nothing in its place."""
    if tree := _any_tree(members, random):
        nodes = members.arrays[tree["nodes"]]
        members.arrays[tree["nodes"]] = np.delete(nodes, random.choice(np.flatnonzero(nodes == -1)))


def _merge(nodes: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, int | None]:
    """The tree without some leaf and the decision above it, so that it is whole again; which leaf went, if any."""
    places = np.flatnonzero((nodes[:-1] >= 0) & (nodes[1:] == -1))
    if not len(places):
        return nodes, None
    i = int(random.choice(places))
    return np.delete(nodes, [i, i + 1]), int((nodes[:i] == -1).sum())


def _case(members: Members, random: np.random.Generator) -> None:
    """A case is gone with the decision above it and its multipliers, so that the file is well formed."""
    if tree := _any_tree(members, random):
        members.arrays[tree["nodes"]], gone = _merge(members.arrays[tree["nodes"]], random)
        for part in ("theta", "lam", "conflict", "cuts"):
            if gone is not None and part in tree:
                starts, index, value = (members.arrays[name] for name in tree[part])
                first, after = (int(starts[gone + k]) for k in (0, 1))
                lost = slice(first, after)
                starts[gone + 1 :] -= after - first
                parts = np.delete(starts, gone), np.delete(index, lost), np.delete(value, lost)
                members.arrays.update(zip(tree[part], parts, strict=True))


def _decision(members: Members, random: np.random.Generator) -> None:
    if tree := _any_tree(members, random):
        nodes = members.arrays[tree["nodes"]]
        if (nodes >= 0).any():
            nodes[random.choice(np.flatnonzero(nodes >= 0))] ^= int(random.integers(1, 64))


def _rows(members: Members, random: np.random.Generator) -> None:
    rows = members.header["rows"]
    i, j = (int(v) for v in random.integers(len(rows), size=2))
    part = str(random.choice(["upper", "lower", "claim"]))
    rows[i][part], rows[j][part] = rows[j].get(part), rows[i].get(part)


def _box(members: Members, random: np.random.Generator) -> None:
    end = members.arrays[members.header["box"][int(random.integers(2))]]
    end += random.normal(size=end.shape) * 10.0 ** random.integers(-12, 0)


def _claim(members: Members, random: np.random.Generator) -> None:
    row = members.header["rows"][int(random.integers(len(members.header["rows"])))]
    row["claim"][1] = (row["claim"][1] or 1.0) * float(random.uniform(0.5, 1))


def _side(members: Members, random: np.random.Generator) -> None:
    """Neurons at their kinks count for other sides, or for some where the file said nothing."""
    kinks = {str(k): node["size"] for k, node in enumerate(members.header["nodes"], 1) if node["kind"] == "kink"}
    for i, row in enumerate(members.header["rows"]):
        if row.get("lower"):
            named = row["lower"].setdefault("sides", {})
            for k, size in kinks.items():
                name = named.setdefault(k, f"row{i}.side{k}")
                members.arrays[name] = random.choice(np.array([-1, 1], np.int8), size=size)


def _settled(members: Members, random: np.random.Generator) -> None:
    """Something about bounds by cases of the whole box."""
    lemmas = members.header.get("settled")
    if not lemmas:
        return
    lemma, other = (lemmas[int(i)] for i in random.integers(len(lemmas), size=2))
    nodes, decided = members.arrays[lemma["tree"]], np.flatnonzero(members.arrays[lemma["tree"]] >= 0)
    kinks = [k for k, node in enumerate(members.header["nodes"], 1) if node["kind"] == "kink"]
    what = int(random.integers(7))
    if what == 0:
        lemma["node"], other["node"] = other["node"], lemma["node"]
    elif what == 1:
        lemma["node"] = int(random.choice(kinks))
    elif what == 2:
        members.header["settled"] = [lemmas[int(i)] for i in random.permutation(len(lemmas))]
    elif what == 3 and len(decided):  # some parts are halved along another input, or decide a gate or a sign
        nodes[random.choice(decided, size=min(len(decided), 20))] ^= int(random.integers(1, 64))
    elif what == 4 and len(decided):  # the two parts of a node change places
        nodes[random.choice(decided)] ^= 1
    elif what == 5:
        for _ in range(int(random.integers(1, 5))):
            members.arrays[lemma["tree"]], _ = _merge(members.arrays[lemma["tree"]], random)
    else:  # only gates are decided, each part on the side that suits
        sizes = (node["size"] for node in members.header["nodes"] if node["kind"] == "kink")
        nodes[decided] = random.integers(2 * sum(sizes), size=len(decided))


def _nothing(members: Members, random: np.random.Generator) -> None:
    """A bit is changed in the packed file."""


KINDS: dict[str, Callable[[Members, np.random.Generator], None]] = {
    "bit": _nothing,
    "entry": _entry,
    "sign": _sign,
    "leaf": _leaf,
    "case": _case,
    "rows": _rows,
    "box": _box,
    "claim": _claim,
    "decision": _decision,
    "drop": _drop,
    "side": _side,
    "shuffle": _shuffle,
    "settled": _settled,
}
"""What may be changed."""


def tampered(members: Members, kinds: Sequence[str], random: np.random.Generator) -> tuple[str, bytes] | None:
    """One change of one of these kinds, and the file; None where there is nothing of them to change."""
    for kind in (kind for kind in random.permutation(kinds).tolist() for _ in range(_TRIES)):
        new = members.copy()
        KINDS[kind](new, random)
        if kind == "bit":
            data = bytearray(new.packed())
            data[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
            return kind, bytes(data)
        if not new.same(members):
            return kind, new.packed()
    return None


class Seen(NamedTuple):
    """What happens at random points of the box that a file states.

    Attributes:
        norms: (rows,) the largest dual norm of each row's gradient.
        least, most: (size,) by kink node, the smallest and the largest values before it.
    """

    norms: np.ndarray
    least: dict[int, np.ndarray]
    most: dict[int, np.ndarray]


def seen(file: Certificate, random: np.random.Generator) -> Seen:
    """A sample of values and gradients; what overflows is left out."""
    asked = file.question
    best, least, most = np.zeros(len(asked.rows)), dict[int, np.ndarray](), dict[int, np.ndarray]()
    with np.errstate(all="ignore"):
        for x in random.uniform(asked.lower, asked.upper, (_POINTS, asked.network.inputs)):
            gradient, before = _run(asked.network, asked.rows, x)
            size = np.abs(gradient)
            norms = {"inf": size.sum(-1), "2": np.sqrt((size**2).sum(-1)), "1": size.max(-1)}[asked.norm]
            best = np.fmax(best, np.where(np.isfinite(norms), norms, 0.0))
            for k, z in before.items():
                least[k], most[k] = np.fmin(least.get(k, z), z), np.fmax(most.get(k, z), z)
    return Seen(best, least, most)


def _run(network: Network, rows: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """The gradients (rows, inputs) at a point, and the values before kinks."""
    values, jacobians, before = [x], [np.eye(network.inputs)], dict[int, np.ndarray]()
    for k, node in enumerate(network.nodes, 1):
        if isinstance(node, Affine):
            values.append(node.bias + sum(m @ values[p] for p, m in node.terms))
            jacobians.append(sum((m @ jacobians[p] for p, m in node.terms), np.zeros(())))
        else:
            z = before[k] = values[node.parent]
            values.append(np.maximum(z, node.alpha * z))
            jacobians.append(np.where(z > 0, 1.0, node.alpha)[:, None] * jacobians[node.parent])
    return np.asarray(rows @ jacobians[-1]), before


def outside(file: Certificate, points: Seen) -> str | None:
    """A value before a kink, seen at a point, that lies outside of what holds over the box by cases."""
    with np.errstate(all="ignore"):
        try:
            bounds = settled(file.question.to(Floating()), file.below, file.lemmas).bounds
        except Refused:
            return None
    for k, (lower, upper) in bounds.items():
        low, high = points.least[k], points.most[k]
        # A network's values at a point err by far less than this share of the values that it takes.
        room = 1e-9 * np.fmax(np.abs(low), np.abs(high)).max()
        if (low < lower[0] - room).any() or (high > upper[0] + room).any():
            return f"values before node {k} leave their intervals"
    return None


@dataclasses.dataclass
class Tally:
    """What became of tampered files.

    Attributes:
        refused: a claim is not met, or the file is no certificate.
        weaker: every claim is met, of the same question.
        other: every claim is met, of another question.
        false: what is said to be proved is not so.
    """

    refused: int = 0
    weaker: int = 0
    other: int = 0
    false: int = 0


def judge(before: Certificate, known: list[tuple[float, float]], data: bytes, seed: int, tally: Tally) -> str | None:
    """Count one tampered file; what is false about it, if anything."""
    random = np.random.default_rng(seed)
    try:
        file = read(io.BytesIO(data))
    except Malformed:
        tally.refused += 1
        return None
    rows = check(file)
    same = file.digest == before.digest
    points = seen(file, random)
    values = points.norms * (1 - 1e-9)  # far more than the rounding of a gradient at a point
    if file.lemmas and (wrong := outside(file, points)):
        tally.false += 1
        return wrong
    for i, row in enumerate(rows):
        low, high = known[i] if same else (0.0, np.inf)
        if row.upper < max(values[i], low) or row.lower > min(high, row.upper):
            tally.false += 1
            return f"row {i}: [{row.lower!r}, {row.upper!r}], attained {values[i]!r}, known {known[i]!r}"
    if any(row.failures for row in rows):
        tally.refused += 1
    elif same:
        tally.weaker += 1
    else:
        tally.other += 1
    return None


def tamper(
    folder: Path, count: int, *, seed: int, kinds: Sequence[str], largest: float, names: Sequence[str] = ("",)
) -> int:
    """Tamper with the files of a folder; the number of false claims that were accepted.

    The lower ends that are known of a file are attained at points, without any rounding.

    Args:
        count: of tamperings, file by file in turns.
        kinds: which ones, see ``KINDS``.
        largest: bytes of a file, at most.
        names: parts of the files' names, of which one has to be there.
    """
    files: list[tuple[str, Members, Certificate, list[tuple[float, float]]]] = []
    for path in sorted(folder.glob("*.npz")):
        members = Members.of(path)
        wanted = path.stat().st_size <= largest and any(part in path.name for part in names)
        if wanted and tampered(members, kinds, np.random.default_rng(seed)):
            before = read(path)
            files.append((path.name, members, before, [(row.lower, row.upper) for row in check(before)]))
    tallies = {kind: Tally() for kind in kinds}
    for trial in range(count if files else 0):
        name, members, before, known = files[trial % len(files)]
        made = tampered(members, kinds, np.random.default_rng([seed, trial]))
        if made:
            kind, data = made
            wrong = judge(before, known, data, trial, tallies[kind])
            if wrong:
                print(f"FALSE {name}, trial {trial}, {kind}: {wrong}", flush=True)
        if trial % 100 == 99:
            print(f"{trial + 1} of {count}", flush=True)
    for kind, tally in tallies.items():
        print(f"{kind}: {tally}")
    whole = Tally(*map(sum, zip(*map(dataclasses.astuple, tallies.values()), strict=True)))
    print(f"{sum(dataclasses.astuple(whole))} tamperings of {len(files)} files: {whole}")
    return whole.false
