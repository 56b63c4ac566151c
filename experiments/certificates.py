"""Certificates of exact results on the reference networks: size, and seconds to solve, to write and to check.

    python -m experiments.certificates [--methods bab,milp,lipbab] [--cases mlp3_w16] [--keep FOLDER] [--exact]
    python -m experiments.certificates --tamper 2000 [--kinds settled] [--cases mlp_d4_w32@0.1.bab] --keep FOLDER

The first writes and checks a certificate of every result that is exact within the time limit, and exits with 1 if any
is refused, over 50 MB, proves a row's end that is over 1e-5 above the result's, or is checked in floating point in more
than five times the seconds it took to solve. The second changes the files of an earlier run at random, one thing at a
time (experiments/tampering.py): what is then accepted must be true, by the values that the files attain, and by values
and gradients at points of the box that a file states. Seconds are of the processor.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lipverify.certificate import read
from lipverify.check import check

import lipcompare
from experiments.reference import DEFAULT_DATA, Case, cases
from experiments.study import guarded
from experiments.tampering import KINDS, tamper

_BYTES, _TIMES = 50e6, 5.0


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
    quick = exact or checking <= _TIMES * solving  # nothing is asked of the time that rational arithmetic takes
    holds = not refused and summary.bytes <= _BYTES and quick and loose <= 1e-5
    times = f"solved {solving:.2f} s, written {writing:.2f} s, checked {checking:.2f} s ({checking / solving:.1f})"
    size = f"{summary.bytes} bytes, {summary.leaves} cases"
    verdict = "" if holds else f" MISSED {' '.join(refused[:1])}"
    print(f"{name}: {times}, {size}, proved [{lower:.9g}, {upper:.9g}], {loose:+.1e}{verdict}", flush=True)
    return holds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with reference.json and the networks")
    parser.add_argument("--cases", default="", help="only those whose name contains one of these, comma-separated")
    parser.add_argument("--methods", default="bab,milp,lipbab")
    parser.add_argument("--seconds", type=float, default=60.0, help="time limit of every method, and of every proof")
    parser.add_argument("--keep", type=Path, default=Path("results/certificates"), help="folder of the certificates")
    parser.add_argument("--exact", action="store_true", help="check in rational arithmetic")
    parser.add_argument("--tamper", type=int, default=0, help="tamper so often with the files that are there")
    parser.add_argument("--kinds", default=",".join(KINDS), help="what is tampered with, comma-separated")
    parser.add_argument("--largest", type=float, default=80_000, help="bytes of a file that is tampered with, at most")
    parser.add_argument("--seed", type=int, default=0)
    arguments: Any = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.tamper:
        kinds, names = arguments.kinds.split(","), arguments.cases.split(",")
        accepted = tamper(
            arguments.keep, arguments.tamper, seed=arguments.seed, kinds=kinds, largest=arguments.largest, names=names
        )
        return 1 if accepted else 0
    arguments.keep.mkdir(parents=True, exist_ok=True)
    missed, methods = 0, arguments.methods.split(",")
    small = next(cases(arguments.data, "mlp3_w16@0.02")).problem
    for method in methods:
        lipcompare.bound(small, method, time_limit=2.0)  # first calls load libraries
    for case in cases(arguments.data, arguments.cases):
        for method in methods:
            missed += not written(case, method, arguments.keep, arguments.seconds, arguments.exact)
    print(f"{missed} missed.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(guarded(main))
