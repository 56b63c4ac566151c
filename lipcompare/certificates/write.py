"""From a problem and a result to a certificate."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np

from lipcompare.certificates.file import Writer, describe
from lipcompare.certificates.search import Tree, proof_trees
from lipcompare.domain import Box
from lipcompare.errors import UnsupportedOperation
from lipcompare.gates import has_patterns
from lipcompare.jacobian import relaxation_named
from lipcompare.preactivation import Tightening
from lipcompare.problem import Problem
from lipcompare.propagation import propagate
from lipcompare.result import Bound, Witness

_PLAIN = {"ibp": "interval", "recurjac": "recurjac", "lbp": "linear"}
"""Methods whose bound a checker derives from the slope ranges alone."""


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

    Results of ``ibp``, ``recurjac`` and ``lbp`` are derived again over bounds of plain CROWN (so are looser where the
    result's own were tighter); everything else is proved by a branch and bound of its own, which stops once it has
    proved the result's upper end, so it takes about the time of ``bab``. What the file claims may be looser than the
    result where the time does not suffice.

    Args:
        example: of the batch.
        time_limit: seconds for the proof.

    Raises:
        UnsupportedOperation: smooth activations, kinks elsewhere than at the origin, balls, or a network too large.
    """
    if not has_patterns(problem.network):
        raise UnsupportedOperation("Certificates cover piecewise linear networks with kinks at the origin only.")
    if type(problem.box) is not Box:
        raise UnsupportedOperation("Certificates cover boxes only, neither balls nor the whole space.")
    one = problem.example(example).double()
    writer = Writer()
    header = describe(one, writer)
    rows: list[dict[str, Any]] = [{"claim": [0.0, None]} for _ in range(one.rows)]
    witnesses = [] if result.witnesses is None else list(result.witnesses.example(example))
    for witness in witnesses:
        rows[witness.row] |= _lower(one, witness, float(result.lower[example, witness.row]), writer)
    leaves = 0
    kind = _PLAIN.get(result.method)
    if kind is not None:
        # What the checker derives: over bounds of plain CROWN, whatever bounds the result came from.
        plain = propagate(one, Tightening.CROWN, relaxation_named(result.method), joint=False, memory=memory)
        for row, upper in zip(rows, plain.upper[0].tolist(), strict=True):
            row["upper"] = {"kind": kind}
            row["claim"][1] = upper if np.isfinite(upper) else None
    elif np.isfinite(result.overall_upper[example]):
        trees = proof_trees(one, witnesses, float(result.overall_upper[example]), time_limit=time_limit, memory=memory)
        for number, (row, tree) in enumerate(zip(rows, trees, strict=True)):
            row["upper"] = _upper(number, tree, one, writer)
            # Multipliers are written in float32: what they prove is checked against this much more.
            row["claim"][1] = tree.bound * (1 + 1e-6)
            leaves += len(tree.leaves)
    header["rows"] = rows
    size = writer.save(header, path)
    ends = [row["claim"][1] for row in rows]
    upper = float("inf") if any(end is None for end in ends) else max(ends)
    return Summary(max(row["claim"][0] for row in rows), upper, size, leaves)


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
    gates = problem.network.neurons
    name = f"row{number}"
    table = np.stack([leaf.multipliers for leaf in tree.leaves])
    proof: dict[str, Any] = {
        "kind": "tree",
        "nodes": writer.add(f"{name}.nodes", tree.nodes, np.int32),
        "constant": writer.add(f"{name}.constant", table[:, 0], np.float32),
    }
    conflict = np.zeros((len(table), gates), np.float32)
    for i, leaf in enumerate(tree.leaves):
        for gate, weight in leaf.conflict.items():
            conflict[i, gate] = weight
    parts = {"theta": table[:, 1 : 1 + gates], "lam": table[:, 1 + gates :], "conflict": conflict}
    for part, columns in parts.items():
        owner, index = np.nonzero(columns)
        starts = np.searchsorted(owner, np.arange(len(table) + 1))
        proof[part] = [
            writer.add(f"{name}.{part}.start", starts, np.int32),
            writer.add(f"{name}.{part}.index", index, np.int32),
            writer.add(f"{name}.{part}.value", columns[owner, index], np.float32),
        ]
    return proof
