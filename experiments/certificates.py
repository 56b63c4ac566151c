"""Certificates of exact results on the reference networks: size, and seconds to solve, to write and to check.

    python -m experiments.certificates [--methods bab,milp,lipbab] [--cases mlp3_w16] [--keep FOLDER] [--exact]
    python -m experiments.certificates --tamper 2000 --keep FOLDER

The first writes and checks a certificate of every result that is exact within the time limit, and exits with 1 if any
is refused, over 50 MB, or checked in more than five times the seconds it took to solve. The second changes the files
of an earlier run at random, one thing at a time: what is then accepted must be true, by the known values and by
gradients at points of the box that the file states. Seconds are of the processor.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lipverify.certificate import Certificate, Malformed, read
from lipverify.check import check
from lipverify.network import Affine, Network

import lipcompare
from experiments.reference import DEFAULT_DATA, Case, cases

_BYTES, _TIMES = 50e6, 5.0
_POINTS = 200
"""Points of a box at which a tampered file's upper ends are tried."""


def written(case: Case, method: str, folder: Path, seconds: float, exact: bool) -> bool:
    """Solve, write, check and print one line; whether everything holds."""
    begun = time.process_time()
    result = lipcompare.bound(case.problem, method, time_limit=seconds)
    solving = time.process_time() - begun
    name = f"{case.key} {method}"
    if result.status is not lipcompare.Status.EXACT:
        print(f"{name}: not exact ({result.status.name.lower()})", flush=True)
        return True
    begun, path = time.process_time(), folder / f"{case.key}.{method}.npz"
    summary = result.certificate(path, time_limit=seconds)
    writing = time.process_time() - begun
    begun = time.process_time()
    rows = check(read(path), exact=exact)
    checking = time.process_time() - begun
    refused = [text for row in rows for text in row.failures]
    upper, lower = max(row.upper for row in rows), max(row.lower for row in rows)
    loose = max(row.upper / end - 1 for row, end in zip(rows, result.upper[0].tolist(), strict=True) if end > 0)
    holds = not refused and summary.bytes <= _BYTES and checking <= _TIMES * solving and loose <= 1e-5
    times = f"solved {solving:.2f} s, written {writing:.2f} s, checked {checking:.2f} s ({checking / solving:.1f})"
    size = f"{summary.bytes} bytes, {summary.leaves} cases"
    verdict = "" if holds else f" MISSED {' '.join(refused[:1])}"
    print(f"{name}: {times}, {size}, proved [{lower:.9g}, {upper:.9g}], {loose:+.1e}{verdict}", flush=True)
    return holds


def tampered(arrays: dict[str, np.ndarray], random: np.random.Generator) -> tuple[str, bytes]:
    """One random change to a certificate's members, in words, and the file."""
    new = {name: array.copy() for name, array in arrays.items()}
    header = json.loads(new.pop("certificate").tobytes())
    kind = random.choice(
        ["bit", "entry", "sign", "leaf", "rows", "box", "claim", "decision", "drop", "side", "shuffle", "settled"]
    )
    name = str(random.choice(sorted(new)))
    array, rows = new[name], header["rows"]
    trees = [row["upper"] for row in rows if row.get("upper") and row["upper"]["kind"] == "tree"]
    place = tuple(int(random.integers(n)) for n in array.shape) if array.size else None
    if kind == "entry" and place is not None:
        array[place] = (array[place] * random.normal() * 3).astype(array.dtype)
    elif kind == "sign" and place is not None:
        array[place] = -array[place]
    elif kind in ("leaf", "decision") and trees:
        name = trees[int(random.integers(len(trees)))]["nodes"]
        nodes = new[name]
        wanted = np.flatnonzero(nodes == -1 if kind == "leaf" else nodes >= 0)
        if len(wanted):
            i = int(random.choice(wanted))
            if kind == "leaf":
                new[name] = np.delete(nodes, i)
            else:
                nodes[i] ^= int(random.integers(1, 64))
    elif kind == "rows":
        i, j = (int(v) for v in random.integers(len(rows), size=2))
        part = str(random.choice(["upper", "lower", "claim"]))
        rows[i][part], rows[j][part] = rows[j].get(part), rows[i].get(part)
    elif kind == "box":
        end = header["box"][int(random.integers(2))]
        new[end] = new[end] + random.normal(size=new[end].shape) * 10.0 ** random.integers(-12, 0)
    elif kind == "claim":
        row = rows[int(random.integers(len(rows)))]
        row["claim"][1] = (row["claim"][1] or 1.0) * float(random.uniform(0.5, 1))
    elif kind == "shuffle" and place is not None:
        new[name] = random.permutation(array)
    elif kind == "drop":
        del new[name]
    elif kind == "settled" and header.get("settled"):
        lemma, other = (header["settled"][int(i)] for i in random.integers(len(header["settled"]), size=2))
        nodes = new[lemma["tree"]]
        halved = np.flatnonzero(nodes >= 0)
        if random.integers(2) or not len(halved):
            lemma["node"], other["node"] = other["node"], lemma["node"]
        else:  # all halvings of some parts go along another input, or decide a gate
            nodes[random.choice(halved, size=min(len(halved), 20))] ^= int(random.integers(1, 64))
    elif kind == "side":
        for row in rows:
            for member in (row.get("lower") or {}).get("sides", {}).values():
                new[member] = -new[member]
    stream = io.BytesIO()
    new["certificate"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez_compressed(stream, **new)  # type: ignore[arg-type]  # the stub takes names for options
    data = bytearray(stream.getvalue())
    if kind == "bit":
        data[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
    return f"{kind} {name}", bytes(data)


def sampled(file: Certificate, random: np.random.Generator) -> np.ndarray:
    """The largest dual norm of each row's gradient (rows,) at random points of the box that the file states."""
    network = file.question.network
    best = np.zeros(len(file.question.rows))
    with np.errstate(all="ignore"):
        for x in random.uniform(file.question.lower, file.question.upper, (_POINTS, network.inputs)):
            gradient = _gradient(network, file.question.rows, x)
            size = np.abs(gradient)
            norms = {"inf": size.sum(-1), "2": np.sqrt((size**2).sum(-1)), "1": size.max(-1)}[file.question.norm]
            best = np.fmax(best, np.where(np.isfinite(norms), norms, 0.0))
    return best


def _gradient(network: Network, rows: np.ndarray, x: np.ndarray) -> np.ndarray:
    values, jacobians = [x], [np.eye(network.inputs)]
    for node in network.nodes:
        if isinstance(node, Affine):
            values.append(node.bias + sum(m.matrix @ values[p] for p, m in node.terms))
            jacobians.append(sum((m.matrix @ jacobians[p] for p, m in node.terms), np.zeros(())))
        else:
            z = values[node.parent]
            values.append(np.maximum(z, node.alpha * z))
            jacobians.append(np.where(z > 0, 1.0, node.alpha)[:, None] * jacobians[node.parent])
    return np.asarray(rows @ jacobians[-1])


@dataclasses.dataclass
class Tally:
    """What became of tampered files."""

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
    values = sampled(file, random) * (1 - 1e-9)
    for i, row in enumerate(rows):
        low, high = known[i] if same else (0.0, np.inf)
        if row.upper < max(values[i], low * (1 - 1e-12)) or row.lower > min(high, row.upper):
            tally.false += 1
            return f"row {i}: [{row.lower!r}, {row.upper!r}], attained {values[i]!r}, known {known[i]!r}"
    if any(row.failures for row in rows):
        tally.refused += 1
    elif same:
        tally.weaker += 1
    else:
        tally.other += 1
    return None


def tamper(folder: Path, count: int, seed: int) -> int:
    """Tamper with the small files of a folder; the number of false claims that were accepted."""
    paths = [path for path in sorted(folder.glob("*.npz")) if path.stat().st_size < 80_000]
    files: list[tuple[Path, dict[str, np.ndarray], Certificate, list[tuple[float, float]]]] = []
    for path in paths:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        files.append((path, arrays, read(path), [(row.lower, row.upper) for row in check(read(path))]))
    tally = Tally()
    for trial in range(count):
        path, arrays, before, known = files[trial % len(files)]
        words, data = tampered(arrays, np.random.default_rng([seed, trial]))
        wrong = judge(before, known, data, trial, tally)
        if wrong:
            print(f"FALSE {path.name}, trial {trial}, {words}: {wrong}", flush=True)
        if trial % 100 == 99:
            print(f"{trial + 1}: {tally}", flush=True)
    print(f"{count} tamperings of {len(files)} files: {tally}")
    return tally.false


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with reference.json and the networks")
    parser.add_argument("--cases", default="", help="only cases whose key contains this, such as mlp3_w32@0.1")
    parser.add_argument("--methods", default="bab,milp,lipbab")
    parser.add_argument("--seconds", type=float, default=60.0, help="time limit of every method, and of every proof")
    parser.add_argument("--keep", type=Path, default=Path("results/certificates"), help="folder of the certificates")
    parser.add_argument("--exact", action="store_true", help="check in rational arithmetic")
    parser.add_argument("--tamper", type=int, default=0, help="tamper so often with the files that are there")
    parser.add_argument("--seed", type=int, default=0)
    arguments: Any = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.tamper:
        return 1 if tamper(arguments.keep, arguments.tamper, arguments.seed) else 0
    arguments.keep.mkdir(parents=True, exist_ok=True)
    missed = 0
    for case in cases(arguments.data, arguments.cases):
        for method in arguments.methods.split(","):
            missed += not written(case, method, arguments.keep, arguments.seconds, arguments.exact)
    print(f"{missed} missed.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
