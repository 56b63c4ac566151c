"""From a problem and a result to a certificate."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lipcompare.branching.decisions import Numbering
from lipcompare.branching.roots import settled
from lipcompare.certificates.checked import checked
from lipcompare.certificates.file import Writer, check_network, describe
from lipcompare.certificates.search import Leaf, Tree, proof_trees
from lipcompare.certificates.slopes import bounds_with_slopes
from lipcompare.domain import Box
from lipcompare.errors import UnsupportedOperation
from lipcompare.gates import Gates, PreactivationBounds
from lipcompare.jacobian import relaxation_named
from lipcompare.jacobian.norms import norm_product
from lipcompare.problem import Problem
from lipcompare.result import Bound, Witness

_PLAIN = ("ibp", "recurjac", "lbp")
"""Methods whose bound a checker derives from the slope ranges alone, by chords, which are the tightest of the three."""
_PROGRAMS = ("sdp", "lp", "lipsdp")
"""Methods whose bound is one program's, or close to one: a proof needs programs that are solved to more digits."""
_CLOSE, _LOOSE = 1e-5, 3e-3
"""Relative accuracy of the programs of cases: for these, and for searches, as in `bab`."""
_ROOM = 1e-9
"""What the checker's error bounds may add, relative: they are ``2 gamma_n`` times sums of absolute values, with ``n``
some thousand operations, so that these sums may be a thousand times the bound."""
_ROOM_SINGLE = 1e-6
"""The same with multipliers that were rounded to float32."""
_OVER = 1e-12
"""What a claim that the checker had not met is above what it proves."""
_BELOW = 2.0
"""How far below an end a second search aims, of what the checker lost on the first one's proof."""
_LEAST = 2.0**-250
"""Smaller upper ends are claimed as this: a checker in floating point allows for underflow."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """What was written.

    Attributes:
        lower, upper: the interval of the largest row that the file claims, to be checked.
        bytes: size of the file.
        leaves: cases of the proof, 0 if it has none.
    """

    lower: float
    upper: float
    bytes: int
    leaves: int


def check_covered(problem: Problem) -> None:
    """Whether a certificate can be written of results on this problem, which need not be known for that.

    Raises:
        UnsupportedOperation: smooth activations, kinks elsewhere than at the origin, balls, or a network too large.
    """
    if type(problem.box) is not Box:
        raise UnsupportedOperation("Certificates cover boxes only, neither balls nor the whole space.")
    check_network(problem.network)


def write_certificate(
    problem: Problem,
    result: Bound,
    path: str | os.PathLike[str],
    *,
    example: int = 0,
    time_limit: float = float("inf"),
    memory: int = 2**30,
) -> Summary:
    """Write what re-derives both ends of a result without search (docs/certificates.md).

    ``naive`` is derived again from the layers. For ``ibp``, ``recurjac`` and ``lbp`` the file claims what chords give
    over CROWN bounds with optimised slopes. Everything else, cuts included, is proved by a branch and bound of its own,
    which stops once it has proved every row's upper end, so it takes about the time of ``bab``; where the time does not
    suffice the file claims less.

    Args:
        example: of the batch.
        time_limit: seconds for the proof.

    Raises:
        UnsupportedOperation: smooth activations, kinks elsewhere than at the origin, balls, or a network too large.
    """
    check_covered(problem)
    one = problem.example(example).double("cpu")
    writer = Writer()
    header = describe(one, writer)
    rows: list[dict[str, Any]] = [{"claim": [0.0, None]} for _ in range(one.rows)]
    witnesses = [] if result.witnesses is None else list(result.witnesses.example(example))
    for witness in witnesses:
        rows[witness.row] |= _lower(one, witness, float(result.lower[example, witness.row]), writer)
    header["found_by"], header["rows"] = result.method, rows
    trees: list[Tree] = []
    if result.method in ("naive", *_PLAIN):
        if result.method == "naive":
            kind, uppers = "norms", norm_product(one.network, one.functionals, one.norm)[0].numpy()
        else:
            kind, (_, uppers) = "linear", _whole_box(one, header, writer, memory)
        for row, upper in zip(rows, uppers.tolist(), strict=True):
            row["upper"] = {"kind": kind}
            row["claim"][1] = max(upper * (1 + _ROOM), _LEAST) if np.isfinite(upper) else None
    elif np.isfinite(result.overall_upper[example]):
        started = time.perf_counter()
        bounds, linear = _whole_box(one, header, writer, memory, time_limit)
        ends = np.minimum(result.upper[example], linear)

        def searched(tolerance: float, numbers: list[int], wanted: np.ndarray) -> list[Tree]:
            part = dataclasses.replace(one, functionals=one.functionals[:, numbers])
            own = [dataclasses.replace(w, row=numbers.index(w.row)) for w in witnesses if w.row in numbers]
            left = time_limit - (time.perf_counter() - started)
            return proof_trees(
                part, bounds, linear[numbers], own, wanted[numbers], tolerance=tolerance, time_limit=left, memory=memory
            )  # fmt: skip

        def claim(number: int, tree: Tree) -> None:
            rows[number]["upper"] = _upper(number, tree, one, writer)
            rows[number]["claim"][1] = max(tree.bound * (1 + _ROOM_SINGLE), _LEAST)

        trees = searched(_CLOSE if result.method in _PROGRAMS else _LOOSE, list(range(one.rows)), ends)
        for number, tree in enumerate(trees):
            claim(number, tree)
    size, highs = writer.save(header, path), _proved(path, rows)
    again = trees and result.method not in _PROGRAMS and time.perf_counter() - started < time_limit
    if again and (short := _short(rows, highs)):
        # Multipliers of programs that ended early may lose what the search had, as the checker makes something else of
        # them: aim lower by what was lost, but not below what is attained. The better proof stays.
        lost = np.array(highs) - [row["claim"][1] for row in rows]
        aim = np.maximum(ends - _BELOW * np.where(np.isfinite(lost), lost, 0.0).clip(0.0), result.lower[example])
        closer = dict(zip(short, searched(_CLOSE, short, aim), strict=True))
        for number in short:
            claim(number, closer[number])
        writer.save(header, path)
        better = _proved(path, rows)
        for number in short:
            if better[number] <= highs[number]:
                trees[number] = closer[number]
            claim(number, trees[number])
        size, highs = writer.save(header, path), [min(pair) for pair in zip(highs, better, strict=True)]
    if short := _short(rows, highs):
        for number in short:
            # Re-propagation there may find less than the search did: claim what is proved.
            rows[number]["claim"][1] = highs[number] * (1 + _OVER) if np.isfinite(highs[number]) else None
        size = writer.save(header, path)
    claims = [row["claim"][1] for row in rows]
    upper = float("inf") if any(end is None for end in claims) else max(claims)
    return Summary(max(row["claim"][0] for row in rows), upper, size, sum(len(tree.leaves) for tree in trees))


def _proved(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """What the file proves of every row; 0, which is below any claim, where nobody is there to check it."""
    found = checked(path)
    unread = [0.0 if found is None else float("inf")] * len(rows)  # what cannot be read proves nothing
    return list((found and found.upper) or unread)


def _short(rows: Sequence[Mapping[str, Any]], highs: Sequence[float]) -> list[int]:
    """Rows whose claim is below what is proved."""
    pairs = zip((row["claim"][1] for row in rows), highs, strict=True)
    return [number for number, (claim, high) in enumerate(pairs) if claim is not None and claim < high]


def _whole_box(
    problem: Problem, header: dict[str, Any], writer: Writer, memory: int, settling: float | None = None
) -> tuple[PreactivationBounds, np.ndarray]:
    """Pre-activation bounds with slopes that go into the file, and the linear bounds (rows,) that follow.

    ``settling``: time, of which a share goes into proving signs of neurons by halving the box; None for no such proof.
    """
    bounds, slopes = bounds_with_slopes(problem, memory)
    header["slopes"] = [
        {
            "node": node,
            "neurons": writer.add(f"{node}.neurons", below.neurons, np.int32),
            "below": {str(k): writer.add(f"{node}.below{k}", v, np.float32) for k, v in below.slopes.items()},
        }
        for node, below in slopes.items()
    ]
    if settling is not None:
        header["settled"] = []
        numbering = Numbering(problem.network)

        def keep(node: int, inputs: list[int]) -> None:
            nodes = [-1 if j < 0 else 2 * (numbering.count + j) + 1 for j in inputs]
            header["settled"].append({"node": node, "tree": writer.add(f"{node}.settled", nodes, np.int32)})

        bounds = settled(problem, bounds, memory, settling, keep)
    gates, relaxation = Gates.from_preactivations(problem.network, bounds), relaxation_named("lbp")
    gradients = relaxation.gradients(
        problem.network, gates, problem.functionals, norm=problem.norm, forward=None, memory=memory
    )
    upper = relaxation.norms(problem.network, gates, problem.functionals, gradients, problem.norm, None)
    return bounds, upper[0].numpy()


def _lower(problem: Problem, witness: Witness, value: float, writer: Writer) -> dict[str, Any]:
    """The part on a lower end: the point, and on which side its kinks count."""
    proof: dict[str, Any] = {"point": writer.add(f"row{witness.row}.point", witness.point)}
    if witness.slopes is not None:
        proof["sides"] = _sides(problem, witness, writer)
    return {"lower": proof, "claim": [value, None]}


def _sides(problem: Problem, witness: Witness, writer: Writer) -> dict[str, str]:
    network = problem.network
    start, named = 0, {}
    for k in network.activations:
        size = network.nodes[k].size
        slopes = np.asarray(witness.slopes)[start : start + size]
        # The steeper end of a kink at the origin is that of its right side.
        side = np.where(slopes == 1.0, 1, -1)
        named[str(k)] = writer.add(f"row{witness.row}.side{k}", side, np.int8)
        start += size
    return named


def _upper(number: int, tree: Tree, problem: Problem, writer: Writer) -> dict[str, Any]:
    """The part on an upper end: the tree, and the multipliers of its leaves as slices of flat arrays."""
    gates, name = problem.network.neurons, f"row{number}"
    table = np.stack([leaf.multipliers for leaf in tree.leaves])
    owner, column = np.nonzero(table)
    value, gate = table[owner, column], column < gates
    parts = {
        "theta": (owner[gate], column[gate], value[gate]),
        "lam": (owner[~gate], column[~gate] - gates, value[~gate]),
        "conflict": _flat([leaf.conflict for leaf in tree.leaves]),
        "cuts": _flat([_by_pair(leaf, problem) for leaf in tree.leaves]),
    }
    proof: dict[str, Any] = {"kind": "tree", "nodes": writer.add(f"{name}.nodes", tree.nodes, np.int32)}
    for part, (leaf, index, values) in parts.items():
        proof[part] = [
            writer.add(f"{name}.{part}.start", np.searchsorted(leaf, np.arange(len(table) + 1)), np.int32),
            writer.add(f"{name}.{part}.index", index, np.int64 if part == "cuts" else np.int32),
            writer.add(f"{name}.{part}.value", values, np.float32 if _fits_single(values) else np.float64),
        ]
    return proof


def _fits_single(values: np.ndarray) -> bool:
    """Whether numbers keep single precision's accuracy there: multipliers of rows of very small weights do not."""
    size, range_ = np.abs(values[values != 0]), np.finfo(np.float32)
    return not size.size or bool(size.min() >= range_.tiny and size.max() <= range_.max)


def _flat(leaves: Sequence[Mapping[int, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of mappings, one per leaf: the leaf, the key and the value of every pair."""
    owner = np.repeat(np.arange(len(leaves)), [len(leaf) for leaf in leaves])
    keys, values = ([v for leaf in leaves for v in part(leaf)] for part in (Mapping.keys, Mapping.values))
    return owner, np.array(keys, np.int64), np.array(values)


def _by_pair(leaf: Leaf, problem: Problem) -> dict[int, float]:
    """A leaf's cuts with the two names of each as one number; the file has the sides of a sign the other way round."""
    first, count = 1 + 2 * problem.network.neurons, 1 + 2 * (problem.network.neurons + problem.network.in_size)
    turned = np.where(leaf.cuts >= first, (leaf.cuts - first ^ 1) + first, leaf.cuts).astype(np.int64)
    # A round of separation may find a product that was inherited: then there are two multipliers of it.
    pairs, places = np.unique(turned.max(-1) * count + turned.min(-1), return_inverse=True)
    return dict(zip(pairs.tolist(), np.bincount(places, leaf.nu, len(pairs)).tolist(), strict=True))
